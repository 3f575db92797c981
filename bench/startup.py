"""How soon a server listens, and what it weighs then."""

from __future__ import annotations

from statistics import median

from bench.parts import Bench, Result, table
from bench.processes import serving
from bench.subjects import LABELS


def measure(bench: Bench) -> Result:
    """Seconds from the start of the process until it listens, and its resident memory then."""
    times: dict[str, list[float]] = {}
    sizes: dict[str, list[int]] = {}
    for _ in range(2 if bench.quick else 4):
        for subject in ("recollect", "langserve"):
            with serving(subject, bench.place(), python=bench.python(subject)) as server:
                times.setdefault(subject, []).append(server.ready_s)
                sizes.setdefault(subject, []).append(server.idle_bytes)
    result = {name: {"ready_s": median(times[name]), "resident_mb": median(sizes[name]) / 1e6} for name in times}
    table(
        ["start", "ready after s", "resident MB"],
        [[LABELS[name], f"{one['ready_s']:.2f}", f"{one['resident_mb']:.0f}"] for name, one in result.items()],
    )
    return result

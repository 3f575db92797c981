"""What a turn costs when it is the first of its session, the 1,000th, and the 10,000th."""

from __future__ import annotations

from statistics import median
from uuid import uuid4

from bench.parts import Bench, Result, table
from bench.prefill import fill, turns
from bench.processes import serving

ENDPOINTS = ("invoke", "stream", "stream_log", "stream_events")


def measure(bench: Bench) -> Result:
    """Milliseconds and bytes sent, on every endpoint, as medians; and what both are, relative to the first turn."""
    nths = (1, 1000) if bench.quick else (1, 1000, 10_000)
    samples = 8 if bench.quick else 60
    folder = bench.place()
    for nth in nths[1:]:
        past = turns(nth - 1)
        fill(folder, ((f"{endpoint}-{nth}", past) for endpoint in ENDPOINTS))
    result: Result = {}
    with serving("recollect", folder) as server:
        for endpoint in ENDPOINTS:
            times: dict[int, list[float]] = {nth: [] for nth in nths}
            sizes: dict[int, list[float]] = {nth: [] for nth in nths}
            for number in range(samples + 5):
                for nth in nths:
                    session = f"{endpoint}-{nth}" if nth > 1 else f"new-{uuid4().hex}"
                    outcome = bench.clients.do(server, endpoint, turns=1, session=session)
                    if number >= 5:
                        times[nth].append(outcome.times[0])
                        sizes[nth].append(outcome.bytes)
            result[endpoint] = {
                str(nth): {
                    "ms": median(times[nth]),
                    "bytes": median(sizes[nth]),
                    "ms_ratio": median(times[nth]) / median(times[1]),
                    "bytes_ratio": median(sizes[nth]) / median(sizes[1]),
                }
                for nth in nths
            }
    _show(result, [str(nth) for nth in nths])
    return result


def _show(result: Result, nths: list[str]) -> None:
    rows = [
        [endpoint, nth, f"{one[nth]['ms']:.2f}", f"{one[nth]['bytes']:.0f}", f"{one[nth]['ms_ratio']:.2f}",
         f"{one[nth]['bytes_ratio']:.3f}"]
        for endpoint, one in result.items()
        for nth in nths
    ]  # fmt: skip
    table(["endpoint", "turn", "ms", "bytes", "x first, time", "x first, bytes"], rows)

"""Many streams at once, of a model that says 20 tokens a second."""

from __future__ import annotations

import threading

from bench.parts import Bench, Result, table
from bench.processes import Server, serving
from bench.stats import percentile
from bench.subjects import LABELS


def measure(bench: Bench) -> Result:
    """The time between tokens, and the memory that each stream takes, with all of them open."""
    crowd = 200 if bench.quick else 1000
    result: Result = {}
    for subject in ("recollect", "langserve"):
        with serving(subject, bench.place(), model="slow", python=bench.python(subject)) as server:
            bench.clients.do(server, "stream", clients=8, turns=1)
            before = server.resident()
            with _Peak(server) as peak:
                outcome = bench.clients.do(server, "stream", clients=crowd, turns=1, ramp_s=1.5)
        result[subject] = {
            "streams": outcome.turns,
            "gap_p50_ms": percentile(outcome.gaps, 0.5),
            "gap_p99_ms": percentile(outcome.gaps, 0.99),
            "first_p99_ms": percentile(outcome.firsts, 0.99),
            "kb_per_stream": (peak.bytes - before) / crowd / 1000,
        }
    table(
        [f"{crowd} streams at once, 20 tokens/s", "between tokens p50 ms", "p99 ms", "first token p99 ms", "KB/stream"],
        [
            [
                LABELS[name],
                *(f"{one[key]:.0f}" for key in ("gap_p50_ms", "gap_p99_ms", "first_p99_ms", "kb_per_stream")),
            ]
            for name, one in result.items()
        ],
    )
    return result


class _Peak:
    """Watches how large a server gets."""

    def __init__(self, server: Server) -> None:
        self.bytes, self._server, self._ended = 0, server, threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._ended.wait(0.1):
            self.bytes = max(self.bytes, self._server.resident())

    def __enter__(self) -> _Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

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
    result["watched"] = _watched(bench, crowd)
    return result


def _watched(bench: Bench, crowd: int) -> dict[str, float]:
    """The same crowd, each of whom somebody follows on another worker, which has the turn from the store."""
    folder = bench.place()
    with serving("recollect", folder, model="slow") as asked, serving("recollect", folder, model="slow") as other:
        bench.clients.do(asked, "stream", clients=8, turns=1, watch_port=other.port)
        before = asked.processor_s(), other.processor_s()
        outcome = bench.clients.do(asked, "stream", clients=crowd, turns=1, ramp_s=1.5, watch_port=other.port)
        used = asked.processor_s() - before[0], other.processor_s() - before[1]
    seen = {
        "streams": outcome.turns,
        "watchers": outcome.watched,
        "gap_p99_ms": percentile(outcome.gaps, 0.99),
        "watched_gap_p50_ms": percentile(outcome.watched_gaps, 0.5),
        "watched_gap_p99_ms": percentile(outcome.watched_gaps, 0.99),
        "first_p99_ms": percentile(outcome.firsts, 0.99),
        "processor_ms_per_stream": used[0] * 1000 / crowd,
        "processor_ms_per_watcher": used[1] * 1000 / crowd,
    }
    table([f"{crowd} streams, each watched on another worker", "value"], [[name, f"{seen[name]:.0f}"] for name in seen])
    return seen


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

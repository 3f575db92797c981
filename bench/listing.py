"""Sessions listed, and found by what was said in them, among very many."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from statistics import median

from bench.parts import Bench, Result, table
from bench.prefill import fill, turns
from bench.processes import Server, serving
from bench.stats import percentile

_QUERIES = {
    "list 50": "limit=50",
    "find, said in one session": "limit=50&q=needle4321x",
    "find, said in none": "limit=50&q=haystack",
}


def measure(bench: Bench) -> Result:
    """Milliseconds over HTTP, among 10,000 sessions of 10 turns."""
    count = 1000 if bench.quick else 10_000
    folder, result = bench.place(), dict[str, dict[str, float]]()
    reply = "An answer of an ordinary length, which says what was asked, and then a few words more. " * 2
    past = turns(10, reply=reply)
    fill(folder, ((f"s{place}", [*past[:9], *turns(1, words=f"needle{place}x")]) for place in range(count)))
    with serving("recollect", folder) as server:
        for name, query in _QUERIES.items():
            try:
                times = _times(lambda query=query: _ask(server, query), 5 if bench.quick else 15)  # type: ignore[misc]
            except urllib.error.HTTPError as error:
                print(f"GET /sessions: {error.code}")
                return {}
            result[name] = {"p50_ms": median(times), "p99_ms": percentile(times, 0.99), "first_ms": times[0]}
    table(
        [f"among {count} sessions of 10 turns", "p50 ms", "worst ms", "first ms"],
        [[name, *(f"{value:.1f}" for value in one.values())] for name, one in result.items()],
    )
    return {"sessions": count, "http": result}


def _ask(server: Server, query: str) -> None:
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}/sessions?{query}", headers=server.headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        json.load(answer)


def _times(work: Callable[[], None], count: int) -> list[float]:
    times = []
    for _ in range(count):
        started = time.perf_counter()
        work()
        times.append((time.perf_counter() - started) * 1000)
    return times

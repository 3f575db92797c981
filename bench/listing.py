"""Sessions listed, and found by what was said in them, among very many."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.error
import urllib.request
from pathlib import Path
from statistics import median
from urllib.parse import quote

from bench.parts import Bench, Result, table
from bench.prefill import fill, turns
from bench.processes import PATIENCE_S, Server, serving
from bench.subjects import USER
from histories.files.store import FileStore

_QUERIES = {
    "list 50": "limit=50",
    "find, said in one session": "limit=50&q=needle321x",
    "find, said in none": "limit=50&q=haystack",
    "find, said in none, not ASCII": f"limit=50&q={quote('Unerhörtes')}",
    "find, said in all": "limit=50&q=question",
}


def measure(bench: Bench) -> Result:
    """Milliseconds over HTTP, among 10,000 sessions of 10 turns."""
    count = 1000 if bench.quick else 10_000
    folder, result = bench.place(), dict[str, dict[str, float]]()
    reply = "An answer of an ordinary length, which says what was asked, and then a few words more. " * 2
    past = turns(10, reply=reply)
    fill(folder, ((f"s{place}", [*past[:9], *turns(1, words=f"needle{place}x", first=9)]) for place in range(count)))
    for name, query in _QUERIES.items():
        with serving("recollect", folder) as server:
            try:
                result[name] = _costs(server, folder, f"/sessions?{query}", 5 if bench.quick else 25)
            except urllib.error.HTTPError as error:
                print(f"GET /sessions: {error.code}")
                return {}
    table(
        [f"among {count} sessions of 10 turns", "first ms", "p50 ms", "worst ms", "p50 ms after a change"],
        [[name, *(f"{value:.1f}" for value in one.values())] for name, one in result.items()],
    )
    return {"sessions": count, "http": result}


def _costs(server: Server, folder: Path, path: str, count: int) -> dict[str, float]:
    """What a server takes that has looked at no session yet, then again, then when another process has changed one."""
    _time(server, "/healthz")
    first = _time(server, path)
    again = [_time(server, path) for _ in range(count)]
    changed = []
    for place in range(count):
        _rename(folder, f"s{place}")
        changed.append(_time(server, path))
    return {
        "first_ms": first,
        "p50_ms": median(again),
        "worst_ms": max(again),
        "changed_p50_ms": median(changed),
    }


def _time(server: Server, path: str) -> float:
    request = urllib.request.Request(f"http://127.0.0.1:{server.port}{path}", headers=server.headers)
    started = time.perf_counter()
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        json.load(answer)
    return (time.perf_counter() - started) * 1000


def _rename(folder: Path, session: str) -> None:
    async def rename() -> None:
        store = FileStore(folder / "histories", fsync=False)
        await store.history(USER, session).rename("Another title")
        await store.close()

    asyncio.run(rename())

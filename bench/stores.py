"""What a turn costs on each store, beside files: real servers on this machine, fsync on in all of them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Final
from uuid import uuid4

from bench import throughput
from bench.parts import Bench, Result, table
from bench.prefill import fill, turns
from bench.processes import Server, serving
from bench.subjects import LABELS
from tests import postgres_server, redis_server

ENDPOINTS = ("invoke", "stream")
BASE = "file"
"""What ratios are taken of."""
_WARM_UP = 10

Stores = Mapping[str, Callable[[], AbstractContextManager[str]]]
"""What gives a store its server for a while, and says the store's URL."""

NO_SERVER = (redis_server.NoServer, postgres_server.NoServer)
"""A store's server can't be had here; the message says why."""


_ENDS: Final = 'read -r _ || { kill -QUIT "$1"; sleep 2; kill -KILL "$1"; rm -rf "$2"; } 2>/dev/null'


@contextmanager
def _gone_with_me(process: int, folder: Path) -> Iterator[None]:
    """Ends a server and removes its folder, should this process be killed before it does so itself."""
    watcher = subprocess.Popen(
        ["/bin/sh", "-c", _ENDS, "sh", str(process), str(folder)], stdin=subprocess.PIPE, start_new_session=True
    )
    try:
        yield
    finally:
        watcher.communicate(b"done\n")


@contextmanager
def redis() -> Iterator[str]:
    """The URL of a Redis that syncs each write before it answers."""
    server = redis_server.RedisServer()
    try:
        server.start()
        with _gone_with_me(*server.owns):
            yield server.url
    finally:
        server.remove()


@contextmanager
def postgres(**settings: str) -> Iterator[str]:
    """The URL of a PostgreSQL that syncs each commit before it answers."""
    server = postgres_server.PostgresServer(fsync="on", full_page_writes="on", autovacuum_naptime="5", **settings)
    try:
        server.start()
        with _gone_with_me(*server.owns):
            yield server.url
    finally:
        server.remove()


STORES: Stores = {
    "file": lambda: nullcontext("file:"),
    "redis": redis,
    "postgres": postgres,
}


def part(bench: Bench) -> Result:
    """The part of the benchmark."""
    nth, samples = (1000, 20) if bench.quick else (10_000, 100)
    return measure(bench, STORES, nth=nth, samples=samples)


def measure(bench: Bench, stores: Stores, *, nth: int, samples: int) -> Result:
    """Milliseconds of a session's first turn and of its nth, one client; turns a second, eight clients."""
    with ExitStack() as stack:
        servers = {}
        for name, start in stores.items():
            try:
                url = stack.enter_context(start())
            except NO_SERVER as reason:
                print(f"{LABELS[name]} is left out: {reason}")
                continue
            # Where the stores' own servers have their data, too: on one and the same file system.
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="bench-")))
            fill(folder, ((_late(endpoint, nth), turns(nth - 1)) for endpoint in ENDPOINTS), store=url)
            servers[name] = stack.enter_context(serving("recollect", folder, store=url))
        lengths = {endpoint: _lengths(bench, servers, endpoint, nth, samples) for endpoint in ENDPOINTS}
        _show(lengths)
        loads = [(endpoint, 8) for endpoint in ENDPOINTS]
        return {"lengths": lengths, "rates": throughput.compare(bench, servers, loads, bases=[BASE])}


def _late(endpoint: str, nth: int) -> str:
    """The session whose next turn is the nth."""
    return f"{endpoint}-{nth}"


def _lengths(bench: Bench, servers: dict[str, Server], endpoint: str, nth: int, samples: int) -> Result:
    """The stores in turn, turn after turn: what disturbs the machine disturbs all of them."""
    times: dict[tuple[str, int], list[float]] = {(name, place): [] for name in servers for place in (1, nth)}
    costs: dict[tuple[str, int], list[float]] = {key: [] for key in times}
    for number in range(samples + _WARM_UP):
        for name, place in times:
            session = _late(endpoint, nth) if place > 1 else f"new-{uuid4().hex}"
            before = servers[name].processor_s()
            outcome = bench.clients.do(servers[name], endpoint, turns=1, session=session)
            if number >= _WARM_UP:
                times[name, place].append(outcome.times[0])
                costs[name, place].append((servers[name].processor_s() - before) * 1000)
    return {
        name: {
            str(place): {
                "ms": median(times[name, place]),
                "processor_ms": median(costs[name, place]),
                "ms_ratio": median(times[name, place]) / median(times[BASE, place]),
            }
            for place in (1, nth)
        }
        for name in servers
    }


def _show(lengths: Result) -> None:
    rows = [
        [endpoint, nth, LABELS[name], f"{one['ms']:.2f}", f"{one['processor_ms']:.2f}", f"{one['ms_ratio']:.2f}"]
        for endpoint, stores in lengths.items()
        for name, nths in stores.items()
        for nth, one in nths.items()
    ]
    rows.sort(key=lambda row: (row[0], int(row[1])))
    table(["endpoint", "turn", "store", "ms", "processor ms", f"x {LABELS[BASE]}"], rows)

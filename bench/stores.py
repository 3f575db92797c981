"""What a turn costs on Redis and on PostgreSQL beside the file store, and what a second server brings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from statistics import median
from uuid import uuid4

from bench.parts import Bench, Result, table
from bench.prefill import fill, turns
from bench.processes import Server, serving
from tests import postgres_server, redis_server

ENDPOINTS = ("invoke", "stream")
_SHARE = 0.3
"""Of a core, for each server in `servers`: a machine of two cores runs the store and the clients besides."""

_STORES: dict[str, tuple[Callable[[], AbstractContextManager[str]], Callable[[str], str]]] = {
    "redis": (redis_server.any_server, redis_server.fresh_url),
    "postgres": (postgres_server.any_server, postgres_server.fresh_url),
}


def measure(bench: Bench) -> Result:
    """Milliseconds of a session's first turn and of its 10,000th, and turns a second of 8 clients, on each store."""
    nths = (1, 1000) if bench.quick else (1, 10_000)
    samples = 8 if bench.quick else 60
    result: Result = {}
    with ExitStack() as stack:
        servers = _servers(bench, stack, nths[1])
        for endpoint in ENDPOINTS:
            times: dict[tuple[int, str], list[float]] = {(nth, name): [] for nth in nths for name in servers}
            for number in range(samples + 5):
                for nth in nths:
                    for name, server in servers.items():
                        session = f"{endpoint}-{nth}" if nth > 1 else f"new-{uuid4().hex}"
                        outcome = bench.clients.do(server, endpoint, turns=1, session=session)
                        if number >= 5:
                            times[nth, name].append(outcome.times[0])
            rates: dict[str, list[float]] = {name: [] for name in servers}
            for _ in range(bench.rounds):
                for name, server in servers.items():
                    outcome = bench.clients.do(server, endpoint, clients=8, seconds=bench.seconds)
                    rates[name].append(outcome.turns / outcome.seconds)
            result[endpoint] = {
                name: {
                    "per_s": median(rates[name]),
                    **{
                        str(nth): {
                            "ms": median(times[nth, name]),
                            "ms_ratio": median(times[nth, name]) / median(times[nth, "file"]),
                        }
                        for nth in nths
                    },
                }
                for name in servers
            }
    _show(result, [str(nth) for nth in nths])
    return result


def _servers(bench: Bench, stack: ExitStack, nth: int) -> dict[str, Server]:
    """A server on each store that can be had here, each with a session of `nth - 1` turns for each endpoint."""
    urls = {"file": ""}
    for name, (store, fresh) in _STORES.items():
        try:
            urls[name] = fresh(stack.enter_context(store()))
        except (postgres_server.NoServer, redis_server.NoServer) as error:
            print(f"{name}: {error}")
    servers = {}
    for name, url in urls.items():
        folder = bench.place()
        fill(folder, ((f"{endpoint}-{nth}", turns(nth - 1)) for endpoint in ENDPOINTS), url)
        servers[name] = stack.enter_context(serving("recollect", folder, history_url=url))
    return servers


def _show(result: Result, nths: list[str]) -> None:
    rows = [
        [endpoint, name, f"{one['per_s']:.0f}", *(f"{one[nth][key]:.2f}" for nth in nths for key in ("ms", "ms_ratio"))]
        for endpoint, by_store in result.items()
        for name, one in by_store.items()
    ]
    heads = [f"{head} {nth}" for nth in nths for head in ("ms, turn", "x file, turn")]
    table(["endpoint", "store", "turns/s, 8 clients", *heads], rows)


def two_servers(bench: Bench) -> Result:
    """Turns a second of one server and of two on one Redis, each held to the same share of a core."""
    with ExitStack() as stack:
        try:
            url = redis_server.fresh_url(stack.enter_context(redis_server.any_server()))
            folder = bench.place()
            one, two = (stack.enter_context(serving("recollect", folder, history_url=url)) for _ in range(2))
            for server in (one, two):
                stack.enter_context(_held(server, _SHARE))
        except (redis_server.NoServer, OSError) as error:
            print(f"not measured: {error}")
            return {}
        rates: dict[int, list[float]] = {1: [], 2: []}
        for number in range(bench.rounds + 1):
            for count, more in ((1, []), (2, [two.port])):
                seconds = max(2.0, bench.seconds * 4)  # so that what a share left over from before counts for little
                outcome = bench.clients.do(one, "invoke", clients=16 * count, seconds=seconds, more_ports=more)
                if number:
                    rates[count].append(outcome.turns / outcome.seconds)
    ratio = median(both / alone for alone, both in zip(rates[1], rates[2], strict=True))
    table(
        [f"servers, {_SHARE:.0%} of a core each", "turns/s", "x one server"],
        [["one", f"{median(rates[1]):.0f}", ""], ["two", f"{median(rates[2]):.0f}", f"{ratio:.2f}"]],
    )
    return {"per_s": {str(count): median(rate) for count, rate in rates.items()}, "two": {"ratios": {"one": ratio}}}


@contextmanager
def _held(server: Server, share: float) -> Iterator[None]:
    """Holds the server's process to a share of a core, by a control group. Raises `OSError` where none may be made."""
    old, new = Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")
    period = 20_000
    group = (old if old.is_dir() else new) / f"recollect-bench-{server.child.pid}"
    group.mkdir()
    try:
        if old.is_dir():
            (group / "cpu.cfs_period_us").write_text(str(period))
            (group / "cpu.cfs_quota_us").write_text(str(int(period * share)))
        else:
            (group / "cpu.max").write_text(f"{int(period * share)} {period}")
        (group / "cgroup.procs").write_text(str(server.child.pid))
        yield
    finally:
        (group.parent / "cgroup.procs").write_text(str(server.child.pid))
        group.rmdir()

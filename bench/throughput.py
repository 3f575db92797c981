"""Turns per second and time to the first token, the subjects in turn, round after round."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from bench.parts import Bench, Result, table
from bench.processes import Server, openai_stub, serving
from bench.stats import percentile, spread
from bench.subjects import LABELS

BASES = ("langserve", "example")
"""What ratios are taken of."""


def in_process(bench: Bench) -> Result:
    """An instant model inside the process; `invoke` and `stream`; 1, 8 and 64 clients."""
    with bench.servers("recollect", "langserve", "example", "frame") as servers:
        crowds = (8,) if bench.quick else (1, 8, 64)
        return compare(bench, servers, [(endpoint, crowd) for endpoint in ("invoke", "stream") for crowd in crowds])


def debugging(bench: Bench) -> Result:
    """`stream_log` and `stream_events`: of an instant model, and of one behind OpenAI's protocol."""
    loads, subjects = [("stream_log", 8), ("stream_events", 8)], ("recollect", "langserve", "example")
    with bench.servers(*subjects) as servers:
        result = compare(bench, servers, loads)
    with openai_stub() as url, bench.servers(*subjects, model=url) as servers:
        print("A model behind OpenAI's protocol:")
        return {**result, "openai": compare(bench, servers, loads)}


def lag(bench: Bench) -> Result:
    """How late Recollect's event loop is while 64 clients make it write and sync."""
    result: Result = {}
    for subject in ("recollect", "langserve"):
        with serving(subject, bench.place(), python=bench.python(subject), lag=True) as server:
            bench.clients.do(server, "invoke", clients=64, seconds=bench.seconds)
            server.lags()
            bench.clients.do(server, "invoke", clients=64, seconds=bench.seconds * 3)
            lags = server.lags()
        result[subject] = {"p50_ms": percentile(lags, 0.5), "p99_ms": percentile(lags, 0.99), "max_ms": max(lags)}
    table(
        ["event loop lag, 64 clients, invoke", "p50 ms", "p99 ms", "max ms"],
        [[LABELS[name], *(f"{value:.1f}" for value in lags.values())] for name, lags in result.items()],
    )
    return result


def compare(
    bench: Bench,
    servers: dict[str, Server],
    loads: list[tuple[str, int]],
    *,
    bases: Sequence[str] = BASES,
    seconds: float | None = None,
    turns_per_session: int = 10,
) -> Result:
    """Loads all servers in turn, round after round, with each (endpoint, number of clients), so long each time."""
    seconds = seconds or bench.seconds
    result: Result = {}
    for endpoint, crowd in loads:
        asked = {
            name: server for name, server in servers.items() if name != "frame" or endpoint in ("invoke", "stream")
        }
        rates: dict[str, list[float]] = {name: [] for name in asked}
        firsts: dict[str, list[float]] = {name: [] for name in asked}
        costs: dict[str, list[float]] = {name: [] for name in asked}
        for number in range(bench.rounds + 1):
            for name, server in asked.items():
                before = server.processor_s()
                outcome = bench.clients.do(
                    server, endpoint, clients=crowd, seconds=seconds, turns_per_session=turns_per_session
                )
                if number:  # the first round warms up
                    rates[name].append(outcome.turns / outcome.seconds)
                    firsts[name].append(median(outcome.firsts or outcome.times))
                    costs[name].append((server.processor_s() - before) * 1000 / outcome.turns)
        result[f"{endpoint}-{crowd}"] = _summary(rates, firsts, costs, bases)
        _show(f"{endpoint}, {crowd} clients", result[f"{endpoint}-{crowd}"], bases)
    return result


def _summary(
    rates: dict[str, list[float]], firsts: dict[str, list[float]], costs: dict[str, list[float]], bases: Sequence[str]
) -> Result:
    """Ratios are medians of the rounds' own ratios: what disturbs the machine disturbs a round as a whole."""
    return {
        name: {
            "per_s": median(rates[name]),
            "spread": spread(rates[name]),
            "first_ms": median(firsts[name]),
            "processor_ms": median(costs[name]),
            "ratios": {
                base: median(own / other for own, other in zip(rates[name], rates[base], strict=True))
                for base in bases
                if base in rates
            },
        }
        for name in rates
    }


def _show(title: str, summary: Result, bases: Sequence[str]) -> None:
    heads = [title, "turns/s", "±", "first token ms", "processor ms", *(f"x {LABELS[base]}" for base in bases)]
    rows = []
    for name, one in summary.items():
        ratios = [f"{one['ratios'][base]:.2f}" if base in one["ratios"] else "" for base in bases]
        times = [f"{one['first_ms']:.1f}", f"{one['processor_ms']:.2f}"]
        rows.append([LABELS[name], f"{one['per_s']:.0f}", f"{one['spread']:.0%}", *times, *ratios])
    table(heads, rows)

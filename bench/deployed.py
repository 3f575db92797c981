"""What people deploy: a model that is a server of its own, and speaks OpenAI's protocol."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from statistics import median

from bench.parts import Bench, Result, table
from bench.prefill import fill, turns
from bench.processes import Server, model_server, openai_stub, serving, url_of
from bench.stats import percentile
from bench.subjects import LABELS
from bench.throughput import compare

LENGTHS = (0, 10, 40)
"""Messages of a history before the turn that is measured."""

_FIRST_MS, _TOKEN_S = 300, 0.02
_CROWD = 64


def measure(bench: Bench) -> Result:
    """Sessions of ten turns and of one; how much the length of the history matters; what is added to a wait."""
    loads = [("invoke", 8), ("stream", 8)]
    with openai_stub() as url:
        with bench.servers("recollect", "langserve", "example", model=url) as servers:
            print("Sessions of ten turns:")
            tens = compare(bench, servers, loads)
            print("First turns alone:")
            firsts = compare(bench, servers, loads, turns_per_session=1)
        lengths = _lengths(bench, url)
    return {"ten": tens, "first": firsts, "lengths": lengths, "latency": _latency(bench)}


def _lengths(bench: Bench, url: str) -> Result:
    """A turn after so many messages, beside one after none: processor time and time.

    Of sessions that are in use: each has had a turn, two messages more, when it is measured.
    """
    folder, per_round = bench.place(), 40
    sessions = {
        (endpoint, length): [f"{endpoint}-{length}-{place}" for place in range(per_round * (bench.rounds + 1))]
        for endpoint in ("invoke", "stream")
        for length in LENGTHS
    }
    for (_, length), names in sessions.items():
        if length:
            fill(folder, ((name, turns(length // 2)) for name in names))
    costs: dict[tuple[str, int], list[tuple[float, float]]] = {key: [] for key in sessions}
    with serving("recollect", folder, model=url) as server:
        for number in range(bench.rounds + 1):
            for (endpoint, length), names in sessions.items():
                mine = names[number * per_round :][:per_round]
                job = {"clients": 8, "turns": per_round // 8, "turns_per_session": 1, "sessions": mine}
                bench.clients.do(server, endpoint, **job)
                before = server.processor_s()
                outcome = bench.clients.do(server, endpoint, **job)
                spent = (server.processor_s() - before) * 1000 / outcome.turns
                if number:  # the first round warms up
                    costs[endpoint, length].append((spent, median(outcome.times)))
    result: Result = {}
    for (endpoint, length), seen in costs.items():
        ratios = [own / none for (own, _), (none, _) in zip(seen, costs[endpoint, 0], strict=True)]
        result.setdefault(endpoint, {})[str(length)] = {
            "processor_ms": median(spent for spent, _ in seen),
            "ms": median(time for _, time in seen),
            "processor_ms_ratio": median(ratios),
        }
    table(
        ["endpoint", "messages before", "processor ms", "ms", "x none, processor"],
        [
            [endpoint, length, f"{one['processor_ms']:.2f}", f"{one['ms']:.1f}", f"{one['processor_ms_ratio']:.2f}"]
            for endpoint, by_length in result.items()
            for length, one in by_length.items()
        ],
    )
    return result


@contextmanager
def waiting_model() -> Iterator[Server]:
    """A model that takes 300 ms, and then 20 ms a token."""
    with model_server(first_s=_FIRST_MS / 1000, token_s=_TOKEN_S) as model:
        yield model


def _latency(bench: Bench) -> Result:
    with waiting_model() as model, bench.servers("recollect", "langserve", model=url_of(model)) as servers:
        return latency(bench, model, servers)


def latency(bench: Bench, model: Server, servers: Mapping[str, Server], crowd: int = _CROWD) -> Result:
    """What is added to the model of `waiting_model`, by so many clients at once.

    And what the clients see that ask the model itself: its own share, and theirs, of the same processors.
    """
    result: Result = {}
    for name, server in {model.subject: model, **servers}.items():
        bench.clients.do(server, "stream", clients=8, turns=1)
        before = server.processor_s()
        outcome = bench.clients.do(server, "stream", clients=crowd, turns=bench.rounds, ramp_s=1.5)
        added = [first - _FIRST_MS for first in outcome.firsts]
        result[name] = {
            "added_p50_ms": percentile(added, 0.5),
            "added_p99_ms": percentile(added, 0.99),
            "processor_ms": (server.processor_s() - before) * 1000 / outcome.turns,
        }
    table(
        [f"{crowd} streams, first token after {_FIRST_MS} ms", "added p50 ms", "p99 ms", "processor ms a stream"],
        [[LABELS[name], *(f"{value:.1f}" for value in one.values())] for name, one in result.items()],
    )
    return result

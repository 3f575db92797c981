"""What a second server adds: two on one Redis beside one, each held to the same share of a core.

A whole core each would leave none to Redis and the clients, on a small machine, and measure that.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

from bench import throughput
from bench.parts import Bench, Result
from bench.processes import serving
from bench.shares import NoShares, share
from bench.stores import NO_SERVER, redis

CORES = 0.25
CLIENTS = 16
"""So many that neither server is ever out of work while the other one's clients wait."""


def measure(bench: Bench) -> Result:
    """Turns a second. A session's turns go to either server, whichever has fewer under way."""
    with ExitStack() as stack:
        try:
            url = stack.enter_context(redis())
            shares = [stack.enter_context(share(CORES)) for _ in range(2)]
        except (*NO_SERVER, NoShares) as reason:
            print(f"Left out: {reason}")
            return {}
        folder = bench.place()  # of both: a key of either is one of the other
        first, second = [stack.enter_context(serving("recollect", folder, store=url)) for _ in shares]
        for held, server in zip(shares, (first, second), strict=True):
            # It starts and gets warm with all of a core: with its share, both would take long.
            bench.clients.do(server, "stream", clients=CLIENTS, turns=10)
            held.hold(server.child.pid)
        together = {"one": first, "two": replace(first, also=(second,))}
        loads = [("invoke", CLIENTS), ("stream", CLIENTS)]
        return throughput.compare(bench, together, loads, bases=["one"], seconds=bench.seconds * 5)

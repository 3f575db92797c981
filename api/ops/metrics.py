"""What is counted and measured, for Prometheus. Every name begins with `recollect_`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess

from api.ops.reasons import reason_of
from turns.observer import WatchedTurn

_SECONDS: Final = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_STORE_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 30)
_LAG_PERIOD_S: Final = 0.5


class Metrics:
    """The metrics of one server process; `shared`: what is told is that of all the worker processes together."""

    def __init__(self, *, shared: bool = False) -> None:
        self._shared, self._registry = shared, CollectorRegistry()
        self._children: dict[tuple[Any, tuple[Any, ...]], Any] = {}
        to = self._registry
        self.turns = Counter("recollect_turns", "Turns that ended.", ["chain", "outcome"], registry=to)
        self.turn_errors = Counter(
            "recollect_turn_errors", "Turns without a whole reply.", ["chain", "reason"], registry=to
        )
        self.turn_seconds = self._histogram(
            "recollect_turn_seconds", "From the request to the end of the turn.", "chain"
        )
        self.first_token_seconds = self._histogram(
            "recollect_first_token_seconds", "From a turn's begin to its first words.", "chain"
        )
        self.tokens = Counter("recollect_tokens", "As the model counts them.", ["chain", "kind"], registry=to)
        self.running = self._gauge("recollect_turns_running", "Turns that own their session.")
        self.waiting = self._gauge("recollect_turns_waiting", "Turns that wait for those before them.")
        self.requests = Counter(
            "recollect_http_requests", "Requests answered.", ["method", "route", "status"], registry=to
        )
        self.request_seconds = self._histogram(
            "recollect_http_request_seconds", "From request to end of body.", "route"
        )
        self.connections = self._gauge("recollect_http_requests_open", "Requests that are being answered.")
        self.connected = self._gauge("recollect_connections", "Connections of clients, idle ones too.")
        self.door_refusals = Counter(
            "recollect_door_refusals", "Connections and requests refused unread.", ["status"], registry=to
        )
        self.store_seconds = self._histogram(
            "recollect_store_seconds", "Calls of the store; `begin` waits in line.", "operation", buckets=_STORE_SECONDS
        )
        self.store_errors = Counter("recollect_store_errors", "Calls that failed.", ["operation", "error"], registry=to)
        self.loop_lag = self._histogram(
            "recollect_loop_lag_seconds", "How late the event loop is.", buckets=_STORE_SECONDS
        )
        self.sign_ins = Counter("recollect_sign_ins", "Browsers that signed in.", ["by"], registry=to)
        self.refusals = Counter("recollect_refusals", "Requests and sign-ins turned away.", ["reason"], registry=to)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, multiprocess_mode="livesum", registry=self._registry)

    def _histogram(self, name: str, text: str, *labels: str, buckets: Sequence[float] = _SECONDS) -> Histogram:
        return Histogram(name, text, labels, buckets=buckets, registry=self._registry)

    def of(self, metric: Any, *labels: Any) -> Any:
        """A metric's child of these labels. It is kept: to look one up takes as long as to count."""
        found = self._children.get((metric, labels))
        if found is None:
            found = self._children[metric, labels] = metric.labels(*labels)
        return found

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Counts a request."""
        self.of(self.requests, method, route, status).inc()
        self.of(self.request_seconds, route).observe(seconds)

    def stored(self, operation: str, seconds: float) -> None:
        """Counts a call of the store."""
        self.of(self.store_seconds, operation).observe(seconds)

    def counted(self, what: str, how: str) -> None:
        """Counts a `sign_in` or a `refusal`: what `Auth` tells."""
        (self.sign_ins if what == "sign_in" else self.refusals).labels(how).inc()

    def at_the_door(self, what: str, value: int) -> None:
        """Counts `connections`, so many more or fewer, or a `refusal` with that status: what the door tells."""
        if what == "connections":
            self.connected.inc(value)
        else:
            self.of(self.door_refusals, value).inc()

    def exposition(self) -> bytes:
        """All of it, in Prometheus' text format."""
        if not self._shared:
            return generate_latest(self._registry)
        together = CollectorRegistry()
        multiprocess.MultiProcessCollector(together)  # type: ignore[no-untyped-call]  # prometheus-client has few types there
        return generate_latest(together)

    @asynccontextmanager
    async def watching_the_loop(self) -> AsyncIterator[None]:
        """Measures, until the end of the block, how late the event loop is."""
        watch = asyncio.create_task(self._watch_loop(), name="recollect-loop-lag")
        try:
            yield
        finally:
            watch.cancel()

    async def _watch_loop(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _LAG_PERIOD_S
            await asyncio.sleep(_LAG_PERIOD_S)
            self.loop_lag.observe(max(0.0, loop.time() - due))


def bury(folder: str, pid: int) -> None:
    """Takes the gauges of a worker process that died out of what is told."""
    multiprocess.mark_process_dead(pid, path=folder)  # type: ignore[no-untyped-call]


class TurnMetrics:
    """Counts turns: a `TurnObserver`."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def asked(self, turn: WatchedTurn) -> None:
        self._metrics.waiting.inc()

    def began(self, turn: WatchedTurn) -> None:
        self._metrics.waiting.dec()
        self._metrics.running.inc()

    def spoke(self, turn: WatchedTurn) -> None:
        if turn.outcome != "replayed" and turn.began_at is not None and turn.spoke_at is not None:
            self._metrics.of(self._metrics.first_token_seconds, turn.chain).observe(turn.spoke_at - turn.began_at)

    def ended(self, turn: WatchedTurn) -> None:
        (self._metrics.waiting if turn.began_at is None else self._metrics.running).dec()
        self._metrics.of(self._metrics.turns, turn.chain, turn.outcome).inc()
        if turn.error is not None:
            self._metrics.of(self._metrics.turn_errors, turn.chain, reason_of(turn.error)).inc()
        if turn.ended_at is not None and turn.outcome not in ("refused", "replayed"):
            self._metrics.of(self._metrics.turn_seconds, turn.chain).observe(turn.ended_at - turn.asked_at)
        usage = turn.usage
        if usage is not None:
            self._metrics.of(self._metrics.tokens, turn.chain, "input").inc(usage["input_tokens"])
            self._metrics.of(self._metrics.tokens, turn.chain, "output").inc(usage["output_tokens"])

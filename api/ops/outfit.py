"""What stands around the app: who asks is found out, each request is logged and counted, and origins are held apart."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from fastapi import APIRouter, FastAPI, Response
from fastapi.telemetry import TelemetryConfig
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.middleware.cors import CORSMiddleware
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from api.ops import docs
from api.ops.health import health_router
from api.ops.logs import Names
from api.ops.metrics import Metrics, TurnMetrics
from api.ops.openapi import tell_the_truth
from api.ops.prefix import Prefix
from api.ops.requests import RequestLog
from api.ops.turn_log import TurnLog
from api.ops.watchdog import Watchdog
from auth.audit import Audit
from histories.base import HistoryStore
from turns.observer import TurnObserver

if TYPE_CHECKING:  # it is imported by who is asked for traces: a start without them has no time for it
    from api.ops.traces import Tracing

log = logging.getLogger("recollect.traces")

OFF: Final[TelemetryConfig] = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}
"""What FastAPI is told where nobody asks for traces."""

_ASKED = ["Authorization", "Content-Type", "If-Match", "If-None-Match", "Last-Event-ID", "Prefer", "X-Request-ID"]
_TOLD = ["Content-Disposition", "ETag", "Location", "Retry-After", "X-Request-ID"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outfit:
    """How one server is seen from outside, and what is seen of it."""

    traces: Tracing | None = None
    metrics: Metrics
    names: Names
    model: str | None = None
    log_content: bool = False
    root_path: str = ""
    trusted_proxies: list[str] = field(default_factory=list)
    cors_origins: list[str] = field(default_factory=list)

    def observers(self) -> list[TurnObserver]:
        """Who is told of turns."""
        watching: list[TurnObserver] = [TurnLog(self.names, model=self.model, content=self.log_content)]
        watching.append(TurnMetrics(self.metrics))
        return watching if self.traces is None else [self.traces.of_turns(), *watching]

    def telemetry(self) -> TelemetryConfig:
        """What FastAPI is to trace."""
        return OFF if self.traces is None else self.traces.of_requests()

    def on_models(self, base_url: str) -> dict[str, Any]:
        """Who is told of the calls of the model at that address: the arguments `handlers` and `hooks`."""
        if self.traces is None:
            return {}
        spans = self.traces.of_models(base_url)
        return {"handlers": [spans], "hooks": [spans.on_request]}

    async def close(self) -> None:
        """Sends what was seen, and is not sent yet."""
        if self.traces is not None:
            await self.traces.close()

    def put_on(self, app: FastAPI, audit: Audit, chains: Sequence[tuple[str, bool]]) -> None:
        """Adds the outermost middleware, and what there is to say of chains of these names, with a memory or not."""
        tell_the_truth(app, chains)
        # The last one added is the first one met.
        if self.cors_origins:
            # Before the sign-in: a browser's question whether it may ask holds no credential. Cookies stay at home.
            app.add_middleware(
                CORSMiddleware,
                allow_origins=self.cors_origins,
                allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
                allow_headers=_ASKED,
                expose_headers=_TOLD,
            )
        if self.root_path:
            app.add_middleware(Prefix, root_path=self.root_path)
        app.add_middleware(RequestLog, metrics=self.metrics, names=self.names, audit=audit)
        if self.trusted_proxies:
            trusted = "*" if "*" in self.trusted_proxies else self.trusted_proxies
            app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=trusted)


def tracing(endpoint: str | None, names: Names, model: str | None, version: str) -> Tracing | None:
    """Traces for the collector at that address; none without one, or without the extra that they take."""
    if endpoint is None:
        return None
    from api.ops.traces import Tracing

    try:
        return Tracing(endpoint, names, model=model, version=version)
    except ImportError as error:
        log.error("there are no traces: they need the extra `otel` (docs/operate.md): %s", error)
        return None


def routers(metrics: Metrics, store: HistoryStore, watchdog: Watchdog) -> list[APIRouter]:
    """What an operator and their programs ask."""
    return [health_router(store, watchdog), _metrics_router(metrics), docs.router()]


def _metrics_router(metrics: Metrics) -> APIRouter:
    """`/metrics`: the gate lets in who has a key of the scope `metrics`, and nobody else."""
    routes = APIRouter(tags=["ops"])

    @routes.get("/metrics", summary="What Prometheus scrapes", response_class=Response)
    def tell() -> Response:
        return Response(metrics.exposition(), media_type=CONTENT_TYPE_LATEST)

    return routes

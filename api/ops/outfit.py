"""What stands around the app: who asks is found out, each request is logged and counted, and origins are held apart."""

from __future__ import annotations

from dataclasses import dataclass, field

from fastapi import APIRouter, FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.middleware.cors import CORSMiddleware
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from api.ops.logs import Names
from api.ops.metrics import Metrics, TurnMetrics
from api.ops.prefix import Prefix
from api.ops.requests import RequestLog
from api.ops.turn_log import TurnLog
from auth.audit import Audit
from turns.observer import TurnObserver

_ASKED = ["Authorization", "Content-Type", "If-Match", "If-None-Match", "Last-Event-ID", "Prefer", "X-Request-ID"]
_TOLD = ["Content-Disposition", "ETag", "Location", "Retry-After", "X-Request-ID"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outfit:
    """How one server is seen from outside, and what is seen of it."""

    metrics: Metrics
    names: Names
    model: str | None = None
    log_content: bool = False
    root_path: str = ""
    trusted_proxies: list[str] = field(default_factory=list)
    cors_origins: list[str] = field(default_factory=list)

    def observers(self) -> list[TurnObserver]:
        """Who is told of turns."""
        return [TurnLog(self.names, model=self.model, content=self.log_content), TurnMetrics(self.metrics)]

    def put_on(self, app: FastAPI, audit: Audit) -> None:
        """Adds the outermost middleware. The last one added is the first one met."""
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


def metrics_router(metrics: Metrics) -> APIRouter:
    """`/metrics`: the gate lets in who has a key of the scope `metrics`, and nobody else."""
    routes = APIRouter(tags=["ops"])

    @routes.get("/metrics", summary="What Prometheus scrapes", response_class=Response)
    def tell() -> Response:
        return Response(metrics.exposition(), media_type=CONTENT_TYPE_LATEST)

    return routes

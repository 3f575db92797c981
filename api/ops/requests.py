"""The outermost middleware: each request has an id, a line in the log, and its place in the metrics.

It also answers HEAD wherever GET is, and sets the headers that every response has.
"""

from __future__ import annotations

import logging
import re
import time
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.ops.headers import add_headers
from api.ops.logs import Names, event, request_id
from api.ops.metrics import Metrics
from auth.audit import Audit
from auth.cookies import route_path
from histories.base import new_name

log = logging.getLogger("recollect.requests")

_ID: Final = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Others are counted as one: a client must not be able to make metrics without end."""
AUDITED: Final = {
    ("DELETE", "/sessions"): "sessions.delete_all",
    ("DELETE", "/sessions/{session_id}"): "session.delete",
    ("GET", "/sessions/{session_id}/export"): "session.export",
    ("POST", "/sessions/import"): "session.import",
}
"""Requests that the audit log has, whatever came of them."""


class RequestLog:
    """The middleware."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, names: Names, audit: Audit) -> None:
        self._app, self._metrics, self._names, self._audit = app, metrics, names, audit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, send)
        if exchange.is_head:
            scope = {**scope, "method": "GET"}  # the server below goes on knowing that no body is wanted
        token = request_id.set(exchange.id)
        self._metrics.connections.inc()
        try:
            await self._app(scope, receive, exchange.send)
        finally:
            self._metrics.connections.dec()
            self._over(exchange, scope)
            request_id.reset(token)

    def _over(self, exchange: _Exchange, scope: Scope) -> None:
        seconds, user = time.perf_counter() - exchange.started, scope.get("state", {}).get("user_id")
        route, method = _route_of(scope), exchange.method if exchange.method in _METHODS else "other"
        self._metrics.answered(method, route, exchange.status, seconds)
        event(
            log,
            logging.ERROR if exchange.status >= 500 and exchange.status not in (502, 503) else logging.INFO,
            "request",
            method=method,
            route=route,
            status=exchange.status,
            duration_ms=round(seconds * 1000, 1),
            user=self._names(user),
            client=(scope.get("client") or ("",))[0] or None,
        )
        act = AUDITED.get((method, route))
        if act is not None and user is not None:
            session = self._names(scope.get("path_params", {}).get("session_id"))
            what = {} if session is None else {"session": session}
            self._audit.note(act, who=user, source=source_of(scope), ok=exchange.status < 400, **what)


def source_of(scope: Scope) -> str:
    """Where a request came from, for the audit log."""
    return (scope.get("client") or ("",))[0] or "unknown"


class _Exchange:
    """One request and its response."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.started, self.status = time.perf_counter(), 500
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        self.id = given.decode("ascii") if _ID.fullmatch(given) else new_name()
        self.method: str = scope["method"]
        self._scope, self._send = scope, send
        self.is_head = self.method == "HEAD"

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message = {**message, "headers": list(message.get("headers", ()))}
            message["headers"].append((b"x-request-id", self.id.encode("ascii")))
            add_headers(message, self._scope)
        elif self.is_head:
            if message.get("more_body", False):
                return
            message = {**message, "body": b""}
        await self._send(message)


def _route_of(scope: Scope) -> str:
    """The route's path with its parameters unfilled: neither ids nor guesses become a label."""
    path = getattr(scope.get("route"), "path_format", None) or getattr(scope.get("route"), "path", None)
    if path is None and "endpoint" in scope:  # a plain route of Starlette's
        names = {str(value): f"{{{name}}}" for name, value in scope.get("path_params", {}).items()}
        path = "/".join(names.get(part, part) for part in route_path(scope).split("/"))
    return path or "-"

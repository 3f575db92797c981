"""Who is calling: a credential becomes a `user_id`, or the request is refused before anything else is looked at.

`AuthMiddleware` is the gate before every route. `current_user` is what a route depends on to get the user id; it also
tells OpenAPI which credentials there are. What a refusal looks like is in `auth.refusals`, and the routes by which
browsers sign in and out are in `auth.login`.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated

from fastapi import HTTPException, Request, Security
from fastapi.security import APIKeyCookie, HTTPBearer
from starlette.types import ASGIApp, Receive, Scope, Send

from auth.cookies import COOKIE, route_path
from auth.credentials import Auth, Caller
from auth.refusals import INVALID, NOBODY, Refusal, refused
from auth.users import is_user_id

__all__ = ["PUBLIC_PATHS", "Auth", "AuthMiddleware", "current_user"]

PUBLIC_PATHS = frozenset({"/healthz", "/login", "/login.css", "/logout"})
METRICS_PATH = "/metrics"
_FOR_ALL = frozenset({"/readyz", "/me"})
_READS = frozenset({"GET", "HEAD"})

_bearer = HTTPBearer(auto_error=False, scheme_name="bearer", bearerFormat="API key or JWT")
_cookie = APIKeyCookie(name=COOKIE, auto_error=False, scheme_name="cookie", description="Set by /login.")


async def current_user(
    request: Request,
    _by_header: Annotated[object, Security(_bearer)] = None,
    _by_cookie: Annotated[object, Security(_cookie)] = None,
) -> str:
    """The dependency of every route: the user id that the gate found. 401 if there is none: never open by mistake."""
    user = getattr(request.state, "user_id", None)
    if not is_user_id(user):
        refusal = Refusal(401, NOBODY)
        raise HTTPException(refusal.status, refusal.detail, headers=refusal.headers)
    return user


class AuthMiddleware:
    """The gate: only exact `public` paths pass without a credential. It sets `request.state.user_id` for the rest.

    It reads no body, so it must come before whatever does. WebSockets are refused: nothing here speaks them.
    """

    def __init__(self, app: ASGIApp, auth: Auth, public: Collection[str] = PUBLIC_PATHS) -> None:
        self.app, self.auth, self.public = app, auth, frozenset(public)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or (scope["type"] == "http" and route_path(scope) in self.public):
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        request = Request(scope)
        try:
            caller = await self.auth.caller_of(request)
            _check_scope(caller, scope["method"], route_path(scope))
        except Refusal as refusal:
            self._tell(request, refusal)
            refusal = await self.auth.wrong(request, refusal)
            await refused(request, refusal)(scope, receive, send)
            return
        scope["state"] = {**scope.get("state", {}), "user_id": caller.user}
        await self.app(scope, receive, send)

    def _tell(self, request: Request, refusal: Refusal) -> None:
        reason = refusal.reason
        self.auth.counted("refusal", reason)
        if refusal.detail == INVALID or refusal.status == 403:
            source = request.client.host if request.client is not None else "unknown"
            self.auth.audit.refused(who=None, source=source, why=reason)


def _check_scope(caller: Caller, method: str, path: str) -> None:
    """Raises Refusal (403) for what the caller's key was not made for."""
    if path == METRICS_PATH:
        allowed = "metrics" in caller.scopes
    elif "chat" in caller.scopes or path in _FOR_ALL:
        allowed = True
    else:
        allowed = "read" in caller.scopes and method in _READS
    if not allowed:
        raise Refusal(403, f"This credential is not for that: its scope is {', '.join(caller.scopes)}.")

"""A server that is found under a prefix, such as `/ai`, behind a proxy."""

from __future__ import annotations

from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send


class Prefix:
    """Puts the prefix on a request's path, whether or not the proxy took it off, as ASGI wants it."""

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self._app, self._root = app, root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["root_path"], path = self._root, scope["path"]
            if path == self._root:
                await RedirectResponse(f"{self._root}/", 308)(scope, receive, send)
                return
            if not path.startswith(f"{self._root}/"):
                scope["path"] = self._root + path
                scope["raw_path"] = self._root.encode("ascii") + scope.get("raw_path", path.encode())
        await self._app(scope, receive, send)

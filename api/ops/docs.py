"""`/docs`, `/redoc` and `/openapi.json`: Swagger UI and Redoc, with every file from this server, and what they show.

The files come with the wheel `fastapi-offline`, whose own code is not run: its pages hold scripts, and ours hold none.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Final

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request, Response

from api.slow_lane import SlowLane
from auth.cookies import root_path
from auth.middleware import current_user

DOCS_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; worker-src blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Both make styles as they run; Redoc searches in a worker."""

_ELSEWHERE = b"https://cdn.redoc.ly/redoc/logo-mini.svg"
_SCRIPT, _STYLE = "text/javascript; charset=utf-8", "text/css; charset=utf-8"
_START_SWAGGER = b"""const at = new URL("../openapi.json", document.currentScript.src).href;
SwaggerUIBundle({ url: at, dom_id: "#ui", deepLinking: true, presets: [SwaggerUIBundle.presets.apis] });
"""
_START_REDOC = b"""const at = new URL("../openapi.json", document.currentScript.src).href;
Redoc.init(at, { nativeScrollbars: true }, document.getElementById("ui"));
"""
_STARTS: Final = {"swagger-start.js": _START_SWAGGER, "redoc-start.js": _START_REDOC}
_ASSETS: Final = frozenset({*_STARTS, "swagger-ui-bundle.js", "swagger-ui.css", "redoc.standalone.js"})
_PAGE = """<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <title>{title}</title>
    <link rel="icon" href="data:,">
    {style}
  </head>
  <body>
    <div id="ui"></div>
    <script src="{root}/docs/{program}"></script>
    <script src="{root}/docs/{start}"></script>
  </body>
</html>
"""


def router() -> APIRouter:
    """The two pages, the files that they need, and the document, behind the sign-in."""
    routes = APIRouter(dependencies=[Depends(current_user)], include_in_schema=False)
    document = _Document()
    routes.add_api_route("/openapi.json", document.get, methods=["GET"])

    @routes.get("/docs")
    async def swagger(request: Request) -> Response:
        root = root_path(request.scope)
        style = f'<link rel="stylesheet" href="{root}/docs/swagger-ui.css">'
        return _page("Recollect: the API", style, root, "swagger-ui-bundle.js", "swagger-start.js")

    @routes.get("/redoc")
    async def redoc(request: Request) -> Response:
        return _page("Recollect: the API", "", root_path(request.scope), "redoc.standalone.js", "redoc-start.js")

    @routes.get("/docs/{name}")
    async def asset(request: Request, name: str) -> Response:
        if name not in _ASSETS:
            raise HTTPException(404, "There is no such file.")
        content, media_type, tag = _asset(name)
        headers = {"ETag": tag, "Cache-Control": "no-cache"}
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=media_type, headers=headers)

    return routes


class _Document:
    """What OpenAPI says of the server. To make it takes a third of a second: once, and beside the event loop."""

    def __init__(self) -> None:
        self._lane = SlowLane("OpenAPI documents")
        self._text: bytes | None = None

    async def get(self, request: Request, user: Annotated[str, Depends(current_user)]) -> Response:
        text = self._text or await self._lane.do(user, lambda: self._made(request.app, root_path(request.scope)))
        return Response(text, media_type="application/json")

    def _made(self, app: FastAPI, root: str) -> bytes:
        if self._text is None:  # nobody has made it while this one was waiting
            servers = {"servers": [{"url": root}]} if root else {}
            whole = {**app.openapi(), **servers}
            self._text = json.dumps(whole, ensure_ascii=False, separators=(",", ":")).encode()
        return self._text


def _page(title: str, style: str, root: str, program: str, start: str) -> Response:
    page = _PAGE.format(title=title, style=style, root=root, program=program, start=start)
    return Response(page, media_type="text/html; charset=utf-8", headers={"Content-Security-Policy": DOCS_POLICY})


@cache
def _asset(name: str) -> tuple[bytes, str, str]:
    """Content, type and tag of one of `_ASSETS`. Read when somebody asks for it: together they are 3 MB."""
    content = _STARTS.get(name) or (_folder() / name).read_bytes()
    # Redoc shows its maker's mark, from its maker's server: no page of ours asks another one for anything.
    content = content.replace(_ELSEWHERE, b"data:,")
    return content, _type_of(name), f'"{_digest(content)}"'


def _folder() -> Path:
    """Where the wheel has its files, which is not imported: its code needs more of FastAPI than this server does."""
    spec = find_spec("fastapi_offline")
    assert spec is not None  # noqa: S101 - it is locked, as all that is imported
    assert spec.origin is not None  # noqa: S101 - the same
    return Path(spec.origin).parent / "static"


def _type_of(name: str) -> str:
    return _STYLE if name.endswith(".css") else _SCRIPT


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]

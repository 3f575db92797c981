"""A session for each browser that opens a playground."""

from __future__ import annotations

import json
from secrets import token_hex
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, Request
from fastapi.responses import RedirectResponse, Response
from langserve.lzstring import LZString

from auth.middleware import current_user
from histories.base import InvalidId, check_id

COOKIE = "recollect_playground"
MAX_CONFIG_HASH = 4096
"""Characters. They are unpacked, to the square of their number at worst: so much gives 2 MB."""

_COOKIE_LIFE_S = 365 * 24 * 3600


def playground_url(chain: str, session_id: str) -> str:
    """The path of a chain's playground in a session. The hash is LangServe's: LZ-compressed JSON of a config."""
    config = json.dumps({"configurable": {"session_id": session_id}}, separators=(",", ":"))
    config_hash = LZString.compressToEncodedURIComponent(config)  # type: ignore[no-untyped-call]  # LangServe's own
    return f"/{chain}/c/{config_hash}/playground/"


def session_of_playground(request: Request) -> str | None:
    """The session in the address of the playground that sent this request: the chat playground itself sends none."""
    return session_in(urlsplit(request.headers.get("referer", "")).path)


def session_in(path: str) -> str | None:
    """The session in the path of a playground; None if it is no such path, or has no session in it."""
    *_, c, packed, page = ("", "", *path.rstrip("/").split("/"))
    if (c, page) != ("c", "playground") or len(packed) > MAX_CONFIG_HASH:
        return None
    try:
        config = json.loads(LZString.decompressFromEncodedURIComponent(packed))  # type: ignore[no-untyped-call]
        session_id = config["configurable"]["session_id"]
    except Exception:  # noqa: BLE001 - it may be anything
        return None
    return session_id if isinstance(session_id, str) else None


def router(chains: list[str]) -> APIRouter:
    """The entrances of the playgrounds, which lead to the browser's own session there.

    It is kept in a cookie, which names a session and opens nothing: a browser goes on where it was. `?new` starts
    another session, `?session_id=…` goes on with any one of the caller's.
    """
    routes = APIRouter(dependencies=[Depends(current_user)], include_in_schema=False)

    def entrance(chain: str) -> None:
        @routes.get(f"/{chain}/playground/")
        @routes.get(f"/{chain}/playground")
        async def open_playground(request: Request, session_id: str | None = None) -> Response:
            chosen = session_id
            if chosen is None and "new" not in request.query_params:
                chosen = _known(request.cookies.get(COOKIE))
            chosen = check_id(chosen or f"playground-{token_hex(4)}")
            root = request.scope.get("root_path", "").rstrip("/")
            response = RedirectResponse(root + playground_url(chain, chosen), 303, {"Cache-Control": "no-store"})
            if session_id is None:
                secure = request.url.scheme == "https"
                path = f"{request.scope.get('root_path', '')}/"
                response.set_cookie(
                    COOKIE, chosen, _COOKIE_LIFE_S, path=path, httponly=True, samesite="lax", secure=secure
                )
            return response

    for chain in chains:
        entrance(chain)
    return routes


def _known(session_id: str | None) -> str | None:
    try:
        return check_id(session_id) if session_id is not None and session_id.isascii() else None
    except InvalidId:
        return None

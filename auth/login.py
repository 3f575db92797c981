"""The routes by which a browser signs in, by a one-time link or an API key, and out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any
from urllib.parse import parse_qs

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import RedirectResponse, Response
from pydantic import BaseModel

from auth.middleware import COOKIE, COOKIE_LIFE_S, Auth, current_user
from auth.refusals import STYLE, Refusal, refuse_foreign, refused, sign_in_page

_FORM_BYTES = 8192
_SPENT = (
    "This link was used already, or is older than ten minutes. Ask for a new one; while the server has no keys but "
    "its first, a restart prints one, too."
)
_WRONG = "That is not one of this server's API keys, or no longer."


class Me(BaseModel):
    """Who is calling, and what is left of each limit that the operator has set."""

    user_id: str
    limits: list[dict[str, str | int]] | None = None


async def _no_limits(user_id: str) -> None:
    return


def router(auth: Auth, left: Callable[[str], Awaitable[Any]] = _no_limits) -> APIRouter:
    """`/login`, `/login.css`, `/logout` and `/me`. All but the last are public: see `auth.PUBLIC_PATHS`."""
    login, routes = _Login(auth), APIRouter()
    routes.get("/login", include_in_schema=False)(login.follow_link)
    routes.post("/login", include_in_schema=False)(login.show_key)
    routes.post("/logout", include_in_schema=False)(sign_out)
    routes.get("/login.css", include_in_schema=False)(style)

    async def me(user_id: Annotated[str, Depends(current_user)]) -> Me:
        return Me(user_id=user_id, limits=await left(user_id))

    routes.get("/me", tags=["sign-in"], summary="Who am I?", response_model_exclude_none=True)(me)
    return routes


class _Login:
    def __init__(self, auth: Auth) -> None:
        self._auth = auth

    async def follow_link(
        self, request: Request, token: str | None = None, to: Annotated[str, Query(alias="next")] = "/"
    ) -> Response:
        if token is None:
            return sign_in_page(next_path=safe_next(to))
        if "prefetch" in request.headers.get("sec-purpose", ""):  # a browser's guess must not use the link up
            return Response(status_code=503, headers={"Cache-Control": "no-store"})
        try:
            return _signed_in(request, self._auth.cookie_for_link(token), to)
        except Refusal as refusal:
            return _not_signed_in(request, await self._auth.wrong(request, refusal), _SPENT, to)

    async def show_key(self, request: Request) -> Response:
        to = "/"
        try:
            refuse_foreign(request.headers)
            form = await _form(request)
            to = form.get("next", to)
            return _signed_in(request, self._auth.cookie_for_key(form.get("key", "").strip()), to)
        except Refusal as refusal:
            return _not_signed_in(request, await self._auth.wrong(request, refusal), _WRONG, to)


async def sign_out(request: Request) -> Response:
    try:
        refuse_foreign(request.headers)
    except Refusal as refusal:
        return refused(request, refusal)
    response = RedirectResponse("/login", 303, {"Cache-Control": "no-store"})
    response.delete_cookie(COOKIE)
    return response


async def style() -> Response:
    return Response(STYLE, media_type="text/css", headers={"Cache-Control": "max-age=3600"})


def safe_next(path: str) -> str:
    """A path of this server, whatever was asked for: `/` for anything that a browser could take for another site."""
    if not path.startswith("/") or path.startswith("//") or "\\" in path or not path.isprintable():
        return "/"
    return path


def _signed_in(request: Request, cookie: str, to: str) -> Response:
    headers = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
    response = RedirectResponse(safe_next(to), 303, headers)
    # Lax, so that who follows a link to this server is still signed in; changes are guarded by `refuse_foreign`.
    response.set_cookie(
        COOKIE, cookie, COOKIE_LIFE_S, secure=request.url.scheme == "https", httponly=True, samesite="lax"
    )
    return response


def _not_signed_in(request: Request, refusal: Refusal, message: str, to: str) -> Response:
    if refusal.status == 401:
        return sign_in_page(refusal, message=message, next_path=safe_next(to))
    return refused(request, refusal)


async def _form(request: Request) -> dict[str, str]:
    """The first value of each field of an urlencoded form. Raises Refusal (413) for what can't be the sign-in form."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > _FORM_BYTES:
            raise Refusal(413, "A sign-in form is smaller than this.")
    try:
        fields = parse_qs(body.decode(errors="replace"), max_num_fields=10)
    except ValueError:
        raise Refusal(422, "This is not a sign-in form: send `key=…`.") from None
    return {name: values[0] for name, values in fields.items()}

"""The routes by which a browser signs in, by a one-time link or an API key, and out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any
from urllib.parse import parse_qs

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import RedirectResponse, Response
from pydantic import BaseModel

from auth.cookies import delete_cookie, root_path, set_cookie
from auth.credentials import COOKIE_LIFE_S, Auth
from auth.middleware import current_user
from auth.refusals import STYLE, Refusal, link_page, refuse_foreign, refused, sign_in_page

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
    routes.get("/login", include_in_schema=False)(login.show_form)
    routes.post("/login", include_in_schema=False)(login.sign_in)
    routes.post("/logout", include_in_schema=False)(login.sign_out)
    routes.get("/login.css", include_in_schema=False)(style)

    async def me(user_id: Annotated[str, Depends(current_user)]) -> Me:
        return Me(user_id=user_id, limits=await left(user_id))

    routes.get("/me", tags=["sign-in"], summary="Who am I?", response_model_exclude_none=True)(me)
    return routes


class _Login:
    def __init__(self, auth: Auth) -> None:
        self._auth = auth

    async def show_form(
        self, request: Request, token: str | None = None, to: Annotated[str, Query(alias="next")] = ""
    ) -> Response:
        """The form, or the button of a one-time link. To look at it uses nothing up: chat programs fetch links, too."""
        to = safe_next(to, root_path(request.scope))
        if token is None:
            return sign_in_page(request, next_path=to)
        try:
            return link_page(request, self._auth.link_of(token).user, token, to)
        except Refusal as refusal:
            return _not_signed_in(request, await self._auth.wrong(request, refusal), _SPENT, to)

    async def sign_in(self, request: Request) -> Response:
        to, by = safe_next("", root_path(request.scope)), "key"
        try:
            refuse_foreign(request.headers)
            form = await _form(request)
            to = safe_next(form.get("next", ""), root_path(request.scope))
            by = "link" if "token" in form else "key"
            if by == "link":
                user, cookie = self._auth.cookie_for_link(form["token"])
            else:
                user, cookie = self._auth.cookie_for_key(form.get("key", "").strip())
        except Refusal as refusal:
            self._auth.counted("refusal", f"{by}_{refusal.reason}")
            self._auth.audit.refused(who=None, source=_source(request), why=f"{by}: {refusal.reason}")
            refusal = await self._auth.wrong(request, refusal)
            return _not_signed_in(request, refusal, _SPENT if by == "link" else _WRONG, to)
        self._auth.counted("sign_in", by)
        self._auth.audit.note("sign-in", who=user, source=_source(request), by=by)
        return _signed_in(request, cookie, to)

    async def sign_out(self, request: Request) -> Response:
        try:
            refuse_foreign(request.headers)
            user = self._auth.sign_out(request)
        except Refusal as refusal:
            return refused(request, refusal)
        if user is not None:
            self._auth.audit.note("sign-out", who=user, source=_source(request))
        response = RedirectResponse(f"{root_path(request.scope)}/login", 303, {"Cache-Control": "no-store"})
        delete_cookie(response, request)
        return response


def _source(request: Request) -> str:
    return request.client.host if request.client is not None else "unknown"


async def style() -> Response:
    return Response(STYLE, media_type="text/css", headers={"Cache-Control": "max-age=3600"})


def safe_next(path: str, root: str = "") -> str:
    """A path of this server, whatever was asked for: its page for all that a browser could take for another site."""
    if not path.startswith(f"{root}/") or path.startswith("//") or "\\" in path or not path.isprintable():
        return f"{root}/"
    return path


def _signed_in(request: Request, cookie: str, to: str) -> Response:
    response = RedirectResponse(to, 303, {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"})
    set_cookie(response, request, cookie, COOKIE_LIFE_S)
    return response


def _not_signed_in(request: Request, refusal: Refusal, message: str, to: str) -> Response:
    if refusal.status == 401:
        return sign_in_page(request, refusal, message=message, next_path=to)
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

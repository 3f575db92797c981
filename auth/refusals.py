"""How callers who are not let in are told: a status and a sentence, and for a person in a browser the sign-in page."""

from __future__ import annotations

import html
import re
from pathlib import Path
from urllib.parse import quote, urlsplit

from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.datastructures import Headers
from starlette.requests import Request

from auth.cookies import root_path

NOBODY = "Sign in: send the header 'Authorization: Bearer <API key or JWT>', or open /login in a browser."
INVALID = f"This credential is wrong, expired or revoked. {NOBODY}"
FOREIGN = "This was asked for by a page of another site, so it was refused. Use the server's own pages."
UNKNOWABLE = "The server can't check credentials at the moment. Try again soon."

PAGE_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    # Not `no-referrer`, with which browsers say `Origin: null` when they post the form. No path is told either way.
    "Referrer-Policy": "strict-origin",
    "X-Content-Type-Options": "nosniff",
}
_WEB = Path(__file__).parent.parent / "web"
_PAGE = (_WEB / "login.html").read_text(encoding="utf-8")
_LINK_PAGE = (_WEB / "link.html").read_text(encoding="utf-8")
STYLE = (_WEB / "login.css").read_text(encoding="utf-8")


class Refusal(Exception):
    """Why a caller is not let in. The sentence repeats nothing of the credential."""

    def __init__(self, status: int, detail: str, retry_after_s: int = 60) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail
        headers = {
            401: {"WWW-Authenticate": "Bearer"},
            429: {"Retry-After": str(retry_after_s)},
            503: {"Retry-After": "10"},
        }
        self.headers = headers.get(status, {})
        self.reason = _REASONS.get(detail, {403: "scope", 429: "too_often"}.get(status, "form"))


_REASONS = {NOBODY: "no_credential", INVALID: "bad_credential", FOREIGN: "foreign_page", UNKNOWABLE: "unknowable"}
"""A word for each sentence, for logs and metrics."""


def refuse_foreign(headers: Headers) -> None:
    """Raises Refusal (403) unless the request comes from the server's own pages.

    Only the host is compared: behind a proxy that ends TLS, the scheme differs. A browser that hides the origin
    ("null", or none at all) is believed what it says of the site, which no page can forge.
    """
    origin = headers.get("origin", "null")
    if origin == "null":
        own = headers.get("sec-fetch-site") in ("same-origin", "none")
    else:
        host = _host_of(origin)
        own = bool(host) and host == headers.get("host", "").lower()
    if not own:
        raise Refusal(403, FOREIGN)


def _host_of(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def refused(request: Request, refusal: Refusal) -> Response:
    """The response to a refused request: the sign-in page for a person who may sign in, JSON for all others."""
    if refusal.status == 401 and _is_navigation(request):
        query = request.url.query
        path = quote(request.scope["path"]) + (f"?{query}" if query else "")
        return sign_in_page(request, refusal, next_path=path)
    return JSONResponse({"detail": refusal.detail}, refusal.status, refusal.headers)


def _is_navigation(request: Request) -> bool:
    mode = request.headers.get("sec-fetch-mode", "navigate")
    return request.method == "GET" and mode == "navigate" and "text/html" in request.headers.get("accept", "")


def sign_in_page(
    request: Request, refusal: Refusal | None = None, *, message: str = "", next_path: str = "/"
) -> Response:
    """The form that takes an API key and then leads to `next_path`: 200, or the refusal's status."""
    page = _filled(_PAGE, root=root_path(request.scope), message=message, next=next_path)
    if refusal is None:
        return HTMLResponse(page, headers=PAGE_HEADERS)
    return HTMLResponse(page, refusal.status, PAGE_HEADERS | refusal.headers)


def link_page(request: Request, user: str, token: str, next_path: str) -> Response:
    """The page of a one-time link: its button uses it up, and says who will be signed in."""
    page = _filled(_LINK_PAGE, root=root_path(request.scope), user=user, token=token, next=next_path)
    # The address holds the token, so it goes nowhere.
    return HTMLResponse(page, headers=PAGE_HEADERS)


def _filled(page: str, **values: str) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda found: html.escape(values[found[1]]), page)

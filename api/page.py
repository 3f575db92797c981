"""The chat page at `/`, its assets under `/web/`, and what only it needs of the server."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from api.slow_lane import SlowLane
from auth.middleware import current_user

PAGE_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}
MAX_TEXT = 50_000
MAX_TEXTS = 500_000
"""Characters of one text to be rendered, and of all in one call."""

_WEB = Path(__file__).parent.parent / "web"
_OTHERS = ("login.css", "shared.css", "shared.js")
"""Files of pages that are open without a sign-in: they have routes of their own."""
_TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}


class ChainCard(BaseModel):
    """A chain, for who wants to talk to it. `input_key`: where the message goes in the input; null: it is the input."""

    name: str = Field(examples=["tutor"])
    description: str
    input_key: str | None
    playground: str = Field(examples=["/tutor/playground/"])
    input_schema: str = Field(examples=["/tutor/input_schema"])

    @classmethod
    def of(cls, name: str, description: str, input_key: str | None) -> ChainCard:
        """The card of a chain that is mounted under its name."""
        return cls(
            name=name,
            description=description,
            input_key=input_key,
            playground=f"/{name}/playground/",
            input_schema=f"/{name}/input_schema",
        )


def _well_formed(value: object) -> object:
    """Replies may hold lone surrogates, which no `str` of pydantic's may."""
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if isinstance(value, str) else value


Text = Annotated[str, BeforeValidator(_well_formed), Field(max_length=MAX_TEXT)]


class Texts(BaseModel):
    """Markdown. All texts together have at most 500,000 characters. `open`: they are still being written."""

    model_config = ConfigDict(extra="forbid")

    texts: list[Text] = Field(max_length=200, examples=[["Some *Markdown*."]])
    open: bool = False

    @model_validator(mode="after")
    def _not_too_much(self) -> Texts:
        if sum(map(len, self.texts)) > MAX_TEXTS:
            raise ValueError(f"texts: send at most {MAX_TEXTS} characters at once")
        return self


class Rendered(BaseModel):
    """HTML, one for each text, that holds no script, no image, and no link but to the web and to mail.

    `lines`: how many lines of each text it is made of: of an open one, those of the blocks that have ended.
    """

    html: list[str]
    lines: list[int]


def router(chains: Sequence[ChainCard]) -> APIRouter:
    """`/`, `/web/…`, `/chains` and `/render`, all of them behind the sign-in."""
    routes = APIRouter(dependencies=[Depends(current_user)])
    page = Asset((_WEB / "index.html").read_bytes(), "text/html; charset=utf-8")
    files = [path for path in _WEB.iterdir() if path.suffix in _TYPES and path.name not in _OTHERS]
    assets = {path.name: Asset(path.read_bytes(), _TYPES[path.suffix]) for path in files}
    lane = SlowLane("texts to render")

    @routes.get("/", include_in_schema=False)
    async def open_page(request: Request) -> Response:
        return await page.response(request)

    @routes.get("/web/{name}", include_in_schema=False)
    async def asset(request: Request, name: str) -> Response:
        if name not in assets:
            raise HTTPException(404, "There is no such file.")
        return await assets[name].response(request)

    @routes.get("/chains", tags=["chains"], summary="The chains that answer here")
    async def list_chains() -> list[ChainCard]:
        return list(chains)

    @routes.post("/render", tags=["page"], summary="Markdown as HTML that is safe to show")
    async def render_texts(user: Annotated[str, Depends(current_user)], body: Texts) -> Rendered:
        return await lane.do(user, lambda: _rendered(body))

    return routes


def _rendered(body: Texts) -> Rendered:
    from api.page_markdown import render_all  # here: a parser that few requests need would slow every start down

    rendered = render_all(body.texts, is_open=body.open)
    return Rendered(html=[one.html for one in rendered], lines=[one.lines for one in rendered])


class Asset:
    """A file as it was when the server started. Browsers ask each time, and get it once, packed where they can."""

    def __init__(self, content: bytes, media_type: str, headers: Mapping[str, str] = PAGE_HEADERS) -> None:
        self._content = content
        self._headers = {**headers, "Content-Type": media_type, "Vary": "Accept-Encoding"}
        self._headers["ETag"] = f'W/"{hashlib.sha256(content).hexdigest()[:32]}"'

    @cached_property
    def _packed(self) -> bytes:
        """Packed when it is first asked for: all of them would take as long as a tenth of an app's making."""
        return gzip.compress(self._content, mtime=0)

    async def response(self, request: Request) -> Response:
        """The file, or that it is the same as before."""
        if self._headers["ETag"] in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=self._headers)
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(self._packed, headers={**self._headers, "Content-Encoding": "gzip"})
        return Response(self._content, headers=self._headers)

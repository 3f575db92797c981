"""Conversations that their owner lets others read, by a link that can be revoked.

The token stands in the link's fragment, which no browser sends and no log sees: the page at `/shared` posts it. Who has
it needs no sign-in, and sees what was said until the link was made: questions, replies, pictures and the names of
sources. Reasoning, tools, what was recalled from elsewhere, feedback and other versions stay with the owner.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi import Path as InPath
from fastapi.responses import HTMLResponse
from langchain_core.messages import BaseMessage
from pydantic import Field
from typing_extensions import TypedDict

from api.page import PAGE_HEADERS, Asset
from api.rates import Rates
from api.sessions.models import Body, SessionPath, Time, time_of
from api.sessions.routes import json_of, problems
from api.slow_lane import SlowLane
from auth.audit import Audit
from auth.cookies import root_path
from auth.files import KeyFileError
from auth.middleware import current_user
from auth.shares import MOST_SHARES, Share, Shares
from histories.base import HistoryStore, Session, SessionNotFound, Turn, TurnStatus

T = TypeVar("T")
User = Annotated[str, Depends(current_user)]
ShareId = Annotated[str, InPath(alias="share_id", pattern="^[0-9a-f]{32}$")]

PUBLIC_PATHS: Final = frozenset({"/shared", "/shared.css", "/shared.js"})
"""What is open to who has not signed in, as long as sharing is on."""

_PAGE_TURNS: Final = 50
_PICTURE: Final = re.compile(r"data:image/(png|jpeg|gif|webp)[;,]")
_HEADERS: Final = {
    **PAGE_HEADERS,
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Robots-Tag": "noindex, nofollow, noarchive",
}
_GONE: Final = "This link opens nothing: it was revoked, or its conversation is gone."


class Open(Body):
    """The token of a link, which stands behind its `#`. `before`: the `next` of an earlier page."""

    token: str = Field(max_length=200, examples=["rs_…"])
    before: str | None = Field(None, max_length=1000)


class ShareInfo(TypedDict):
    """A link that opens a conversation for others."""

    share_id: str
    session_id: str
    created_at: Time


class NewShare(ShareInfo):
    """The same, with the link's path, which is told this once."""

    path: Annotated[str, Field(examples=["/shared#rs_…"])]


class ShareList(TypedDict):
    """All links of the caller, newest first."""

    shares: list[ShareInfo]


class SharedPage(TypedDict):
    """Turns of a shared conversation, oldest first. `next` is the `before` of the page of older ones."""

    title: str
    shared_at: Time
    turns: list[dict[str, Any]]
    next: str | None


def router(store: HistoryStore, shares: Shares, rates: Rates, audit: Audit) -> APIRouter:
    """The owner's routes, behind the sign-in, and the readers', before it."""
    routes, own, readers = (
        APIRouter(tags=["shares"]),
        _Owner(store, shares, rates, audit),
        _Reader(store, shares, rates),
    )
    add, signed_in = routes.add_api_route, [Depends(current_user)]
    changed: dict[str, Any] = {"dependencies": signed_in, "responses": problems(403, 404, 409)}
    one = "/sessions/{session_id}/shares"
    add(one, own.create, methods=["POST"], status_code=201, response_model=NewShare, **changed)
    add("/shares", own.list, methods=["GET"], response_model=ShareList, dependencies=signed_in, responses=problems())
    add("/shares/{share_id}", own.revoke, methods=["DELETE"], status_code=204, **changed)
    add("/shared", readers.open, methods=["POST"], response_model=SharedPage, responses=problems(404))
    web = Path(__file__).parent.parent / "web"
    styles = b"".join((web / name).read_bytes() for name in ("page.css", "turns.css", "shared.css"))
    for path, asset in {
        "/shared": Asset((web / "shared.html").read_bytes(), "text/html; charset=utf-8", _HEADERS),
        "/shared.css": Asset(styles, "text/css; charset=utf-8", _HEADERS),
        "/shared.js": Asset((web / "shared.js").read_bytes(), "text/javascript; charset=utf-8", _HEADERS),
    }.items():
        seen: dict[str, Any] = {"include_in_schema": path == "/shared", "response_class": HTMLResponse}
        add(path, _serving(asset), methods=["GET"], summary="The page of a link", **seen)
    return routes


def _serving(asset: Asset) -> Callable[[Request], Awaitable[Response]]:
    async def serve(request: Request) -> Response:
        return await asset.response(request)

    return serve


class _Owner:
    """The routes of who shares. Their docstrings are what OpenAPI tells."""

    def __init__(self, store: HistoryStore, shares: Shares, rates: Rates, audit: Audit) -> None:
        self._store, self._shares, self._rates, self._audit = store, shares, rates, audit

    async def create(self, request: Request, user: User, session_id: SessionPath) -> Response:
        """A link by which anybody may read the session as it is now, until it is revoked."""
        await self._rates.copy(user)
        session = await self._store.history(user, session_id).info()
        if len(await _kept(lambda: self._shares.of(user))) >= MOST_SHARES:
            raise HTTPException(409, f"There are {MOST_SHARES} links already: revoke one of them.")
        share, token = await _kept(lambda: self._shares.create(user, session_id, session.created_at))
        self._note(request, "share.create", share)
        path = f"{root_path(request.scope)}/shared#{token}"
        return json_of(NewShare(**_info(share), path=path), 201)

    async def list(self, user: User) -> Response:
        """The caller's links. Those whose session is gone are forgotten."""
        found = await _kept(lambda: self._shares.of(user))
        there = [share for share in found if await _session_of(self._store, share) is not None]
        for share in found:
            if share not in there:
                await _kept(lambda gone=share: self._shares.revoke(user, share_id=gone.share_id))  # type: ignore[misc]
        return json_of(ShareList(shares=[_info(share) for share in there]))

    async def revoke(self, request: Request, user: User, share_id: ShareId) -> Response:
        """Revokes a link: it opens nothing from now on."""
        found = [share for share in await _kept(lambda: self._shares.of(user)) if share.share_id == share_id]
        if not found or not await _kept(lambda: self._shares.revoke(user, share_id=share_id)):
            raise HTTPException(404, "You have no such link.")
        self._note(request, "share.revoke", found[0])
        return Response(status_code=204)

    def _note(self, request: Request, act: str, share: Share) -> None:
        source = request.client.host if request.client is not None else "unknown"
        self._audit.note(act, who=share.user, source=source, share=share.share_id)


class _Reader:
    """The route of who reads."""

    def __init__(self, store: HistoryStore, shares: Shares, rates: Rates) -> None:
        self._store, self._shares, self._rates, self._lane = store, shares, rates, SlowLane("shared pages")

    async def open(self, request: Request, body: Open) -> Response:
        """What a link opens: a page of turns, as HTML that is safe to show. No sign-in is asked for."""
        share = await _kept(lambda: self._shares.find(body.token))
        session = None if share is None else await _session_of(self._store, share)
        if share is None or session is None:
            await self._rates.failed_sign_in(request.client.host if request.client is not None else "")
            raise HTTPException(404, _GONE)
        history = self._store.history(share.user, share.session_id)
        page = await history.turns(limit=_PAGE_TURNS, before=body.before or None)
        told = [turn for turn in page.items if turn.started_at <= share.created_at and turn.ended_at is not None]
        turns = await self._lane.do(share.share_id, lambda: _shown(told))
        answer = SharedPage(title=session.title, shared_at=time_of(share.created_at), turns=turns, next=page.next)
        response = json_of(answer)
        response.headers.update(_HEADERS)
        return response


async def _session_of(store: HistoryStore, share: Share) -> Session | None:
    """The session that was shared; None if it is gone, also if another one has its name now."""
    with suppress(SessionNotFound):
        session = await store.history(share.user, share.session_id).info()
        if session.created_at == share.session_since:
            return session
    return None


async def _kept(work: Callable[[], T]) -> T:
    """What blocks for a moment, beside the event loop."""
    try:
        return await asyncio.to_thread(work)
    except KeyFileError as error:
        raise HTTPException(503, "Links can't be looked up at the moment. Try again soon.") from error


def _info(share: Share) -> ShareInfo:
    return ShareInfo(share_id=share.share_id, session_id=share.session_id, created_at=time_of(share.created_at))


def _shown(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """Turns as the page shows them: what was asked as it is, what was answered as HTML."""
    from api.page_markdown import render_all  # here: see api/page.py

    replies = [[str(message.text) for message in turn.output if message.type == "ai"] for turn in turns]
    rendered = iter(render_all([text for texts in replies for text in texts]))
    return [
        {
            "at": time_of(turn.started_at),
            "question": [part for message in turn.input for part in _parts(message)],
            "reply": [next(rendered).html for _ in texts],
            "sources": [_source(source) for source in turn.details.get("sources", ())],
            "cut": turn.status is not TurnStatus.COMPLETE,
        }
        for turn, texts in zip(turns, replies, strict=True)
    ]


def _parts(message: BaseMessage) -> list[dict[str, str]]:
    """A question's texts and pictures, and the kind of all else that was sent with it."""
    content = message.content if isinstance(message.content, list) else [message.content]
    return [_part(block) for block in content]


def _part(block: str | dict[Any, Any]) -> dict[str, str]:
    if isinstance(block, str):
        return {"text": block}
    if isinstance(block.get("text"), str):
        return {"text": block["text"]}
    picture = block.get("image_url")
    url = picture.get("url") if isinstance(picture, dict) else picture
    return {"picture": url} if isinstance(url, str) and _PICTURE.match(url) else {"kind": str(block.get("type", ""))}


def _source(source: dict[str, Any]) -> dict[str, str]:
    """A source's name and address. What it says may be for the owner alone."""
    where = source.get("url") or (source.get("metadata") or {}).get("source") or ""
    name = source.get("title") or (source.get("metadata") or {}).get("title") or where or "Source"
    return {"name": str(name), "url": str(where)}

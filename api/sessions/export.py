"""Conversations on their way out, as files: one as JSON or Markdown, or all of a user's in one file of JSON lines."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, Response
from fastapi.responses import StreamingResponse

from api.sessions.exchange import ExchangedTurn, conversation_of
from api.sessions.markdown import title_as_markdown, turn_as_markdown
from api.sessions.models import Problem, time_of
from api.sessions.pages import Spool, to_json
from api.slow_lane import SlowLane
from auth.middleware import current_user
from histories.base import HistoryStore, Note, Session, SessionHistory, SessionNotFound, Summary, Turn
from turns.shares import ShareRules, Shares

_PAGE = 200

_AT_ONCE, _OF_ALL = 16, 256
"""How many exports are under way, of one user and in all. Each is put aside, on the disk, until it was sent."""

_under_way = Shares(ShareRules(line=_AT_ONCE, line_of_all=_OF_ALL), "exports")


async def one_export(user: Annotated[str, Depends(current_user)]) -> AsyncIterator[None]:
    """A dependency of what exports: holds a place until all was sent, or the client has gone. Raises `LineFull`."""
    with _under_way.place(user):
        yield


@dataclass(frozen=True, slots=True)
class Export:
    """How a session is written down: each turn, what stands around all of them, and what before each."""

    media_type: str
    suffix: str
    turn: Callable[[Turn], bytes]
    frame: Callable[[Session, Summary | None], tuple[bytes, bytes]]
    joint: Callable[[int], bytes]

    async def pieces(self, history: SessionHistory, lane: SlowLane) -> Iterator[bytes]:
        """The whole session. Whatever goes wrong with the store is raised before there is a piece."""
        async with lane.job(history.user_id):
            session = await history.info()
            summary = await history.summary()
            spool = await Spool.of(history, lane, self.turn)
        head, tail = self.frame(session, summary)
        return spool.pieces(head, self.joint, tail)

    async def response(self, history: SessionHistory, lane: SlowLane) -> Response:
        """The session as a file of its own."""
        pieces = await self.pieces(history, lane)
        return _file(_each(pieces), self.media_type, history.session_id + self.suffix)


def _json_frame(session: Session, summary: Summary | None) -> tuple[bytes, bytes]:
    text = to_json(conversation_of(session, summary))
    return text.removesuffix(b"]}"), b"]}"


AS_JSON = Export(
    "application/json",
    ".json",
    turn=lambda turn: to_json(ExchangedTurn.of(turn).model_dump()),
    frame=_json_frame,
    joint=lambda number: b", " if number else b"",
)
AS_MARKDOWN = Export(
    "text/markdown; charset=utf-8",
    ".md",
    turn=turn_as_markdown,
    frame=lambda session, summary: (title_as_markdown(session), b"\n"),
    joint=lambda number: b"\n\n## %d" % (number + 1),
)


def router(store: HistoryStore) -> APIRouter:
    """`/export` over a store."""
    routes, lane = APIRouter(tags=["sessions"], dependencies=[Depends(current_user)]), SlowLane("exports")
    problems: dict[int | str, dict[str, Any]] = {
        200: {"content": {"application/jsonl": {"schema": {"type": "string"}}}},
        401: {"model": Problem, "description": "Nobody that this server knows."},
    }

    @routes.get(
        "/export",
        summary="All sessions in one file",
        response_class=Response,
        responses=problems,
        dependencies=[Depends(one_export)],
    )
    async def export_all(user: Annotated[str, Depends(current_user)]) -> Response:
        """All of the caller's sessions, newest first, one on each line as `import` takes it.

        What is noted of the caller stands on one more line, the last one, as `PUT /memory` takes it.
        """
        return _file(_lines(store, user, lane), "application/jsonl", "recollect.jsonl")

    return routes


async def sessions_of(store: HistoryStore, user: str) -> AsyncIterator[Session]:
    """All of a user's sessions, newest first."""
    cursor: str | None = None
    while True:
        page = await store.sessions(user, limit=_PAGE, cursor=cursor)
        for session in page.items:
            yield session
        if page.next is None:
            return
        cursor = page.next


async def _lines(store: HistoryStore, user: str, lane: SlowLane) -> AsyncIterator[bytes]:
    async for session in sessions_of(store, user):
        try:
            pieces = await AS_JSON.pieces(store.history(user, session.session_id), lane)
        except SessionNotFound:  # it was deleted meanwhile
            continue
        for piece in pieces:
            yield piece
        yield b"\n"
    if notes := await store.notes(user):
        yield to_json(notes_of(notes)) + b"\n"


def notes_of(notes: Sequence[Note]) -> dict[str, Any]:
    """Notes as `PUT /memory` takes them."""
    return {
        "notes": [{"note_id": one.note_id, "text": one.text, "created_at": time_of(one.created_at)} for one in notes]
    }


async def _each(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def _file(pieces: AsyncIterator[bytes], media_type: str, name: str) -> Response:
    headers = {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}"}
    return StreamingResponse(pieces, media_type=media_type, headers=headers)

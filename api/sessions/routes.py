"""The REST resource /sessions: a caller's conversations.

Each route is about the caller's own sessions, as the sign-in says who that is. Those of others are not forbidden but
absent. What a store raises gets its status at the edge, as everywhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Annotated, Any, Final, Literal
from urllib.parse import unquote

from fastapi import APIRouter, Body, Depends, Header, HTTPException, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from api.quotas import Quotas
from api.rates import Rates
from api.sessions.exchange import Conversation, Unread, read_conversation
from api.sessions.export import AS_JSON, AS_MARKDOWN, one_export
from api.sessions.foreign import Unreadable, converted
from api.sessions.models import (
    Choose,
    Fork,
    Opinion,
    Rename,
    Rewind,
    SessionInfo,
    SessionList,
    SessionPath,
    Stopped,
    TurnId,
    TurnList,
    one_session_info,
    session_info,
)
from api.sessions.pages import page_of_turns, reading, to_json
from api.sessions.upload import Upload, UploadRoute
from api.slow_lane import LargeBodyRoute, ManyValuesRoute, SlowLane
from api.traced_feedback import TracedFeedback
from auth.middleware import current_user
from histories.base import Feedback, HistoryStore, SessionHistory, TurnStatus, UnknownMessage
from turns.shares import ShareRules, Shares

User = Annotated[str, Depends(current_user)]
TurnPath = Annotated[TurnId, Path(alias="turn_id", description="The turn's name, percent-encoded.")]
IfMatch = Annotated[str | None, Header(max_length=1600, description="The last turn_id that the caller was shown.")]
Deleted = Callable[[str, str | None], None]
Limit = Annotated[int, Query(ge=1, le=200, description="How many there are on a page.")]

STOP_WAIT_S = 2.0

_SEARCHES: Final = 32
"""How many lists and searches of one user there may be, one at work and the others in line: a store that looks through
what was said takes a second for each, where there is much, and who waits for longer than half a minute has gone."""

_LONGEST: Final = 3
"""How many times as long as the largest request a turn may be that is taken in: emoji become that long in an export."""

_PROBLEMS: Final = {
    401: "Nobody that this server knows.",
    403: "A page of another site asked, by a browser's cookie.",
    404: "The caller has no such session, or it has no such turn.",
    409: "A turn is running, or the name is taken.",
    412: "The session, or what is noted, has moved on since what If-Match names.",
    413: "The body is larger than RECOLLECT_MAX_BODY_BYTES, an import than RECOLLECT_MAX_IMPORT_BYTES.",
    422: "Malformed: the detail names the field.",
    429: "Too much at once, or in too short a time. `Retry-After` says when to go on.",
    503: "The store can't be reached. `Retry-After` says when to try again.",
}
_PROBLEM: Final = {"schema": {"$ref": "#/components/schemas/Problem"}}
"""By name, as `/export` brings it into the document: FastAPI would build a model for each status of each route."""


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """What routes may refuse, for their documentation."""
    content = {"application/json": _PROBLEM}
    told = sorted({401, 422, 429, 503, *statuses})
    return {status: {"description": _PROBLEMS[status], "content": content} for status in told}


def _nobody(user: str, session_id: str | None) -> None:
    return


def router(
    store: HistoryStore,
    rates: Rates,
    quotas: Quotas,
    *,
    max_body_bytes: int,
    max_import_bytes: int,
    deleted: Deleted = _nobody,
) -> APIRouter:
    """`/sessions` over a store. `deleted` is told of a session that is gone, and with None of all of a user's."""
    own = _Sessions(store, rates, quotas, deleted, _LONGEST * max_body_bytes)
    routes = APIRouter(
        prefix="/sessions", tags=["sessions"], dependencies=[Depends(current_user)], route_class=LargeBodyRoute
    )
    one, changed = "/{session_id}", problems(403, 404, 409, 413)
    add = routes.add_api_route
    add("", own.list, methods=["GET"], response_model=SessionList, responses=problems())
    add("", own.delete_all, methods=["DELETE"], status_code=204, responses=problems(403, 409))
    for slashes in ("/", "//"):  # or Starlette takes a missing id for the list: a client's slip would delete it all
        add(slashes, _absent, methods=["GET", "PATCH", "DELETE", "POST", "PUT"], include_in_schema=False)
    upload: dict[str, Any] = {"route_class_override": UploadRoute, "max_body_size": max_import_bytes}
    made = {"status_code": 201, "response_model": SessionInfo, "responses": changed, **upload}
    add("/import", own.import_, methods=["POST"], **made)
    converted: dict[str, Any] = {"response_model": Converted, "responses": problems(403, 413)}
    add("/import/convert", convert, methods=["POST"], route_class_override=ManyValuesRoute, **converted)
    add(one, own.get, methods=["GET"], response_model=SessionInfo, responses=problems(404))
    add(one, own.rename, methods=["PATCH"], response_model=SessionInfo, responses=problems(403, 404, 409, 413))
    add(one, own.delete, methods=["DELETE"], status_code=204, responses=problems(403, 404, 409))
    add(one + "/turns", own.turns, methods=["GET"], response_model=TurnList, responses=problems(404))
    add(one + "/fork", own.fork, methods=["POST"], status_code=201, response_model=SessionInfo, responses=changed)
    moved = problems(403, 404, 409, 412, 413)
    add(one + "/rewind", own.rewind, methods=["POST"], response_model=SessionInfo, responses=moved)
    add(one + "/choose", own.choose, methods=["POST"], response_model=SessionInfo, responses=moved)
    turn = one + "/turns/{turn_id}"
    add(turn, own.delete_turn, methods=["DELETE"], status_code=204, responses=problems(403, 404, 409, 412))
    add(turn + "/feedback", own.feedback, methods=["PUT"], status_code=204, responses=changed)
    add(one + "/stop", own.stop, methods=["POST"], response_model=Stopped, responses=problems(403, 404))
    _add_export(routes, one + "/export", own)
    return routes


def _add_export(routes: APIRouter, path: str, own: _Sessions) -> None:
    told: dict[int | str, dict[str, Any]] = {200: {"content": {"text/markdown": {"schema": {"type": "string"}}}}}
    more: dict[str, Any] = {"responses": told | problems(404), "dependencies": [Depends(one_export)]}
    routes.add_api_route(path, own.export, methods=["GET"], response_model=Conversation, **more)


async def _absent() -> Response:
    raise HTTPException(404, "A session's name has at least one character.")


class Converted(BaseModel):
    """What `import` takes, and how many messages could not come along."""

    conversation: dict[str, Any]
    left_out: int


def convert(body: Annotated[Any, Body(examples=[[{"type": "human", "data": {"content": "Hi!"}}]])]) -> Response:
    """A conversation of ChatGPT, open-webui, LibreChat, or LangChain's FileChatMessageHistory, as `import` takes it."""
    try:
        return json_of(converted(body))
    except Unreadable as error:
        raise HTTPException(422, str(error)) from error


class _Sessions:
    """The routes. Their docstrings are what OpenAPI tells."""

    def __init__(self, store: HistoryStore, rates: Rates, quotas: Quotas, deleted: Deleted, longest: int) -> None:
        self._store, self._rates, self._quotas, self._deleted = store, rates, quotas, deleted
        self._longest = longest
        self._traced = TracedFeedback()
        self._lists = Shares(ShareRules(at_once=8, each=1, line=_SEARCHES), "searches")
        self._quick, self._long = SlowLane("requests for turns"), SlowLane("imports, exports and forks")

    async def list(
        self,
        user: User,
        limit: Limit = 50,
        cursor: Annotated[str | None, Query(max_length=1000, description="The `next` of an earlier page.")] = None,
        q: Annotated[str | None, Query(max_length=200, description="Only those in which this was said.")] = None,
    ) -> Response:
        """The caller's sessions, newest first."""
        with self._lists.place(user):
            async with self._lists.share(user):
                page = await self._store.sessions(user, limit=limit, cursor=cursor or None, query=q)
        return json_of(SessionList(sessions=[session_info(session) for session in page.items], next=page.next))

    async def delete_all(self, user: User) -> Response:
        """Forgets all of the caller's sessions. 409 if a turn runs in one: that one is kept."""
        await self._store.forget(user)
        await asyncio.to_thread(self._deleted, user, None)
        return Response(status_code=204)

    async def get(self, user: User, session_id: SessionPath) -> Response:
        """One session."""
        async with reading(user):
            return await _info(self._store.history(user, session_id))

    async def rename(self, user: User, session_id: SessionPath, body: Rename) -> Response:
        """Gives the session another title."""
        history = self._store.history(user, session_id)
        await history.rename(body.title)
        return await _info(history)

    async def delete(self, user: User, session_id: SessionPath) -> Response:
        """Forgets the session, for good. 409 while a turn of it runs: stop that first."""
        await self._store.history(user, session_id).delete()
        await asyncio.to_thread(self._deleted, user, session_id)
        return Response(status_code=204)

    async def turns(
        self,
        user: User,
        session_id: SessionPath,
        limit: Limit = 50,
        before: Annotated[str | None, Query(max_length=1000, description="The `next` of an earlier page.")] = None,
    ) -> Response:
        """The session's turns: the newest page first, in each page the oldest first.

        A page may have fewer than `limit` before the last one: it is bounded in bytes, too.
        """
        history = self._store.history(user, session_id)
        page = await page_of_turns(history, self._quick, limit=limit, before=before or None)
        if page is None:
            await history.info()  # raises for a session that is not there
            page = to_json(TurnList(turns=[], next=None))
        return Response(page, media_type="application/json")

    async def fork(self, user: User, session_id: SessionPath, body: Fork) -> Response:
        """A new session that shares the past up to and with a turn. 409 if its name is taken."""
        size = await self._store.bytes_kept(user, session_id) if self._rates.limits_copied_bytes else 0
        await self._rates.copy(user, size)
        async with self._long.job(user):
            await self._quotas.room(user, body.session_id)
            await self._store.history(user, session_id).fork(body.session_id, body.turn_id)
        return await _info(self._store.history(user, body.session_id), 201)

    async def rewind(self, user: User, session_id: SessionPath, body: Rewind, if_match: IfMatch = None) -> Response:
        """The history ends before a turn. 409 while a turn runs.

        With `keep`, what followed can be chosen again, once another turn stands in its place.
        """
        history = self._store.history(user, session_id)
        await history.rewind(body.turn_id, keep=body.keep, if_last=_tag(if_match))
        return await _info(history)

    async def choose(self, user: User, session_id: SessionPath, body: Choose, if_match: IfMatch = None) -> Response:
        """Shows another version of a turn, with all that followed it. 409 while a turn runs."""
        history = self._store.history(user, session_id)
        await history.choose(body.turn_id, if_last=_tag(if_match))
        return await _info(history)

    async def delete_turn(
        self, user: User, session_id: SessionPath, turn_id: TurnPath, if_match: IfMatch = None
    ) -> Response:
        """Forgets one turn, for good; those around it stay. 409 while a turn runs."""
        await self._store.history(user, session_id).delete_turn(turn_id, if_last=_tag(if_match))
        return Response(status_code=204)

    async def feedback(self, user: User, session_id: SessionPath, turn_id: TurnPath, body: Opinion) -> Response:
        """Puts on the record what the caller thinks of a reply. LangSmith is told, too, if it traces turns."""
        told = Feedback(score=body.score, comment=body.comment)
        history = self._store.history(user, session_id)
        await history.feedback(turn_id, told)
        await self._traced.pass_on(history, turn_id, told)
        return Response(status_code=204)

    async def stop(self, user: User, session_id: SessionPath) -> Response:
        """Stops the running turn, if there is one, and keeps what was said so far.

        Waits up to two seconds for its end to be on the record.
        """
        history = self._store.history(user, session_id)
        await history.info()
        stopped = await history.stop()
        if stopped:
            await _until_it_ended(history)
        return json_of(Stopped(stopped=stopped))

    async def export(
        self,
        user: User,
        session_id: SessionPath,
        format: Annotated[Literal["json", "markdown"], Query(description="`import` takes back JSON.")] = "json",
    ) -> Response:
        """The whole session, as a file. A turn that still runs is in it as an interrupted one."""
        export = AS_MARKDOWN if format == "markdown" else AS_JSON
        return await export.response(self._store.history(user, session_id), self._long)

    async def import_(self, request: Request, user: User, body: Annotated[Any, Body(), Unread()]) -> Response:
        """Takes an export in, as a session of the caller's. 409 if its name is taken.

        To take it in under another name, change its `session_id`. The body may be as large as
        RECOLLECT_MAX_IMPORT_BYTES says.
        """
        await self._rates.copy(user, len(await request.body()))
        async with self._long.job(user):
            try:
                said, turns = await self._long.run(
                    lambda: body.conversation(self._longest) if isinstance(body, Upload) else read_conversation(body)
                )
                summary = None if said.summary is None else said.summary.among(turns)
                await self._quotas.room(user, said.session_id, len(turns))
                history = self._store.history(user, said.session_id)
                await history.restore(turns, title=said.title, created_at=said.created_at)
                if summary is not None:
                    await history.set_summary(summary)
            except ValidationError as error:
                errors = error.errors(include_url=False, include_context=False, include_input=False)
                raise RequestValidationError([{**one, "loc": ("body", *one["loc"])} for one in errors]) from None
            except UnknownMessage as error:
                raise HTTPException(422, f"turns: {error}") from error
        return await _info(history, 201)


def _tag(if_match: str | None) -> str | None:
    """The turn_id of an If-Match, percent-encoded in quotes, as HTTP wants it, or bare. `*` matches all."""
    tag = unquote((if_match or "").strip().strip('"'))
    return None if tag in ("", "*") else tag


async def _info(history: SessionHistory, status: int = 200) -> Response:
    return json_of(one_session_info(await history.info()), status)


async def _until_it_ended(history: SessionHistory) -> None:
    """Returns when the turn that runs now has ended, or after STOP_WAIT_S."""
    deadline, pause = asyncio.get_running_loop().time() + STOP_WAIT_S, 0.01
    first: str | None = None
    while asyncio.get_running_loop().time() < deadline:
        last = (await history.turns(limit=1)).items
        if not last or last[0].status is not TurnStatus.RUNNING or first not in (None, last[0].turn_id):
            return
        first = last[0].turn_id
        await asyncio.sleep(pause)
        pause = min(pause * 2, 0.2)


def json_of(content: Any, status: int = 200) -> Response:
    """JSON in ASCII: messages may hold lone surrogates, which UTF-8 has not. What JSON has no number for is null."""
    return Response(to_json(content), status, media_type="application/json")

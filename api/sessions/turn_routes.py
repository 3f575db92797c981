"""One turn of a session as a resource: what it is, when it has ended, and what it says while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from typing import Annotated, Any
from uuid import uuid4

from fastapi import APIRouter, Depends, Header, Query, Response

from api.event_stream import EventStream
from api.sessions.models import SessionPath, TurnInfo, TurnPath, time_of
from api.sessions.pages import is_long, one_turn, reading
from api.sessions.routes import problems
from api.slow_lane import SlowLane
from auth.middleware import current_user
from histories.base import Event, InvalidCursor, Turn, TurnStatus
from turns.errors import BegunAnew
from turns.run import Turns
from turns.watch import ended, watch

User = Annotated[str, Depends(current_user)]

MAX_WAIT_S = 300.0


def router(turns: Turns) -> APIRouter:
    """`/sessions/{session_id}/turns/{turn_id}` and its stream."""
    one = _Turns(turns)
    routes = APIRouter(prefix="/sessions/{session_id}/turns", tags=["sessions"], dependencies=[Depends(current_user)])
    found = problems(404)
    routes.add_api_route("/{turn_id}", one.get, methods=["GET"], response_model=TurnInfo, responses=found)
    events: dict[int | str, dict[str, Any]] = {
        200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}},
        204: {"description": "With `live`: the turn does not run."},
        409: {"description": "The turn was begun anew since `started_at`."},
    }
    routes.add_api_route("/{turn_id}/stream", one.stream, methods=["GET"], responses={**events, **found})
    return routes


class _Turns:
    """The routes. Their docstrings are what OpenAPI tells."""

    def __init__(self, turns: Turns) -> None:
        self._turns, self._lane = turns, SlowLane("requests for turns")

    async def get(
        self,
        user: User,
        session_id: SessionPath,
        turn_id: TurnPath,
        wait: Annotated[float, Query(ge=0, le=MAX_WAIT_S, description="So many seconds for it to end, at most.")] = 0,
    ) -> Response:
        """One turn. With `wait`, as soon as it has ended, if it does by then."""
        if wait and (await self._read(user, session_id, turn_id)).status is TurnStatus.RUNNING:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await ended(self._turns, user, session_id, turn_id)
        async with reading(user):
            turn = await self._turns.store.history(user, session_id).turn(turn_id)
            return Response(await one_turn(turn, self._lane), media_type="application/json")

    async def _read(self, user: str, session_id: str, turn_id: str) -> Turn:
        async with reading(user):
            return await self._turns.store.history(user, session_id).turn(turn_id)

    async def stream(
        self,
        user: User,
        session_id: SessionPath,
        turn_id: TurnPath,
        after: Annotated[int | None, Query(ge=-1, description="The number of the last event that was heard.")] = None,
        live: Annotated[bool, Query(description="Answer 204 if the turn does not run.")] = False,
        last_event_id: Annotated[str | None, Header(description="The same as `after`, as browsers send it.")] = None,
        started_at: Annotated[str | None, Query(description="As `metadata` said; 409 if it was begun anew.")] = None,
    ) -> Response:
        """What the turn says, as on the chain's own `/stream`: from the beginning, or after an event.

        A turn that has ended is told from the record, and the stream ends at once.
        """
        if after is None and last_event_id:
            after = _number(last_event_id)
        turn = await self._read(user, session_id, turn_id)
        if live and turn.status is not TurnStatus.RUNNING:
            return Response(status_code=204)
        began = time_of(turn.started_at)
        if started_at not in (None, "", began):
            raise BegunAnew
        metadata = {"run_id": str(uuid4()), "session_id": session_id, "turn_id": turn_id, "started_at": began}
        is_large = turn.status is not TurnStatus.RUNNING and is_long([turn])
        known = None if is_large else turn
        heard = watch(self._turns, user, session_id, turn_id, after=-1 if after is None else after, turn=known)
        return EventStream(metadata, _one_of_few(user, heard) if is_large else heard)


async def _one_of_few(user: str, heard: AsyncGenerator[Sequence[Event], None]) -> AsyncGenerator[Sequence[Event], None]:
    """What a large turn has said, which is in memory until it was sent."""
    async with reading(user), aclosing(heard) as events:
        async for some in events:
            yield some


def _number(last_event_id: str) -> int:
    if not (last_event_id.isascii() and last_event_id.isdecimal() and len(last_event_id) < 16):
        raise InvalidCursor("Send `Last-Event-ID` as the id of an event of this stream.")
    return int(last_event_id)

"""Following a turn from outside: on the server that runs it, on any other one, and when it has ended."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk

from histories.base import CRASHED, Event, SessionHistory, Turn, TurnStatus
from turns import voice
from turns.errors import BegunAnew, OwnerDied, RecordedFailure, ShuttingDown, TurnStopped
from turns.outputs import output_of
from turns.run import Turns
from turns.sizes import size_of
from turns.voice import Encode

_AGAIN_S = 0.05
"""How soon a turn is looked at again whose events have ended, while its end is not on the record yet."""


_LONG = 256 * 1024
"""Bytes of a reply that is written down off the event loop."""


class Whole(list[Event]):
    """All that a turn has said, in the place of what was heard of it."""


async def watch(
    turns: Turns, user_id: str, session_id: str, turn_id: str, *, after: int = -1, turn: Turn | None = None
) -> AsyncGenerator[Sequence[Event], None]:
    """What a turn says, from the event after that number on: from wherever it runs, and then from its record.
    `turn` is what its record has just told.

    * An empty list comes now and then, to show that the watch lives.
    * What can't be gone on with comes as a `Whole`, the last of all.
    * It ends when the turn has ended well, or was stopped on purpose.

    Raises: `TurnNotFound`, `SessionNotFound`; what kept the turn from its end, as its own client was told;
    `BegunAnew`; `ShuttingDown` when this server is about to end and the turn runs on another one.
    """
    run = turns.find(user_id, session_id, turn_id)
    if run is not None:
        async with aclosing(run.events(after)) as events:
            async for some in events:
                yield some
        return
    history = turns.store.history(user_id, session_id)
    turn = turn or await history.turn(turn_id)
    while turn.status is TurnStatus.RUNNING:
        async with (
            turns.attendance.of(history, turn_id),
            aclosing(_elsewhere(turns, history, turn_id, after)) as events,
        ):
            async for some in events:
                after = some[-1].seq if some else after
                yield some
        await asyncio.sleep(_AGAIN_S)
        begun_at, turn = turn.started_at, await history.turn(turn_id)
        if turn.started_at != begun_at:
            raise BegunAnew
    if size_of(turn.output) > _LONG:
        yield await asyncio.to_thread(rest_of, turn, after, turns.encode)
    else:
        yield rest_of(turn, after, turns.encode)
    raise_failure(turn)


async def _elsewhere(
    turns: Turns, history: SessionHistory, turn_id: str, after: int
) -> AsyncGenerator[Sequence[Event], None]:
    """The events that the store has of a turn of another process, and signs of life between them."""
    events = aiter(history.events(turn_id, after=after))
    closing: asyncio.Future[Any] = asyncio.ensure_future(turns.closing.wait())
    following: asyncio.Future[Sequence[Event] | None] | None = None
    try:
        while True:
            following = following or asyncio.ensure_future(_next(events))
            both: set[asyncio.Future[Any]] = {following, closing}
            await asyncio.wait(both, timeout=voice.PULSE_S, return_when=asyncio.FIRST_COMPLETED)
            if following.done():
                some, following = following.result(), None
                if some is None:
                    return
                yield some
            elif closing.done():
                raise ShuttingDown("This server is shutting down: go on listening at another one.")
            else:
                yield ()
    finally:
        closing.cancel()
        if following is not None:
            following.cancel()
            await asyncio.wait({following})


async def _next(events: AsyncIterator[Sequence[Event]]) -> Sequence[Event] | None:
    return await anext(events, None)


async def ended(turns: Turns, user_id: str, session_id: str, turn_id: str) -> Turn:
    """The turn, once it has ended, wherever it runs. `TurnNotFound`, `SessionNotFound`, `ShuttingDown`."""
    run = turns.find(user_id, session_id, turn_id)
    if run is not None:
        with run.listening():
            await asyncio.wait({run.task})
    history = turns.store.history(user_id, session_id)
    while (turn := await history.turn(turn_id)).status is TurnStatus.RUNNING:
        async with turns.attendance.of(history, turn_id), aclosing(_elsewhere(turns, history, turn_id, -1)) as events:
            async for _ in events:
                pass
        await asyncio.sleep(_AGAIN_S)
    return turn


def rest_of(turn: Turn, after: int, encode: Encode) -> Sequence[Event]:
    """What a turn that has ended has to say to who has heard its events up to a number: at most one event.

    Of text it is what is missing. What can't be cut comes as a `Whole` to who has heard some of it.
    """
    if not turn.output and "value" not in turn.details:
        return []
    count = max(turn.details.get("events", 1), 1)
    if after >= count - 1:
        return []
    output = output_of(turn, None)
    if isinstance(output, AIMessage):
        output = AIMessageChunk(**output.model_dump(exclude={"type"}))
    if after < 0:
        return [Event(count - 1, _one_line(encode(output)))]
    rest = _after(output, turn.details.get("lengths", [])[: after + 1], after + 1)
    if rest is None:
        return Whole([Event(count - 1, _one_line(encode(output)))])
    return [Event(count - 1, _one_line(encode(rest)))]


def _after(output: Any, lengths: Sequence[int], heard: int) -> str | AIMessageChunk | None:
    """What is left of a text, or of a message of text, after so many events; None if that can't be told."""
    if len(lengths) < heard:
        return None
    if isinstance(output, str):
        return output[sum(lengths) :]
    if isinstance(output, AIMessageChunk) and isinstance(output.content, str):
        return output.model_copy(update={"content": output.content[sum(lengths) :]})
    return None


def _one_line(data: bytes) -> bytes:
    return data if b"\n" not in data else json.dumps(json.loads(data)).encode("ascii")


def raise_failure(turn: Turn) -> None:
    """Raises what the turn's own client was told, if it did not end well."""
    reason, error = turn.details.get("finish_reason"), turn.details.get("error")
    if error is not None:
        raise RecordedFailure(error["status_code"], error["message"])
    if turn.status is TurnStatus.FAILED:
        raise RecordedFailure(502, "The turn failed. Send it again.")
    if turn.status is not TurnStatus.INTERRUPTED or reason == "stopped":
        return
    again = f"What was said so far is kept: send it again, with the turn_id {turn.turn_id!r}, to have it answered."
    if reason == CRASHED or reason is None:
        raise OwnerDied(f"The server that ran this turn died. {again}")
    if reason == "shutdown":
        raise ShuttingDown(f"The server that ran this turn was shut down. {again}")
    raise TurnStopped("The turn was stopped. What was said so far is kept.")

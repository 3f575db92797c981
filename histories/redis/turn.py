"""A turn of the Redis store: its way from the line to its end."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from typing_extensions import override

from histories import codec
from histories.base import (
    NewTurn,
    OpenTurn,
    Reply,
    SessionBusy,
    ShownTurn,
    StoreFull,
    StoreUnavailable,
    Turn,
    TurnLost,
    TurnStatus,
    now,
    title_of,
)
from histories.blocking import undisturbed
from histories.redis.link import LEASE_S, Held, Link, Waiter
from histories.redis.records import Keys, begun_record, ended_record, read_messages, read_turn, to_micros
from histories.redis.scripts import BEGIN, END, LEAVE

if TYPE_CHECKING:
    from histories.redis.store import RedisStore

log = logging.getLogger("recollect.histories")

_LEASE_MS: Final = round(LEASE_S * 1000)
_PAUSE_S: Final = (0.1, 1.0)
"""How soon, and later how often, the end of a turn is sent again."""


async def begin_turn(turn: RedisTurn, *, wait_s: float) -> OpenTurn | Turn:
    """Waits for the session, then begins the turn: first in line in this process, then among all of them."""
    store, place = turn.store, turn.keys.session
    deadline = turn.link.loop.time() + wait_s
    running = store.running.get(place)
    if turn.given and running is not None and running[0] == turn.turn_id:
        raise _still_running()
    try:
        try:
            await store.wait_queue.enter(place, 0)
        except TimeoutError:
            recorded = await turn.look() if turn.given else None
            if recorded is not None:
                return recorded
            await store.wait_queue.enter(place, wait_s)
    except TimeoutError:
        raise _busy() from None
    try:
        begun = await turn.begin(deadline)
    except BaseException:
        store.wait_queue.leave(place)
        raise
    if isinstance(begun, Turn):
        store.wait_queue.leave(place)
    return begun


class RedisTurn(OpenTurn):
    """A turn that runs, or is about to; its token is the fence against all others."""

    def __init__(
        self,
        store: RedisStore,
        link: Link,
        keys: Keys,
        session_id: str,
        new: NewTurn,
        window_tokens: int,
        on_stop: Callable[[], None] | None,
    ) -> None:
        self.store, self.link, self.keys, self.turn_id, self.window = store, link, keys, new.turn_id, []
        self._session_id, self.given, self.token = session_id, new.given, uuid4().hex
        self._tokens, self._number, self._on_stop, self._ended = new.tokens, 0, on_stop, False
        at = now()
        settled = ended_record(TurnStatus.INTERRUPTED, "-", at)
        begun = begun_record(new, at, codec.dump_messages(new.input))
        self._begin_args: tuple[object, ...] = (
            *(json.dumps(new.turn_id), int(new.given), new.tokens, window_tokens, begun, settled),
            *(json.dumps(new.chain), json.dumps(title_of(new.input)), session_id, to_micros(at)),
        )

    async def _ask(self, mode: str) -> list[Any]:
        args = (self.token, self.link.channel, _LEASE_MS, mode, self.link.grace_ms(), *self._begin_args)
        answer: list[Any] = await self.link.run(BEGIN, self.keys.turn, *args)
        return answer

    async def look(self) -> Turn | None:
        """The turn of this turn_id, if it is complete; `SessionBusy` if it runs."""
        return self._recorded(await self._ask("look"))

    def _recorded(self, answer: list[Any]) -> Turn | None:
        if answer[0] == "running":
            raise _still_running()
        return read_turn(answer[1], answer[2]) if answer[0] == "complete" else None

    async def begin(self, deadline: float) -> OpenTurn | Turn:
        """This turn, begun, or the complete one of its id. `SessionBusy` at the deadline (of the event loop's time)."""
        waiter, in_line = Waiter(self.token, self.keys.lease, self.keys.line), False
        self.link.waiters[self.token] = waiter  # before it is in line: no call is to be missed
        try:
            while True:
                waiter.called.clear()
                left = deadline - self.link.loop.time()
                answer, cancelled = await undisturbed(self._ask("wait" if left > 0 else "now"))
                if answer[0] == "begun":
                    in_line = False
                    await self._started(answer, cancelled)
                    return self
                in_line = in_line or answer[0] == "wait"
                if cancelled:
                    raise asyncio.CancelledError
                if answer[0] != "wait":
                    recorded = self._recorded(answer)
                    if recorded is None:
                        raise _busy()
                    return recorded
                waiter.due(answer[1])
                with suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, left)):
                        await waiter.called.wait()
        finally:
            self.link.waiters.pop(self.token, None)
            if in_line:
                with suppress(StoreUnavailable):
                    await undisturbed(self.link.run(LEAVE, [self.keys.lease, self.keys.line], self.token, _LEASE_MS))

    async def _started(self, answer: list[Any], cancelled: bool) -> None:
        self._number, self._begin_args = answer[1], ()
        try:
            if cancelled:
                raise asyncio.CancelledError
            self.window = [ShownTurn("", read_messages(answer[2]))]
        except BaseException:
            with suppress(StoreUnavailable):
                await undisturbed(self._record_end(Reply(status=TurnStatus.INTERRUPTED)))
            raise
        self.link.held[self.token] = Held(self.token, self.keys.session, self.keys.lease, self._stop)
        self.store.running[self.keys.session] = (self.turn_id, self._on_stop)

    def _stop(self) -> None:
        """Somebody asked for it, or the session has been taken over: either way the model need not go on."""
        stop, self._on_stop = self._on_stop, None
        if stop is not None:
            stop()

    @override
    async def end(self, reply: Reply) -> None:
        if self._ended:
            raise TurnLost("This turn has ended already.")
        self._ended = True
        try:
            _, cancelled = await undisturbed(self._end(reply))
        finally:
            self.link.held.pop(self.token, None)
            self.store.running.pop(self.keys.session, None)
            self.store.wait_queue.leave(self.keys.session)
        if cancelled:
            raise asyncio.CancelledError

    async def _end(self, reply: Reply) -> None:
        """Sends the end until Redis takes it, or has had its time."""
        loop, pause = self.link.loop, _PAUSE_S[0]
        deadline = loop.time() + self.store.save_limit_s
        while True:
            try:
                return await self._record_end(reply)
            except (StoreFull, TurnLost):
                raise
            except StoreUnavailable:
                if loop.time() + pause > deadline:
                    raise
            await asyncio.sleep(pause)
            pause = min(pause * 2, _PAUSE_S[1])

    async def _record_end(self, reply: Reply) -> None:
        """One attempt. What can't be written, whatever comes of it, frees the session at least.

        A turn without an end shows as interrupted, and what can't be reached has its lease run out.
        """
        at = now()
        shown = reply.status is TurnStatus.COMPLETE or (reply.status is TurnStatus.INTERRUPTED and bool(reply.output))
        tokens = self._tokens + reply.tokens if shown else None
        details = {"usage": reply.usage, "kind": reply.kind, "tokens": tokens}
        try:
            said = codec.dump_messages(reply.output)
            await self._send_end(ended_record(reply.status, self.token, at, said, **details), tokens, at)
        except (StoreFull, codec.UnknownMessage):
            with suppress(StoreUnavailable):
                await self._send_end("", None, at)
            raise

    async def _send_end(self, record: str, tokens: int | None, at: datetime) -> None:
        window = "" if tokens is None else str(tokens)
        args = (self.token, self._number, record, window, self._session_id, to_micros(at))
        if not await self.link.run(END, self.keys.turn, *args):
            raise TurnLost("Another server took this session over: what was said in this turn was not recorded.")


def _busy() -> SessionBusy:
    return SessionBusy("Another turn of this session is running: try again when it has ended.")


def _still_running() -> SessionBusy:
    return SessionBusy("The turn of this turn_id is still running: wait for it, or stop it.")

"""A turn of the Redis store: its way from the queue to its end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from typing_extensions import override

from histories import codec
from histories.base import (
    Attempt,
    Gate,
    OpenTurn,
    Reply,
    ShownTurn,
    StoreFull,
    StoreUnavailable,
    Turn,
    TurnLost,
    TurnStatus,
    now,
    title_of,
)
from histories.blocking import see_through, undisturbed
from histories.cursors import to_micros
from histories.redis.peer import LEASE_MS, Held, Waiter
from histories.redis.records import begun_record, ended_record, read_turn, read_window
from histories.redis.scripts import APPEND, BEGIN, END, LEAVE
from histories.redis.session import SessionRecord

_PAUSE_S: Final = (0.1, 1.0)
"""How soon, and later how often, the end of a turn is sent again."""
_JOURNAL_MS: Final = 24 * 3600 * 1000
"""How long the journal of a dead holder waits for somebody to settle its turn."""
_INTERRUPTED: Final = Reply(status=TurnStatus.INTERRUPTED)


class Beginning:
    """One attempt to begin a turn, for which a place in the queue is taken if need be."""

    def __init__(self, record: SessionRecord, attempt: Attempt, gate: Gate, key: str, save_limit_s: float) -> None:
        self._record, self._attempt, self._open = record, attempt, (gate, key, save_limit_s)
        self._waiter = Waiter(attempt.token, record.keys.lease, record.keys.queue)
        self._is_queued = False
        new, self._at = attempt.new, now()
        at = self._at
        self._args: tuple[object, ...] = (
            *(json.dumps(new.turn_id), int(new.given), new.tokens, attempt.window_tokens),
            *(begun_record(new, at), ended_record(_INTERRUPTED, 0, "-", at)),
            *(json.dumps(new.chain), json.dumps(title_of(new.input)), record.session_id, to_micros(at)),
            *("" if name is None else json.dumps(name) for name in (new.version_of, attempt.if_last)),
        )

    async def begin(self) -> OpenTurn | Turn:
        """The turn, begun, or the complete one of its id. `SessionBusy` at the deadline."""
        waiters, token = self._record.peer.waiters, self._attempt.token
        waiters[token] = self._waiter  # before it is in the queue: no call is to be missed
        try:
            while True:
                self._waiter.called.clear()
                answer = await see_through(self._ask(), undo=self._undo)
                if answer[0] == "begun":
                    return await self._opened(answer)
                if answer[0] == "complete":
                    return read_turn(answer[1])
                self._waiter.due(answer[1])
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(self._attempt.deadline):
                        await self._waiter.called.wait()
        finally:
            del waiters[token]
            if self._is_queued:
                await undisturbed(self._leave())

    async def _ask(self) -> list[Any]:
        peer, deadline = self._record.peer, self._attempt.deadline
        mode = "wait" if peer.link.loop.time() < deadline else "now"
        args = (self._attempt.token, peer.channel, LEASE_MS, mode, peer.link.grace_ms(), *self._args)
        while True:
            answer = await self._record.ask(BEGIN, *args)
            if answer[0] == "work":
                await self._record.index()
            elif answer[0] == "settle":
                await self._record.settle(*answer[1:])
            else:
                self._is_queued = answer[0] == "wait" or (self._is_queued and answer[0] == "complete")
                return answer

    async def _undo(self, answer: list[Any]) -> None:
        """It was cancelled when the answer was on its way."""
        if answer[0] == "begun":
            with suppress(StoreUnavailable):
                await self._turn(answer).record_end(_INTERRUPTED)

    async def _leave(self) -> None:
        keys = [self._record.keys.lease, self._record.keys.queue]
        with suppress(StoreUnavailable):
            await self._record.peer.link.run(LEAVE, keys, self._attempt.token, LEASE_MS)

    def _turn(self, answer: list[Any]) -> RedisTurn:
        turn = RedisTurn(self._record, self._attempt, int(answer[1]), *self._open)
        turn.started_at = self._at
        return turn

    async def _opened(self, answer: list[Any]) -> OpenTurn:
        turn = self._turn(answer)
        try:
            turn.window, turn.has_older = read_window(answer[2]), int(answer[3]) > 0
        except BaseException:
            await undisturbed(self._undo(answer))
            raise
        turn.hold()
        return turn


class RedisTurn(OpenTurn):
    """A turn that runs; the token of its attempt is the fence against all others."""

    window: Sequence[ShownTurn]

    def __init__(
        self, record: SessionRecord, attempt: Attempt, number: int, gate: Gate, key: str, save_limit_s: float
    ) -> None:
        self.gate, self.key, self.turn_id, self.window = gate, key, attempt.new.turn_id, ()
        self._record, self._token, self._added, self._number = record, attempt.token, attempt.new.tokens, number
        self._save_limit_s = save_limit_s
        self._unsent: list[bytes] = []

    def hold(self) -> None:
        """From now on its lease is kept."""
        keys, held = self._record.keys, self._record.peer.held
        held[self._token] = Held(self._token, keys.session, keys.lease, lambda: self.gate.stop(self.key, self._token))

    @override
    async def _journal(self, first: int, events: Sequence[bytes]) -> None:
        await see_through(self._append(first, events))

    async def _append(self, first: int, events: Sequence[bytes]) -> None:
        """What could not be written is written with the next events."""
        first -= len(self._unsent)
        self._unsent += events
        peer, keys = self._record.peer, [self._record.keys.session, self._record.keys.journal(self._token)]
        args = (self._token, first, _JOURNAL_MS, peer.events_channel(self._token))
        await self._record.ask(
            APPEND, *args, *(event.decode("utf-8", "surrogatepass") for event in self._unsent), keys=keys
        )
        self._unsent = []

    @override
    async def _end(self, reply: Reply) -> None:
        """Sends the end until Redis takes it, or has had its time."""
        loop, pause = self._record.peer.link.loop, _PAUSE_S[0]
        deadline = loop.time() + self._save_limit_s
        try:
            while True:
                try:
                    return await self.record_end(reply)
                except (StoreFull, TurnLost):
                    raise
                except StoreUnavailable:
                    if loop.time() + pause > deadline:
                        raise
                await asyncio.sleep(pause)
                pause = min(pause * 2, _PAUSE_S[1])
        finally:
            self._record.peer.held.pop(self._token, None)

    async def record_end(self, reply: Reply) -> None:
        """One attempt. What can't be written, whatever comes of it, frees the session at least.

        A turn without an end shows as interrupted, and what can't be reached has its lease run out.
        """
        at, tokens = now(), self._added + reply.tokens if reply.is_shown else 0
        try:
            written = ended_record(reply, tokens, self._token, at)
            await self._send_end(written, str(tokens) if reply.is_shown else "", to_micros(at))
        except (StoreFull, codec.UnknownMessage):
            with suppress(StoreUnavailable):
                await self._send_end("", "", to_micros(at))
            raise

    async def _send_end(self, written: str, tokens: str, at: int) -> None:
        record = self._record
        keys = [*record.keys.all, record.keys.journal(self._token)]
        channel = record.peer.events_channel(self._token)
        args = (self._token, self._number, written, tokens, record.session_id, at, channel)
        answer = await record.ask(END, *args, keys=keys)
        if answer[0] == "unfinished":
            await record.index()

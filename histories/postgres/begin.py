"""The way of a turn to its session: in line among the servers, for who is first in line in this process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC
from typing import Final

from histories import codec
from histories.base import (
    Attempt,
    SessionBusy,
    SessionNotFound,
    ShownTurn,
    StoreUnavailable,
    Turn,
    TurnNotFound,
    title_of,
)
from histories.blocking import see_through, undisturbed
from histories.postgres import statements
from histories.postgres.driver import Ask, Params, Row, Unanswered
from histories.postgres.rows import messages_from, pack, unpack, words_of
from histories.postgres.settle import settle
from histories.postgres.shared import REFUSALS, SessionName, Shared
from histories.postgres.turn import PostgresTurn, give_up

_POLL_S: Final = (0.05, 1.0)
"""How soon, and later how often, the first in line looks for itself. Mostly it is called before."""


class Beginning:
    """One attempt to begin a turn. `recorded` gives the turn of that id from the record."""

    def __init__(
        self, shared: Shared, session: SessionName, attempt: Attempt, recorded: Callable[[], Awaitable[Turn]]
    ) -> None:
        self._shared, self._session, self._attempt, self._recorded = shared, session, attempt, recorded
        self._link = shared.link()
        self._is_patient = attempt.deadline > asyncio.get_running_loop().time()
        self._is_in_line = False

    async def turn(self) -> PostgresTurn | Turn:
        """The turn, when it has begun; or the complete one of that turn_id."""
        free, name = asyncio.Event(), f"free:{self._attempt.token}"
        self._link.listen(name, free.set)
        try:
            return await self._when_free(self._params(), free)
        finally:
            self._link.unlisten(name, free.set)
            if self._is_in_line:
                await see_through(self._leave_line())

    def _params(self) -> Params:
        new, title = self._attempt.new, title_of(self._attempt.new.input)
        half = max(1, self._attempt.window_tokens // 2) if self._attempt.window_tokens else 0
        return {
            **self._session.params,
            "server": self._link.server_id,
            "token": self._attempt.token,
            "turn": pack(new.turn_id),
            "given": new.given,
            "patient": self._is_patient,
            "version_of": None if new.version_of is None else pack(new.version_of),
            "if_last": None if self._attempt.if_last is None else pack(self._attempt.if_last),
            "title": pack(title),
            "title_words": words_of(self._session.user_id, title),
            "chain": pack(new.chain),
            "input": codec.dump_messages(new.input),
            "tokens": new.tokens,
            "half": half,
        }

    async def _when_free(self, params: Params, free: asyncio.Event) -> PostgresTurn | Turn:
        pause = _POLL_S[0]
        while True:
            free.clear()
            await self._link.alive()
            rows = await see_through(self._ask(params), undo=self._undo)
            word, wait_s = rows[0][:2]
            if word == "begun":
                return await self._begun(rows)
            if word == "complete":
                with suppress(SessionNotFound, TurnNotFound):
                    return await self._recorded()
            elif word == "lost":
                await see_through(settle(self._link.fetch, self._session, server_id=self._link.server_id))
            elif word == "wait":
                await self._wait(free, min(pause, max(0.01, wait_s + 0.01)))  # a lease runs out without a call
                pause = _POLL_S[1]
            else:
                raise REFUSALS[word]

    async def _ask(self, params: Params) -> list[Row]:
        self._is_in_line = self._is_patient
        rows = await self._send(params)
        self._is_in_line = rows[0][0] == "wait" and self._is_patient
        return rows

    async def _send(self, params: Params) -> list[Row]:
        """Once more if the answer is lost: a turn that has begun is then told to have."""
        with suppress(Unanswered):
            return await self._link.fetch(statements.BEGIN, params)
        try:
            return await self._link.fetch(statements.BEGIN, params)
        except StoreUnavailable:
            await self._give_up()
            raise

    async def _undo(self, rows: Sequence[Row]) -> None:
        if rows[0][0] == "begun":
            await self._give_up()

    async def _give_up(self) -> None:
        await give_up(self._link, self._session, self._attempt.token)

    async def _begun(self, rows: Sequence[Row]) -> PostgresTurn:
        try:
            window = [
                ShownTurn(unpack(turn_id), [*messages_from(given), *messages_from(output)])
                for _, _, _, turn_id, given, output in rows
                if turn_id is not None
            ]
        except BaseException:
            await undisturbed(self._give_up())
            raise
        older = rows[0][1] > 0
        turn = PostgresTurn(self._shared, self._session, self._attempt, self._link, window, has_older=older)
        turn.started_at = rows[0][2].astimezone(UTC)
        return turn

    async def _wait(self, free: asyncio.Event, seconds: float) -> None:
        rest = self._attempt.deadline - asyncio.get_running_loop().time()
        if rest <= 0:
            raise SessionBusy
        with suppress(TimeoutError):
            async with asyncio.timeout(min(seconds, rest)):
                await free.wait()

    async def _leave_line(self) -> None:
        params = {**self._session.params, "token": self._attempt.token}

        async def work(ask: Ask) -> None:
            await ask(statements.LEAVE_LINE, params)

        try:
            await work(self._link.fetch)
        except StoreUnavailable:
            self._link.later(work)

"""A turn that runs, in PostgreSQL.

A session is held by a server, and a server lives while its heart beats. Each attempt to run a turn has its own
`token`, and its end is written only while the session still has it: so a server that was paused, or cut off, finds
its turn lost if another one took the session over meanwhile, and never writes into that one's past.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Final

from typing_extensions import override

from histories.base import Attempt, OpenTurn, Reply, ShownTurn, StoreFull, StoreUnavailable, TurnLost, see_through
from histories.journal import Journal
from histories.postgres import statements
from histories.postgres.driver import Ask, Params
from histories.postgres.link import Link
from histories.postgres.rows import pack
from histories.postgres.settle import ending, settle
from histories.postgres.shared import SessionName, Shared

_RETRY_S: Final = 0.2


class PostgresTurn(OpenTurn):
    """A turn that runs. `link` is that of the event loop on which it has begun."""

    def __init__(
        self,
        shared: Shared,
        session: SessionName,
        attempt: Attempt,
        link: Link,
        window: Sequence[ShownTurn],
        *,
        has_older: bool,
    ) -> None:
        self.turn_id, self.window, self.has_older = attempt.new.turn_id, window, has_older
        self.gate, self.key = shared.gate, session.key
        self._shared, self._session, self._attempt, self._link = shared, session, attempt, link
        self._unsent, self._sent = list[bytes](), 0
        self._book = shared.journals[self.key] = Journal()
        self._on_call = partial(self.gate.stop, self.key, attempt.token)
        link.listen(f"stop:{attempt.token}", self._on_call)

    @override
    async def _journal(self, first: int, events: Sequence[bytes]) -> None:
        await see_through(self._append(events))

    async def _append(self, events: Sequence[bytes]) -> None:
        self._unsent += events  # with what could not be sent before, so that the journal has no gap
        if not self._unsent:
            return
        batch = {"token": self._attempt.token, "first": self._sent, "data": b"\n".join(self._unsent)}
        if not (await self._shared.link().fetch(statements.JOURNAL, {**self._session.params, **batch}))[0][0]:
            raise TurnLost
        self._book.append(self._unsent)
        self._sent += len(self._unsent)
        self._unsent = []

    @override
    async def _end(self, reply: Reply) -> None:
        try:
            await self._record(reply)
        finally:
            self._link.unlisten(f"stop:{self._attempt.token}", self._on_call)
            self._book.close()
            if self._shared.journals.get(self.key) is self._book:
                del self._shared.journals[self.key]

    async def _record(self, reply: Reply) -> None:
        new, token = self._attempt.new, self._attempt.token
        link = self._shared.link()
        try:
            end = await ending(self._session.user_id, new.input, reply, tokens=new.tokens)
            recorded = await self._save(
                link, {**self._session.params, **end, "token": token, "turn": pack(self.turn_id)}
            )
        except BaseException:
            await give_up(link, self._session, token)
            raise
        if not recorded:
            raise TurnLost

    async def _save(self, link: Link, params: Params) -> bool:
        """Writes the end; tries again for a while if PostgreSQL is gone, because the reply is worth it."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._shared.save_limit_s
        while True:
            try:
                return bool((await link.fetch(statements.END, params))[0][0])
            except StoreFull:
                raise
            except StoreUnavailable:
                if loop.time() >= deadline:
                    raise
            await asyncio.sleep(_RETRY_S)


async def give_up(link: Link, session: SessionName, token: str) -> None:
    """Frees the session from an attempt of this server's: its turn, if there is one, is interrupted."""

    async def work(ask: Ask) -> None:
        await settle(ask, session, server_id=link.server_id, token=token)

    try:
        await work(link.fetch)
    except StoreUnavailable:
        link.later(work)

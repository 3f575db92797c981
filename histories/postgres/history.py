"""The history of one session in PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Final

from typing_extensions import override

from histories import codec
from histories.base import (
    ATTENDED_S,
    PAGE_BYTES,
    Attempt,
    Event,
    Feedback,
    HistoryMoved,
    OpenTurn,
    Page,
    Session,
    SessionBusy,
    SessionHistory,
    SessionNotFound,
    StoreUnavailable,
    Turn,
    TurnNotFound,
    TurnStatus,
    TurnTree,
)
from histories.cursors import parse_before
from histories.postgres import statements
from histories.postgres.begin import Beginning
from histories.postgres.driver import Row
from histories.postgres.events import read_events
from histories.postgres.restore import restore
from histories.postgres.rows import pack, session_from, turn_from, words_of
from histories.postgres.settle import settle
from histories.postgres.shared import REFUSALS, SessionName, Shared

_AFTER_ALL: Final = 2**62
_BATCH: Final = 200
_IS_LOST: Final = 1
"""The column of a turn that says that its owner is dead."""


class PostgresHistory(SessionHistory):
    """The history of one session, in PostgreSQL."""

    def __init__(self, shared: Shared, user_id: str, session_id: str) -> None:
        self.user_id, self.session_id = user_id, session_id
        self._shared, self._session = shared, SessionName(user_id, session_id)
        self.gate, self.key = shared.gate, self._session.key

    @override
    async def _begin(self, attempt: Attempt) -> OpenTurn | Turn:
        async def recorded() -> Turn:
            return await self.turn(attempt.new.turn_id)

        return await Beginning(self._shared, self._session, attempt, recorded).turn()

    @override
    async def _ask_stop(self) -> bool:
        found, runs = (await self._fetch(statements.STOP))[0]
        if not found:
            raise SessionNotFound
        return bool(runs)

    @override
    async def _attend(self, turn_id: str) -> None:
        server, life = self._shared.link().server_id, f"{ATTENDED_S}s"
        await self._fetch(statements.ATTEND, turn=pack(turn_id), server=server, life=life)

    @override
    async def _is_attended(self, attempt: Attempt) -> bool:
        return bool((await self._fetch(statements.ATTENDED, token=attempt.token))[0][0])

    @override
    def events(self, turn_id: str, *, after: int = -1) -> AsyncIterator[Sequence[Event]]:
        journal = self._shared.journals.get(self.key) if self.gate.runs(self.key, turn_id) else None
        if journal is not None:
            return journal.read(after)
        return read_events(self._shared.link(), self._session, turn_id, after)

    # The record.

    @override
    async def info(self) -> Session:
        rows = await self._fetch(statements.SESSION)
        if not rows:
            raise SessionNotFound
        return session_from(rows[0])

    @override
    async def turns(self, *, limit: int = 50, before: str | None = None) -> Page[Turn]:
        seq = _AFTER_ALL if before is None else parse_before(before)
        rows = await self._read(statements.TURNS, before=seq, limit=limit, bytes=PAGE_BYTES)
        more = bool(rows) and rows[0][-1] > len(rows)
        return Page([turn_from(row) for row in reversed(rows)], str(rows[-1][0]) if more else None)

    @override
    async def turn(self, turn_id: str, *, shown: bool = False) -> Turn:
        rows = await self._read(statements.TURN, turn=pack(turn_id), shown=shown)
        if not rows:
            raise SessionNotFound
        if rows[0][0] is None:
            raise TurnNotFound
        return turn_from(rows[0])

    @override
    async def tree(self) -> TurnTree:
        await self.info()
        rows, turns = list[Row](), list[Turn]()
        # What follows a turn that was read as running began later: the two would not go together.
        while not turns or turns[-1].status is not TurnStatus.RUNNING:
            some = await self._read(statements.TREE, after=rows[-1][0] if rows else 0, limit=_BATCH)
            rows += some
            turns += [turn_from(row) for row in some]
            if len(some) < _BATCH:
                break
        ids = {row[0]: turn.turn_id for row, turn in zip(rows, turns, strict=True)}
        shown = [turn.turn_id for row, turn in zip(rows, turns, strict=True) if row[-1]]
        return TurnTree(turns, [ids.get(row[-2], "") for row in rows], shown[-1] if shown else "")

    async def _read(self, statement: str, **params: object) -> list[Row]:
        """Rows of turns. What a dead owner left is settled first, so that what was heard of it is on the record."""
        rows = await self._fetch(statement, **params)
        if any(row[_IS_LOST] for row in rows):
            with suppress(StoreUnavailable):  # it may be read only: then it is told as it is
                await settle(self._shared.link().fetch, self._session)
                rows = await self._fetch(statement, **params)
        return rows

    async def _fetch(self, statement: str, **params: object) -> list[Row]:
        return await self._shared.link().fetch(statement, {**self._session.params, **params})

    # Changes of the record.

    @override
    async def rename(self, title: str) -> None:
        words = words_of(self.user_id, title)
        if not await self._fetch(statements.RENAME, title=pack(title), title_words=words):
            raise SessionNotFound

    @override
    async def feedback(self, turn_id: str, feedback: Feedback) -> None:
        stored = codec.dump(dict(feedback))
        found, given = (await self._fetch(statements.FEEDBACK, turn=pack(turn_id), feedback=stored))[0]
        if not given:
            raise TurnNotFound if found else SessionNotFound

    @override
    async def _rewind(self, turn_id: str, *, keep: bool, if_last: str | None) -> None:
        await self._while_idle(statements.REWIND, turn=pack(turn_id), if_last=_packed(if_last), keep=keep)

    @override
    async def _choose(self, turn_id: str, *, if_last: str | None) -> None:
        await self._while_idle(statements.CHOOSE, turn=pack(turn_id), if_last=_packed(if_last))

    @override
    async def _delete_turn(self, turn_id: str, *, if_last: str | None) -> None:
        await self._while_idle(statements.DELETE_TURN, turn=pack(turn_id), if_last=_packed(if_last))

    @override
    async def delete(self, *, if_updated_at: datetime | None = None) -> None:
        if if_updated_at is None:
            await self._while_idle(statements.DELETE_SESSION)
            return
        link, user = self._shared.link(), str(self._session.params["user"])
        async with self.gate.idle(self.key), link.connection(user) as conn, conn.transaction():
            row = await (await conn.execute(statements.LOCK_SESSION, self._session.params)).fetchone()
            if row is not None and row[0] != if_updated_at:
                raise HistoryMoved
            params = {**self._session.params, "server": self._shared.link().server_id}
            word = (await (await conn.execute(statements.DELETE_SESSION, params)).fetchall())[0][0]
            if word != "done":
                raise REFUSALS.get(word, SessionBusy)

    @override
    async def _fork(self, session_id: str, turn_id: str) -> None:
        await self._change(statements.FORK, "", turn=pack(turn_id), new=pack(session_id))

    @override
    def _sibling(self, session_id: str) -> PostgresHistory:
        return PostgresHistory(self._shared, self.user_id, session_id)

    @override
    async def _document(self, name: str) -> str | None:
        rows = await self._fetch(statements.DOCUMENT, name=name)
        return rows[0][0] if rows else None

    @override
    async def _set_document(self, name: str, text: str | None) -> None:
        if not await self._fetch(statements.SET_DOCUMENT, name=name, text=text):
            raise SessionNotFound

    async def _while_idle(self, statement: str, **params: object) -> None:
        """Changes the session while no turn of it can begin."""
        async with self.gate.idle(self.key):
            await self._change(statement, self._shared.link().server_id, **params)

    async def _change(self, statement: str, server_id: str, **params: object) -> None:
        while True:
            word = (await self._fetch(statement, server=server_id, **params))[0][0]
            if word == "done":
                return
            if word != "lost":
                raise REFUSALS[word]
            await settle(self._shared.link().fetch, self._session, server_id=server_id)

    @override
    async def _restore(self, tree: TurnTree, *, title: str, created_at: datetime) -> None:
        await restore(self._shared.link(), self._session, tree, title=title, created_at=created_at)


def _packed(turn_id: str | None) -> str | None:
    return None if turn_id is None else pack(turn_id)

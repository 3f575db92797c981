"""The history of one session in PostgreSQL: all but the way of a turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import psycopg
from typing_extensions import override

from histories import codec
from histories.base import (
    InvalidCursor,
    InvalidId,
    NewTurn,
    OpenTurn,
    Page,
    Session,
    SessionBusy,
    SessionExists,
    SessionHistory,
    SessionNotFound,
    Turn,
    TurnNotFound,
)
from histories.postgres import sql
from histories.postgres.rows import pack, said, searchable, session_from, turn_from, usage_to_json
from histories.postgres.turn import PostgresTurn

if TYPE_CHECKING:
    from histories.postgres.store import PostgresStore

_RESTORE_S: Final = 120.0
_AFTER_ALL: Final = 2**62


class PostgresHistory(SessionHistory):
    """The history of one session, in PostgreSQL."""

    def __init__(self, store: PostgresStore, user_id: str, session_id: str) -> None:
        self.user_id, self.session_id = user_id, session_id
        self._store, self._key = store, (user_id, session_id)
        self._where = {"user": pack(user_id), "session": pack(session_id)}

    @override
    async def begin(
        self,
        new: NewTurn,
        *,
        wait_s: float = 60.0,
        window_tokens: int = 0,
        on_stop: Callable[[], None] | None = None,
        if_last: str | None = None,
    ) -> OpenTurn | Turn:
        turn = PostgresTurn(self._store, self._key, new, on_stop)
        return await turn.begin(wait_s=wait_s, window_tokens=window_tokens)

    @override
    async def info(self) -> Session:
        rows = await self._store.link().fetch(sql.SESSION, self._where)
        if not rows:
            raise SessionNotFound
        return session_from(rows[0])

    @override
    async def turns(self, *, limit: int = 50, before: str | None = None) -> Page[Turn]:
        if before is not None and not (before.isascii() and before.isdigit() and len(before) < 16):
            raise InvalidCursor("Send `before` as the `next` of an earlier page.")
        seq = _AFTER_ALL if before is None else int(before)
        rows = await self._store.link().fetch(sql.TURNS, {**self._where, "before": seq, "limit": limit + 1})
        page = rows[:limit]
        return Page([turn_from(row) for row in reversed(page)], str(page[-1][0]) if len(rows) > limit else None)

    @override
    async def rename(self, title: str) -> None:
        params = {**self._where, "title": pack(title), "title_said": searchable(title)}
        if not await self._store.link().fetch(sql.RENAME, params):
            raise SessionNotFound

    @override
    async def rewind(self, turn_id: str, *, keep: bool = False, if_last: str | None = None) -> None:
        await self._while_idle(sql.REWIND, turn_id)

    @override
    async def delete(self) -> None:
        await self._while_idle(sql.DELETE, "")

    async def _while_idle(self, statement: str, turn_id: str) -> None:
        """Changes the session while no turn of it can begin."""
        link, queue = self._store.link(), self._store.queue_of(self._key)
        try:
            await self._store.wait_queue.enter(queue, 0)
        except TimeoutError:
            raise SessionBusy from None
        try:
            while True:
                params = {**self._where, "server": link.server_id, "turn": pack(turn_id), "next": uuid4().hex}
                found, found_turn, held, done = (await link.fetch(statement, params))[0]
                if not found:
                    raise SessionNotFound
                if not found_turn:
                    raise TurnNotFound
                if held:
                    raise SessionBusy
                if done:
                    return
        finally:
            self._store.wait_queue.leave(queue)

    @override
    async def fork(self, session_id: str, turn_id: str) -> None:
        params = {**self._where, "new": pack(session_id), "turn": pack(turn_id), "next": uuid4().hex}
        found, found_turn, over, made = (await self._store.link().fetch(sql.FORK, params))[0]
        if not found:
            raise SessionNotFound
        if not found_turn:
            raise TurnNotFound
        if not over:
            raise SessionBusy
        if not made:
            raise SessionExists

    @override
    async def restore(self, turns: Sequence[Turn], *, title: str, created_at: datetime) -> None:
        rows, tokens = [], 0
        for seq, turn in enumerate(turns, 1):
            adds = turn.tokens if turn.shown else 0
            rows.append(self._turn_row(turn, seq, adds, tokens))
            tokens += adds
        session = {
            **self._where,
            "title": pack(title),
            "title_said": searchable(title),
            "chain": pack(turns[-1].chain) if turns else "",
            "created_at": created_at,
            "updated_at": (turns[-1].ended_at if turns else None) or created_at,
            "turns": len(turns),
            "tokens": tokens,
            "next": uuid4().hex,
        }
        async with self._store.link().connection(limit_s=_RESTORE_S) as conn, conn.transaction():
            await conn.execute("SELECT set_config('statement_timeout', %s, true)", [f"{_RESTORE_S}s"])
            if await (await conn.execute(sql.RESTORE_SESSION, session)).fetchone() is None:
                raise SessionExists
            try:
                async with conn.cursor() as cursor, cursor.copy(sql.RESTORE_TURNS) as copy:
                    for row in rows:
                        await copy.write_row(row)
            except psycopg.errors.UniqueViolation:
                raise InvalidId("Two of these turns have the same turn_id.") from None

    def _turn_row(self, turn: Turn, seq: int, tokens: int, tokens_before: int) -> tuple[object, ...]:
        return (
            *self._where.values(),
            seq,
            pack(turn.turn_id),
            turn.status.value,
            pack(turn.chain),
            pack(turn.kind),
            turn.started_at,
            turn.ended_at,
            codec.dump_messages(turn.input),
            codec.dump_messages(turn.output),
            usage_to_json(turn.usage),
            tokens,
            tokens_before,
            said([*turn.input, *turn.output]),
        )

    @override
    async def stop(self) -> bool:
        running = self._store.running.get(self._key)
        if running is not None:
            if running[1] is not None:
                running[1]()
            return True
        found, runs = (await self._store.link().fetch(sql.STOP, self._where))[0]
        if not found:
            raise SessionNotFound
        return bool(runs)

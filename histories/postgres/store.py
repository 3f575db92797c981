"""Histories in PostgreSQL: the same guarantees for any number of servers.

Durable means what the server's own `synchronous_commit` means: with `on`, its default, a turn that was acknowledged
survives a power cut; on a replica, too, if `synchronous_standby_names` says so. See docs/postgres.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import suppress

from psycopg import AsyncConnection
from typing_extensions import override

from histories.base import (
    HistoryMoved,
    HistoryStore,
    Note,
    Page,
    Recalled,
    Session,
    SessionBusy,
    SessionHistory,
    StoreUnavailable,
)
from histories.postgres import statements
from histories.postgres.driver import connection_params, refusals
from histories.postgres.history import PostgresHistory
from histories.postgres.link import Link, LinkOptions
from histories.postgres.rows import cursor_after, notes_from, notes_to_json, pack, place_of, session_from, unpack
from histories.postgres.schema import migrate
from histories.postgres.search import Search
from histories.postgres.shared import Shared


class PostgresStore(HistoryStore):
    """Histories in the database that `url` names; its tables are made when it is first reached.

    Each event loop has at most `pool_size` connections, and one more. Times are in seconds: a request waits
    `pool_wait_s` for a free connection, a statement may take `statement_s`, a server that is silent for `lease_s` loses
    its sessions to others, and a reply is kept for `save_limit_s` when PostgreSQL is gone. Raises `ValueError` for
    what is no URL, and never shows any of it.
    """

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = 8,
        pool_wait_s: float = 5.0,
        statement_s: float = 10.0,
        lease_s: float = 4.0,
        save_limit_s: float = 10.0,
    ) -> None:
        self._options = LinkOptions(
            params=connection_params(url),
            pool_size=pool_size,
            pool_wait_s=pool_wait_s,
            statement_s=statement_s,
            lease_s=lease_s,
        )
        self._links: dict[asyncio.AbstractEventLoop, Link] = {}
        self._shared, self._search = Shared(self.link, save_limit_s), Search()

    def link(self) -> Link:
        """The connections of the running event loop."""
        loop = asyncio.get_running_loop()
        link = self._links.get(loop)
        if link is None:
            for gone in [known for known in list(self._links) if known.is_closed()]:
                self._links.pop(gone).abandon()
            link = self._links[loop] = Link(self._options)
        return link

    @override
    async def open(self) -> None:
        with suppress(StoreUnavailable):
            await self.link().alive()

    @override
    async def close(self) -> None:
        here = asyncio.get_running_loop()
        for loop, link in list(self._links.items()):
            del self._links[loop]
            if loop is here:
                await link.close()
            elif loop.is_running():
                await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(link.close(), loop))
            else:
                link.abandon()

    @override
    async def ping(self) -> None:
        await self.link().beat()

    @override
    def history(self, user_id: str, session_id: str) -> SessionHistory:
        return PostgresHistory(self._shared, user_id, session_id)

    @override
    async def sessions(
        self, user_id: str, *, limit: int = 50, cursor: str | None = None, query: str | None = None
    ) -> Page[Session]:
        if query and query.strip():
            return await self._search.sessions(self.link(), user_id, query, cursor, limit)
        at, session = place_of(cursor)
        params = {"user": pack(user_id), "at": at, "session": session, "limit": limit + 1}
        rows = await self.link().fetch(statements.SESSIONS, params)
        page = [session_from(row) for row in rows[:limit]]
        return Page(page, cursor_after(page[-1]) if len(rows) > limit else None)

    @override
    async def recall(
        self,
        user_id: str,
        query: str,
        *,
        session_id: str | None = None,
        exclude: Collection[tuple[str, str]] = (),
        limit: int = 8,
    ) -> list[Recalled]:
        return await self._search.recall(self.link(), user_id, query, session_id, exclude, limit)

    @override
    async def bytes_kept(self, user_id: str, session_id: str | None = None) -> int:
        params = {"user": pack(user_id), "session": None if session_id is None else pack(session_id)}
        return int((await self.link().fetch(statements.BYTES_KEPT, params))[0][0])

    @override
    async def notes(self, user_id: str) -> list[Note]:
        rows = await self.link().fetch(statements.NOTES, {"user": pack(user_id)})
        return notes_from(rows[0][0]) if rows else []

    @override
    async def set_notes(self, user_id: str, notes: Sequence[Note], *, if_notes: Sequence[Note] | None = None) -> None:
        params = {"user": pack(user_id), "notes": notes_to_json(notes)}
        if if_notes is None:
            await self.link().fetch(statements.SET_NOTES, params)
            return
        rows = await self.link().fetch(statements.NOTES, {"user": pack(user_id)})
        seen = {"seen": rows[0][0] if rows else None}
        if (notes_from(rows[0][0]) if rows else []) != list(if_notes) or not await self.link().fetch(
            statements.CHANGE_NOTES, {**params, **seen}
        ):
            raise HistoryMoved

    # Counters, for whoever limits what users may ask for: see api/counters.py.

    async def count(self, name: str, amount: int, life_s: int) -> tuple[int, float]:
        """Adds to a counter: its value, and the time at which it begins anew, `life_s` after it has begun."""
        params = {"name": pack(name), "amount": amount, "life": f"{life_s}s"}
        value, ends = (await self.link().fetch(statements.COUNT, params))[0]
        return value, ends

    async def counted(self, name: str) -> tuple[int, float] | None:
        """The same, without adding anything; None if it has not begun."""
        rows = await self.link().fetch(statements.COUNTED, {"name": pack(name)})
        return (rows[0][0], rows[0][1]) if rows else None

    @override
    async def users(self) -> AsyncIterator[str]:
        start = ""
        while rows := await self.link().fetch(statements.USERS, {"start": start}):
            for (stored,) in rows:
                yield unpack(stored)
            start = f"{rows[-1][0]}\1"  # the least text that is more: no text of PostgreSQL's has a NUL

    @override
    async def forget(self, user_id: str) -> None:
        if (await self.link().fetch(statements.FORGET, {"user": pack(user_id)}))[0][0]:
            raise SessionBusy


async def migrate_schema(url: str) -> list[int]:
    """Makes the tables, or brings them up to date; gives the numbers of the migrations that were applied.

    Servers do the same when they start; this is for those whose database user may not, and for many turns, since it
    takes the time that it takes. Raises `ValueError`, `StoreUnavailable`.
    """
    params = connection_params(url)
    with refusals():
        async with await AsyncConnection.connect(**params) as conn:
            return await migrate(conn)

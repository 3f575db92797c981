"""What one event loop has with PostgreSQL: a pool of connections, and one more on which its heart beats.

Connections are bound to an event loop, and the blocking twins of a history's methods have a loop of their own: so
each loop has a link, and each link is a server of its own to all others.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final
from uuid import uuid4

import psycopg
from psycopg import AsyncConnection
from psycopg.sql import SQL, Identifier
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from histories.base import HistoryError, StoreUnavailable
from histories.fair import FairSlots
from histories.postgres import statements
from histories.postgres.driver import Ask, Connection, Params, Row, cut_after, fetch, name_of, refusals, refuse_broken
from histories.postgres.schema import migrate

log = logging.getLogger("recollect.histories")

Call = Callable[[], object]
Chore = Callable[[Ask], Awaitable[None]]

_ASK_S: Final = 0.5
"""How long a request waits at least for a connection: no longer, if PostgreSQL can't be reached at all."""
_RECONNECT_S: Final = (0.1, 1.0)
_TIDY_EVERY: Final = 60
"""Heartbeats between two searches for what dead servers left behind."""
_MIGRATE_S: Final = 600.0
_CALL_S: Final = 3.0
"""How long the server's call to itself may take at its start: less than a lease, for no heart beats meanwhile."""
_SEARCHES: Final = 2
"""How many connections searches may have at once, and recalls: the rest of the pool is for turns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkOptions:
    """How to reach the server, and all bounds, in seconds. The parameters may hold a password: they are not shown."""

    params: dict[str, Any] = field(repr=False)
    pool_size: int
    pool_wait_s: float
    statement_s: float
    lease_s: float


class Link:
    """A server of Recollect, as PostgreSQL and other servers see it: `server_id`, alive while its heart beats."""

    def __init__(self, options: LinkOptions) -> None:
        self.server_id = uuid4().hex
        self.searches, self.recalls = asyncio.Semaphore(_SEARCHES), asyncio.Semaphore(_SEARCHES)
        self._calls = defaultdict[str, list[Call]](list)
        self._options, self._slots = options, FairSlots(options.pool_size)
        self._pool = AsyncConnectionPool(
            kwargs=options.params,
            min_size=0,
            max_size=options.pool_size,
            open=False,
            configure=self._configure,
            check=refuse_broken,
            max_idle=60.0,
            reconnect_timeout=1.0,
            name="recollect",
        )
        self._ready = False
        self._starting = asyncio.Lock()
        self._keeper: asyncio.Task[None] | None = None
        self._keeper_conn: Connection | None = None
        self._beaten_at = float("-inf")
        self._tried = asyncio.Event()
        self._down = self._is_checked = False
        self._chores = deque[Chore]()

    @property
    def idle(self) -> int:
        """How many of the pool's connections are not at work."""
        return self._pool.get_stats().get("pool_available", 0)

    def listen(self, name: str, call: Call) -> None:
        """Does `call` when another server calls this one: `stop:`, `free:` or `events:` and the token of an attempt."""
        self._calls[name].append(call)

    def unlisten(self, name: str, call: Call) -> None:
        """No longer."""
        with suppress(ValueError):
            self._calls[name].remove(call)
        if not self._calls[name]:
            del self._calls[name]

    async def fetch(self, statement: str, params: Params, *, prepare: bool = True) -> list[Row]:
        """The rows of one statement: one round trip, and a transaction of its own."""
        async with self.connection(_user_of(params)) as conn:
            return await fetch(conn, statement, params, prepare=prepare)

    @asynccontextmanager
    async def connection(self, user: str = "", *, limit_s: float | None = None) -> AsyncIterator[Connection]:
        """A connection, for as long as it is needed; whatever goes wrong with it is a `StoreUnavailable`.

        Who has to wait for one does so in turn between users; "" is the store itself.
        """
        await self._start()
        if not self._slots.take_at_once():
            with refusals():
                await self._wait(user)
        try:
            async with self._borrowed(limit_s or self._options.statement_s) as conn:
                yield conn
        finally:
            self._slots.release()

    async def _wait(self, user: str) -> None:
        """For a slot. Raises `PoolTimeout` after as long as for a connection."""
        loop = asyncio.get_running_loop()
        deadline, place = loop.time() + self._options.pool_wait_s, self._slots.ask(user)
        try:
            while not (await asyncio.wait([place], timeout=min(_ASK_S, max(0.001, deadline - loop.time()))))[0]:
                if self._down or loop.time() >= deadline:
                    raise PoolTimeout
        except BaseException:
            self._slots.give_up(place)
            raise

    @asynccontextmanager
    async def _borrowed(self, limit_s: float) -> AsyncIterator[Connection]:
        with refusals():
            conn = await self._get()
            try:
                with cut_after(conn, limit_s + 2):
                    yield conn
            except psycopg.errors.ReadOnlySqlTransaction:  # a primary no longer: another one may be
                await conn.close()
                raise
            finally:
                await self._pool.putconn(conn)

    async def _get(self) -> Connection:
        """A connection of the pool. Asks again and again, for only when asked does the pool try to connect."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._options.pool_wait_s
        while True:
            try:
                return await self._pool.getconn(min(_ASK_S, max(0.001, deadline - loop.time())))
            except PoolTimeout:
                if self._down or loop.time() >= deadline:
                    raise

    async def _start(self) -> None:
        if self._ready:
            return
        async with self._starting:
            if self._keeper is None:
                await self._pool.open()
                self._keeper = asyncio.create_task(self._keep(), name="recollect-postgres")
            await self._tried.wait()  # it may be down
            if not self._ready:
                async with self._borrowed(_MIGRATE_S) as conn:
                    applied = await migrate(conn)
                if applied:
                    log.info("PostgreSQL: applied migrations %s", applied)
                self._ready = True

    async def _configure(self, conn: Connection) -> None:
        await conn.execute(statements.CONFIGURE, [f"{self._options.statement_s}s"] * 2)

    async def close(self) -> None:
        """Lets go of all connections; what this server still held is free at once."""
        if self._keeper is None:
            return
        self._keeper.cancel()
        await asyncio.wait([self._keeper])
        if self._ready and not self._down:
            with suppress(StoreUnavailable):
                await self._settle_chores_and_leave()
        await self._pool.close()

    async def _settle_chores_and_leave(self) -> None:
        async with self._borrowed(self._options.statement_s) as conn:
            await self._do_chores(conn)
            await fetch(conn, statements.LEAVE_SERVERS, {"server": self.server_id})

    def abandon(self) -> None:
        """Drops the connections of a link whose event loop is gone."""
        if self._keeper_conn is not None:
            self._keeper_conn.pgconn.finish()

    async def beat(self) -> None:
        """Tells other servers that this one lives; returns when they can know."""
        async with self.connection() as conn:
            await self._beat(conn)

    async def alive(self) -> None:
        """The same, if it has not been told for some time."""
        if asyncio.get_running_loop().time() - self._beaten_at > self._options.lease_s / 2:
            await self.beat()

    def later(self, chore: Chore) -> None:
        """Sees to it that this is done as soon as PostgreSQL can be reached."""
        self._chores.append(chore)

    async def _keep(self) -> None:
        """Beats, listens, and does the chores, for as long as the link is open."""
        pause = _RECONNECT_S[0]
        while True:
            try:
                async with await AsyncConnection.connect(**self._options.params) as conn:
                    if self._keeper_conn is not None:  # what was connected when it broke is broken, too
                        await self._pool.drain()
                    self._keeper_conn, self._down, pause = conn, False, _RECONNECT_S[0]
                    self._tried.set()
                    await self._configure(conn)
                    await conn.execute(SQL("LISTEN {}").format(Identifier(f"recollect_{self.server_id}")))
                    await self._check_calls(conn)
                    await self._keep_beating(conn)
            except (psycopg.Error, OSError) as error:
                if not self._down:
                    log.warning("PostgreSQL can't be reached (%s)", name_of(error))
                self._down = isinstance(error, psycopg.OperationalError)
            self._tried.set()
            await asyncio.sleep(pause)
            pause = min(pause * 2, _RECONNECT_S[1])

    async def _check_calls(self, conn: Connection) -> None:
        """Calls itself, from another connection: a pooler that lends connections for a transaction hears nothing."""
        if self._is_checked:
            return
        async with await AsyncConnection.connect(**self._options.params) as other:
            await other.execute("SELECT pg_notify(%s, 'hello')", [f"recollect_{self.server_id}"])
        async for notice in conn.notifies(timeout=_CALL_S, stop_after=1):
            self._is_checked = True
            self._call(notice.payload)
        if not self._is_checked:
            self._is_checked = True
            log.error(
                "PostgreSQL's notifications do not arrive: turns of one session will wait for each other longer than "
                "they have to, and prepared statements may fail. If this is PgBouncer, let it pool by session "
                "(pool_mode = session), not by transaction."
            )

    async def _keep_beating(self, conn: Connection) -> None:
        beats = 0
        while True:
            if self._ready:
                with cut_after(conn, self._options.lease_s):
                    await self._beat(conn)
                    await self._do_chores(conn)
                    if beats % _TIDY_EVERY == 0:
                        await fetch(conn, statements.TIDY, {})
                beats += 1
            async for notice in conn.notifies(timeout=self._options.lease_s / 4):
                self._call(notice.payload)

    async def _beat(self, conn: Connection) -> None:
        at = asyncio.get_running_loop().time()
        lease = f"{self._options.lease_s}s"
        for (token,) in await fetch(conn, statements.BEAT, {"server": self.server_id, "lease": lease}):
            self._call(f"stop:{token}")
        self._beaten_at = at

    def _call(self, name: str) -> None:
        for call in self._calls.get(name, ()):
            asyncio.get_running_loop().call_soon(call)

    async def _do_chores(self, conn: Connection) -> None:
        while self._chores:
            try:
                await self._chores[0](partial(fetch, conn))
            except psycopg.OperationalError:
                raise
            except (psycopg.Error, HistoryError) as error:  # nothing gets better by doing it again
                log.warning("PostgreSQL refused to settle a turn (%s)", name_of(error))
            self._chores.popleft()


def _user_of(params: Params) -> str:
    """Who asks: a user, or whoever a counter is of."""
    return str(params.get("user") or params.get("name") or "")

"""Histories in Redis 6.2 or later, in Valkey, and in clusters of either: one store for any number of servers.

How durable a turn is, is up to the Redis server: see docs/redis.md. What is kept where: see scripts.py.
"""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from redis.asyncio import Redis
from redis.asyncio.connection import parse_url
from typing_extensions import override

from histories.base import (
    Gate,
    HistoryMoved,
    HistoryStore,
    Note,
    Page,
    Recalled,
    Session,
    SessionBusy,
    SessionHistory,
    SessionNotFound,
    StoreUnavailable,
)
from histories.cursors import cursor_of, parse_cursor
from histories.redis.history import RedisHistory
from histories.redis.link import log, warnings
from histories.redis.peer import Peer
from histories.redis.records import Keys, UserKeys, dump_notes, read_entry, read_notes
from histories.redis.scripts import COUNT, ENTRIES, NOTES
from histories.redis.texts import Texts
from histories.search import words

_SAMPLES: Final = 200
"""Of so many fields of a session Redis looks at the size, for what it keeps: of the five that it looks at by itself,
one long reply may be left out, or be taken for all."""

_BATCH: Final = 100
_SEARCH_S: Final = 1.0
"""How long a search looks for a page of sessions: then it gives what it has, and where to go on."""

Place = tuple[int, str]
"""Where a session stands in the list of its user's: the time of its last change in microseconds, its id."""


class RedisStore(HistoryStore):
    """Histories in Redis. `url` is `redis://` or `rediss://`; the server may be one, or any node of a cluster.

    All keys begin with "recollect", or with the `?namespace=` of the URL: stores of different namespaces share a
    server, and nothing else. The end of a turn that can't be saved is kept and sent again for `save_limit_s` seconds.
    """

    def __init__(self, url: str, *, save_limit_s: float = 10.0) -> None:
        try:
            self._url, self.namespace = _parted(url)
            place = parse_url(self._url)
        except ValueError:
            raise ValueError(
                "The Redis URL can't be read. Write redis://user:password@host:port/0 (or rediss:// for TLS), with "
                "what is not a letter or a digit in the password percent-encoded. A namespace is of letters and digits."
            ) from None  # what it quotes may be a part of the password
        self._name = f"{place.get('host', 'localhost')}:{place.get('port', 6379)}"
        self.gate = Gate()
        self._save_limit_s = save_limit_s
        self._peers: dict[asyncio.AbstractEventLoop, Peer] = {}
        self._peers_lock = threading.Lock()
        self._has_warned = False
        self._texts = Texts()

    def __repr__(self) -> str:
        return f"RedisStore({self._name})"

    def peer(self) -> Peer:
        """What the running event loop has to do with Redis: connections and futures can't be used on another."""
        loop = asyncio.get_running_loop()
        with self._peers_lock:
            if loop not in self._peers:
                self._peers = {other: peer for other, peer in self._peers.items() if not other.is_closed()}
                self._peers[loop] = Peer(self._url, self.namespace, on_connect=self._warn)
            return self._peers[loop]

    @override
    async def open(self) -> None:
        with suppress(StoreUnavailable):
            await self.ping()

    @override
    async def close(self) -> None:
        with self._peers_lock:
            peers, self._peers = self._peers, {}
        for loop, peer in peers.items():
            if loop is asyncio.get_running_loop():
                await peer.close()
            elif loop.is_running():
                await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(peer.close(), loop))

    async def _warn(self, client: Redis) -> None:
        """Warns, once, of a server that would forget."""
        if not self._has_warned:
            self._has_warned = True
            for warning in await warnings(client):
                log.warning("Redis at %s %s", self._name, warning)

    @override
    async def ping(self) -> None:
        peer = self.peer()
        await peer.link.command("SET", f"{peer.channel}:probe", 1, "PX", 1000)
        await peer.look()

    @override
    def history(self, user_id: str, session_id: str) -> SessionHistory:
        return self._history(user_id, session_id)

    def _history(self, user_id: str, session_id: str) -> RedisHistory:
        return RedisHistory(self.peer, self.gate, self.namespace, user_id, session_id, save_limit_s=self._save_limit_s)

    @override
    async def sessions(
        self, user_id: str, *, limit: int = 50, cursor: str | None = None, query: str | None = None
    ) -> Page[Session]:
        place = None if cursor is None else parse_cursor(cursor)
        if query and query.strip():
            return await self._search(user_id, query, limit, place)
        found: list[tuple[Place, Session]] = []
        async for entry in self._entries(user_id, place, limit + 1):
            if len(found) == limit:
                return Page([session for _, session in found], cursor_of(*found[-1][0]))
            found.append(entry)
        return Page([session for _, session in found])

    async def _search(self, user_id: str, query: str, limit: int, place: Place | None) -> Page[Session]:
        """Looks through sessions from the newest on, until the page is full or its time is up.

        A session that is too long for that is where the next page goes on: more of it has been read then.
        """
        loop, found = asyncio.get_running_loop(), list[Session]()
        until = loop.time() + _SEARCH_S
        last = place
        async for at, session in self._entries(user_id, place, _BATCH):
            try:
                hits = await self._texts.find(self._history(user_id, session.session_id), session, query, until)
            except TimeoutError:
                return Page(found, cursor_of(*(last or (at[0] + 1, ""))))
            if hits is not None and len(found) == limit:
                return Page(found, cursor_of(*(last or at)))
            if hits is not None:
                found.append(replace(session, hits=hits))
            last = at
            if loop.time() > until:
                return Page(found, cursor_of(*at))
        return Page(found)

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
        if not words(query):
            return []
        if session_id is not None:
            with suppress(SessionNotFound):
                history = self._history(user_id, session_id)
                return await self._texts.recall_in(history, await history.info(), query, exclude, limit)
            return []
        entries = [session async for _, session in self._entries(user_id, None, _BATCH)]
        histories = [(self._history(user_id, session.session_id), session) for session in entries]
        return await self._texts.recall(histories, query, exclude, limit)

    @override
    async def bytes_kept(self, user_id: str, session_id: str | None = None) -> int:
        names = [session_id] if session_id is not None else await self._names(user_id)
        link, total = self.peer().link, 0
        for start in range(0, len(names), _BATCH):
            keys = [Keys(self.namespace, user_id, name).session for name in names[start : start + _BATCH]]
            sizes = await asyncio.gather(*(link.command("MEMORY USAGE", key, "SAMPLES", _SAMPLES) for key in keys))
            total += sum(size or 0 for size in sizes)
        return total

    async def _names(self, user_id: str) -> list[str]:
        names: list[str] = await self.peer().link.command("ZRANGE", UserKeys(self.namespace, user_id).sessions, 0, -1)
        return names

    @override
    async def notes(self, user_id: str) -> list[Note]:
        return read_notes(await self.peer().link.command("GET", UserKeys(self.namespace, user_id).notes))

    @override
    async def set_notes(self, user_id: str, notes: Sequence[Note], *, if_notes: Sequence[Note] | None = None) -> None:
        peer, key = self.peer(), UserKeys(self.namespace, user_id).notes
        peer.check()
        if if_notes is None:
            await peer.link.command("SET", key, dump_notes(notes))
            return
        before, after = await peer.link.command("GET", key), dump_notes(notes)
        if read_notes(before) != list(if_notes) or not await peer.link.run(NOTES, [key], before or "", after):
            raise HistoryMoved

    # Counters, for whoever limits what users may ask for: see api/counters.py.

    async def count(self, name: str, amount: int, life_s: int) -> tuple[int, float]:
        """Adds to a counter: its value, and the time at which it begins anew, `life_s` after it has begun."""
        value, ends = await self.peer().link.run(COUNT, [self._counter(name)], amount, life_s)
        return value, ends

    async def counted(self, name: str) -> tuple[int, float] | None:
        """The same, without adding anything; None if it has not begun."""
        link, key = self.peer().link, self._counter(name)
        value, left_ms = await link.command("GET", key), await link.command("PTTL", key)
        return None if value is None or left_ms < 0 else (int(value), time.time() + left_ms / 1000)

    def _counter(self, name: str) -> str:
        return f"{self.namespace}:rates:{name}"

    async def _entries(self, user_id: str, place: Place | None, batch: int) -> AsyncIterator[tuple[Place, Session]]:
        """The user's sessions after a place in the list, newest first, a batch for every two round trips."""
        link, key, offset = self.peer().link, UserKeys(self.namespace, user_id).sessions, 0
        while True:
            top = "+inf" if place is None else place[0]
            args = (key, top, "-inf", "WITHSCORES", "LIMIT", offset, batch)
            flat: list[str] = await link.command("ZREVRANGEBYSCORE", *args)
            places = [(int(float(time)), name) for name, time in zip(flat[::2], flat[1::2], strict=True)]
            after = [p for p in places if place is None or p < place]
            if after:
                keys = [Keys(self.namespace, user_id, name).session for _, name in after]
                for at, fields in zip(after, await link.run(ENTRIES, keys), strict=True):
                    if fields[0] is not None:  # deleted in this moment
                        yield at, read_entry(at[1], fields)
            if len(places) < batch:
                return
            # Sessions of one and the same microsecond are passed by one batch after the other.
            place, offset = (after[-1], 0) if after else (place, offset + batch)

    @override
    async def users(self) -> AsyncIterator[str]:
        seen: set[str] = set()  # a server that rearranges its keys tells some of them twice
        async for key in self.peer().link.sets(UserKeys.pattern(self.namespace)):
            user = UserKeys.user_of(key)
            if user is not None and user not in seen:
                seen.add(user)
                yield user

    @override
    async def forget(self, user_id: str) -> None:
        busy: SessionBusy | None = None
        await self.peer().link.command("DEL", UserKeys(self.namespace, user_id).notes)
        async for _, session in self._entries(user_id, None, _BATCH):
            try:
                await self.history(user_id, session.session_id).delete()
            except SessionBusy as error:
                busy = error
            except SessionNotFound:
                continue
        if busy is not None:
            raise busy


def _parted(url: str) -> tuple[str, str]:
    """The URL as the driver knows it, and the namespace, which it does not know."""
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    namespace = options.pop("namespace", "recollect")
    if not re.fullmatch("[A-Za-z0-9_-]+", namespace):
        raise ValueError
    return urlunsplit(parts._replace(query=urlencode(options))), namespace

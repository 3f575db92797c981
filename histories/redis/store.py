"""Histories in Redis 6.2 or later, in Valkey, and in clusters of either: one store for any number of servers.

How durable a turn is, is up to the Redis server: see docs/redis.md. What is kept where: see scripts.py.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit
from uuid import uuid4

from redis.asyncio import Redis
from redis.asyncio.connection import parse_url
from typing_extensions import override

from histories import codec
from histories.base import (
    HistoryStore,
    InvalidCursor,
    NewTurn,
    OpenTurn,
    Page,
    Session,
    SessionBusy,
    SessionExists,
    SessionHistory,
    SessionNotFound,
    StoreUnavailable,
    Turn,
    TurnNotFound,
    TurnStatus,
    now,
)
from histories.redis.link import Link, log, warnings
from histories.redis.records import Keys, UserKeys, fields_of, read_entry, read_turn, settled, to_micros
from histories.redis.scripts import ADOPT, DELETE, ENTRIES, RENAME, REWIND, STAGE, STOP, TURNS
from histories.redis.turn import RedisTurn, begin_turn
from histories.waiting import WaitQueue

_BATCH: Final = 100
_STAGE_BYTES: Final = 250_000
_STAGE_MS: Final = 600_000
_NEWEST: Final = 10**15
"""Above the number of any turn."""

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
        self.save_limit_s, self.wait_queue = save_limit_s, WaitQueue()
        self.running: dict[str, tuple[str, Callable[[], None] | None]] = {}
        """The turns that run in this process: key of the session -> turn_id, how to stop it."""
        self._links: dict[asyncio.AbstractEventLoop, Link] = {}
        self._links_lock = threading.Lock()
        self._looked = False

    def __repr__(self) -> str:
        return f"RedisStore({self._name})"

    def link(self) -> Link:
        """The client of the running event loop: neither connections nor futures can be used on another."""
        loop = asyncio.get_running_loop()
        with self._links_lock:
            if loop not in self._links:
                self._links = {other: link for other, link in self._links.items() if not other.is_closed()}
                self._links[loop] = Link(self._url, self.namespace, on_connect=self._look)
            return self._links[loop]

    @override
    async def open(self) -> None:
        with suppress(StoreUnavailable):
            await self.ping()

    @override
    async def close(self) -> None:
        with self._links_lock:
            links, self._links = self._links, {}
        for loop, link in links.items():
            if loop is asyncio.get_running_loop():
                await link.close()
            elif loop.is_running():
                await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(link.close(), loop))

    async def _look(self, client: Redis) -> None:
        """Warns, once, of a server that would forget."""
        if not self._looked:
            self._looked = True
            for warning in await warnings(client):
                log.warning("Redis at %s %s", self._name, warning)

    @override
    async def ping(self) -> None:
        link = self.link()
        await link.command("SET", f"{link.channel}:probe", 1, "PX", 1000)

    @override
    def history(self, user_id: str, session_id: str) -> SessionHistory:
        return RedisHistory(self, user_id, session_id)

    @override
    async def sessions(
        self, user_id: str, *, limit: int = 50, cursor: str | None = None, query: str | None = None
    ) -> Page[Session]:
        place = None if cursor is None else _place_of(cursor)
        needle = query.casefold() if query and query.strip() else None
        found: list[Session] = []
        last: Place = (0, "")
        async for at, session in self._entries(user_id, place, limit + 1 if needle is None else _BATCH):
            if needle is None or await self._says(user_id, session, needle):
                if len(found) == limit:
                    return Page(found, f"{last[0]}~{last[1]}")
                found.append(session)
                last = at
        return Page(found)

    async def _entries(self, user_id: str, place: Place | None, batch: int) -> AsyncIterator[tuple[Place, Session]]:
        """The user's sessions after a place in the list, newest first, a batch for every two round trips."""
        link, key, offset = self.link(), UserKeys(self.namespace, user_id).sessions, 0
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

    async def _says(self, user_id: str, session: Session, needle: str) -> bool:
        if needle in session.title.casefold():
            return True
        history, before = self.history(user_id, session.session_id), None
        while True:
            page = await history.turns(limit=_BATCH, before=before)
            if any(needle in codec.text_of([*turn.input, *turn.output]).casefold() for turn in page.items):
                return True
            before = page.next
            if before is None:
                return False

    @override
    async def users(self) -> AsyncIterator[str]:
        seen: set[str] = set()  # a server that rearranges its keys tells some of them twice
        async for key in self.link().sets(UserKeys.pattern(self.namespace)):
            user = UserKeys.user_of(key)
            if user is not None and user not in seen:
                seen.add(user)
                yield user

    @override
    async def forget(self, user_id: str) -> None:
        busy: SessionBusy | None = None
        async for _, session in self._entries(user_id, None, _BATCH):
            try:
                await self.history(user_id, session.session_id).delete()
            except SessionBusy as error:
                busy = error
            except SessionNotFound:
                continue
        if busy is not None:
            raise busy


class RedisHistory(SessionHistory):
    """The history of one session, in Redis."""

    def __init__(self, store: RedisStore, user_id: str, session_id: str) -> None:
        self.user_id, self.session_id = user_id, session_id
        self._store, self._keys = store, Keys(store.namespace, user_id, session_id)

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
        turn = RedisTurn(self._store, self._store.link(), self._keys, self.session_id, new, window_tokens, on_stop)
        return await begin_turn(turn, wait_s=wait_s)

    @override
    async def info(self) -> Session:
        (fields,) = await self._store.link().run(ENTRIES, [self._keys.session])
        if fields[0] is None:
            raise SessionNotFound
        return read_entry(self.session_id, fields)

    @override
    async def turns(self, *, limit: int = 50, before: str | None = None) -> Page[Turn]:
        if before is not None and not (before.isascii() and before.isdigit() and len(before) < 16):
            raise InvalidCursor("Send `before` as the `next` of an earlier page.")
        return await self._page(limit, _NEWEST if before is None else int(before))

    async def _page(self, limit: int, before: int) -> Page[Turn]:
        keys = [self._keys.session, self._keys.lease]
        running, older, *flat = await self._store.link().run(TURNS, keys, limit, before)
        records = zip(flat[::3], flat[1::3], flat[2::3], strict=True)
        turns = [read_turn(begun, ended, running=number == running) for number, begun, ended in records]
        return Page(turns[::-1], str(older) if older else None)

    @override
    async def rename(self, title: str) -> None:
        keys = [self._keys.session, self._keys.sessions]
        if not await self._store.link().run(RENAME, keys, json.dumps(title), self.session_id, to_micros(now())):
            raise SessionNotFound

    @override
    async def rewind(self, turn_id: str, *, keep: bool = False, if_last: str | None = None) -> None:
        args = (json.dumps(turn_id), self.session_id, to_micros(now()))
        _done(await self._store.link().run(REWIND, self._keys.idle, *args))

    @override
    async def delete(self) -> None:
        _done(await self._store.link().run(DELETE, self._keys.idle, self.session_id))

    @override
    async def fork(self, session_id: str, turn_id: str) -> None:
        title = (await self.info()).title
        number = await self._store.link().command("HGET", self._keys.session, f"i{json.dumps(turn_id)}")
        if number is None:
            raise TurnNotFound
        turns: list[Turn] = []
        before = int(number) + 1
        while before:
            page = await self._page(_BATCH, before)
            turns = [*page.items, *turns]
            before = int(page.next or 0)
        if not turns or turns[-1].turn_id != turn_id:  # rewound in this moment
            raise TurnNotFound
        if turns[-1].status is TurnStatus.RUNNING:
            raise SessionBusy
        await self._store.history(self.user_id, session_id).restore(turns, title=title, created_at=now())

    @override
    async def restore(self, turns: Sequence[Turn], *, title: str, created_at: datetime) -> None:
        link, token = self._store.link(), uuid4().hex
        if await link.command("EXISTS", self._keys.session):
            raise SessionExists
        new = self._keys.imported(token)
        turns = [settled(turn) for turn in turns]
        updated = to_micros(max([created_at, *(turn.ended_at or turn.started_at for turn in turns[-1:])]))
        fields: list[object] = ["title", json.dumps(title), "created", to_micros(created_at), "updated", updated]
        fields += ["turns", len(turns), "last", len(turns), "tokens", sum(turn.tokens for turn in turns)]
        fields += ["chain", json.dumps(turns[-1].chain if turns else ""), "made", token]
        window: list[object] = []
        size = tokens = 0
        for number, turn in enumerate(turns, 1):
            records = fields_of(number, turn)
            size += sum(len(str(part)) for part in records)
            fields += records
            if turn.shown:
                window += [tokens, f"{number:012d}"]
                tokens += turn.tokens
            if size > _STAGE_BYTES:
                await link.run(STAGE, new, _STAGE_MS, len(fields), *fields, *window)
                size, fields, window = 0, [], []
        await link.run(STAGE, new, _STAGE_MS, len(fields), *fields, *window)
        keys = [self._keys.session, self._keys.window, self._keys.sessions, *new]
        if not await link.run(ADOPT, keys, token, self.session_id, updated):
            raise SessionExists

    @override
    async def stop(self) -> bool:
        running = self._store.running.get(self._keys.session)
        if running is not None:
            if running[1] is not None:
                running[1]()
            return True
        asked = await self._store.link().run(STOP, [self._keys.session, self._keys.lease])
        if asked < 0:
            raise SessionNotFound
        return bool(asked)


def _parted(url: str) -> tuple[str, str]:
    """The URL as the driver knows it, and the namespace, which it does not know."""
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    namespace = options.pop("namespace", "recollect")
    if not re.fullmatch("[A-Za-z0-9_-]+", namespace):
        raise ValueError
    return urlunsplit(parts._replace(query=urlencode(options))), namespace


def _place_of(cursor: str) -> Place:
    time, tilde, name = cursor.partition("~")
    if not tilde or not (time.removeprefix("-").isdecimal() and time.isascii() and len(time) < 20):
        raise InvalidCursor("Send `cursor` as the `next` of an earlier page.")
    return int(time), name


def _done(answer: str) -> None:
    if answer == "absent":
        raise SessionNotFound
    if answer == "missing":
        raise TurnNotFound
    if answer == "busy":
        raise SessionBusy

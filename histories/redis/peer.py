"""This process among those that share a Redis: the heartbeats of its turns and waiters, and what others tell it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final
from uuid import uuid4

from redis.asyncio import Redis
from redis.asyncio.client import PubSub

from histories.base import StoreUnavailable
from histories.redis.link import FAILURES, LEASE_S, Client, Link, end_tasks
from histories.redis.scripts import QUEUE_BEAT, RENEW

log = logging.getLogger("recollect.histories")

BEAT_S: Final = 1.0
LEASE_MS: Final = round(LEASE_S * 1000)
_BEATS_AT_ONCE: Final = 8
_LOOK_S: Final = 5.0
"""How often a server is asked whether it evicts keys: somebody may change that while it runs."""


@dataclass(slots=True)
class Held:
    """A turn that runs here, as its heartbeat knows it. `stop` asks it to stop; False while it can't be asked yet."""

    token: str
    session: str
    lease: str
    stop: Callable[[], bool]
    is_told: bool = False

    def tell(self) -> None:
        """It is to run no longer, or is not ours any more: either way the model need not go on."""
        if not self.is_told:
            self.is_told = self.stop()


@dataclass(slots=True)
class Waiter:
    """Who waits here for a session: `called` is set when it is time to try to begin."""

    token: str
    lease: str
    queue: str
    called: asyncio.Event = field(default_factory=asyncio.Event)

    def due(self, ms: int) -> None:
        """In so many milliseconds it will be time, if nobody calls before and the next heartbeat is later."""
        if ms <= BEAT_S * 1000:
            asyncio.get_running_loop().call_later(ms / 1000, self.called.set)


class Peer:
    """What one event loop of this process has to do with Redis."""

    def __init__(self, url: str, namespace: str, *, on_connect: Callable[[Redis], Awaitable[None]]) -> None:
        self.namespace = namespace
        self.channel = f"{namespace}:server:{uuid4().hex}"
        self.held: dict[str, Held] = {}
        self.waiters: dict[str, Waiter] = {}
        self.link = Link(url, on_connect=on_connect, on_first=self._start)
        self._readers: dict[str, set[asyncio.Event]] = {}
        self._subscription: PubSub | None = None
        self._lanes = asyncio.Semaphore(_BEATS_AT_ONCE)
        self._forgets_by: str | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._is_closed = False

    def _start(self) -> None:
        if not self._tasks and not self._is_closed:
            work = (self._listen(), self._beat(), self._look_again_and_again())
            self._tasks = [self.link.loop.create_task(each) for each in work]

    async def close(self) -> None:
        """Lets go of the connections and tasks; to be called on the event loop that it was made on."""
        self._is_closed = True
        await end_tasks(self._tasks)
        await self.link.close()

    # Whether Redis keeps what it is given.

    async def look(self) -> None:
        """Raises `StoreUnavailable` if Redis would evict histories."""
        self._forgets_by = await self.link.forgets_by()
        self.check()

    def check(self) -> None:
        """The same, by what is known."""
        if self._forgets_by is not None:
            raise StoreUnavailable(
                f"The history store forgets when its memory is full ({self._forgets_by}), so nothing is written to it. "
                "Set `maxmemory-policy noeviction` in Redis."
            )

    async def _look_again_and_again(self) -> None:
        while True:
            try:
                await self.look()
            except StoreUnavailable as error:
                log.debug("Redis is not ready: %s", error)
            await asyncio.sleep(_LOOK_S)

    # Messages.

    def events_channel(self, token: str) -> str:
        """Where the readers of a turn's journal hear of more."""
        return f"{self.namespace}:events:{token}"

    @asynccontextmanager
    async def listening(self, token: str) -> AsyncIterator[asyncio.Event]:
        """An event that is set when the journal of that attempt has more, or ends."""
        news, readers = asyncio.Event(), self._readers.setdefault(token, set())
        readers.add(news)
        try:
            if len(readers) == 1 and self._subscription is not None:
                with suppress(*FAILURES):
                    await self._subscription.subscribe(self.events_channel(token))
            yield news
        finally:
            readers.discard(news)
            if not readers and self._readers.pop(token, None) is not None and self._subscription is not None:
                with suppress(*FAILURES, AttributeError):  # the driver's, when the store is closed at the same time
                    await self._subscription.unsubscribe(self.events_channel(token))

    async def _listen(self) -> None:
        """Hears, for all turns, waiters and readers of this process, of freed sessions, of stops, and of events."""
        pause, loop = BEAT_S / 4, self.link.loop
        while True:
            started = loop.time()
            try:
                await self._hear(await self.link.client())
            except FAILURES as error:
                log.debug("The subscription broke, and is made again: %s", type(error).__name__)
            except Exception:
                log.exception("The subscription failed, and is made again.")
            pause = BEAT_S / 2 if loop.time() - started > LEASE_S else min(pause * 2, LEASE_S)
            await asyncio.sleep(pause)

    async def _hear(self, client: Client) -> None:
        pubsub = client.pubsub()
        try:
            await pubsub.subscribe(self.channel, *map(self.events_channel, self._readers))
            self._subscription = pubsub
            while True:
                message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=None)
                if message is not None:
                    self._heed(str(message["channel"]), str(message["data"]))
        finally:
            self._subscription = None
            with suppress(*FAILURES):
                await pubsub.aclose()  # type: ignore[no-untyped-call]  # the driver has no types here

    def _heed(self, channel: str, message: str) -> None:
        word, _, token = message.partition(" ")
        if channel != self.channel:
            for news in self._readers.get(channel.rpartition(":")[2], ()):
                news.set()
        elif word == "go" and token in self.waiters:
            self.waiters[token].called.set()
        elif word == "stop" and token in self.held:
            self.link.loop.call_soon(self.held[token].tell)

    # Heartbeats.

    async def _beat(self) -> None:
        """Keeps the leases of this process's turns and its places in queues; learns what no message told."""
        while True:
            await asyncio.sleep(BEAT_S)
            entries: list[Held | Waiter] = [*self.held.values(), *self.waiters.values()]
            for result in await asyncio.gather(*map(self._beat_of, entries), return_exceptions=True):
                if isinstance(result, Exception) and not isinstance(result, StoreUnavailable):
                    log.error("A heartbeat failed.", exc_info=result)

    async def _beat_of(self, entry: Held | Waiter) -> None:
        async with self._lanes:
            if isinstance(entry, Waiter) and entry.token in self.waiters:
                entry.due(await self.link.run(QUEUE_BEAT, [entry.lease, entry.queue], entry.token, LEASE_MS))
            elif isinstance(entry, Held) and entry.token in self.held:
                keys = [entry.session, entry.lease]
                answer = await self.link.run(RENEW, keys, entry.token, self.channel, LEASE_MS)
                if answer != 0 and entry.token in self.held:
                    self.link.loop.call_soon(entry.tell)

"""A process's link to Redis: one client for each event loop, one subscription, and one heartbeat for all its turns."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass, field
from typing import Any, Final, cast
from uuid import uuid4

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, OutOfMemoryError, RedisClusterException, RedisError, ResponseError

from histories.base import StoreFull, StoreUnavailable
from histories.redis.scripts import QUEUE, RENEW, Script

log = logging.getLogger("recollect.histories")

LEASE_S: Final = 4.0
"""How long a turn belongs to a holder that is not heard of."""
BEAT_S: Final = 1.0
_CALLS: Final = 64
"""How many calls may be under way at once; more wait for one of them to return."""
_BEATS_AT_ONCE: Final = 8
_CALL_S: Final = 6.0
"""How long one call may take in all, with its wait for others, its connection, and its second attempt."""
_OPTIONS: Final[dict[str, Any]] = {
    "decode_responses": True,
    "encoding_errors": "surrogatepass",
    "protocol": 2,
    "socket_connect_timeout": 2.0,
    "socket_timeout": 3.0,
    "max_connections": _CALLS + 4,
}
_FAILURES: Final = (RedisError, RedisClusterException, OSError)

#: What a server may say that its operator should read in our message.
_CODES: Final = (
    *("READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "NOREPLICAS", "MISCONF", "BUSY", "TRYAGAIN"),
    *("NOPERM", "NOAUTH", "WRONGPASS"),
)

Client = Redis | RedisCluster


@dataclass(slots=True)
class Held:
    """A turn that runs here, as its heartbeat knows it. `stop` is called, once, when it should run no longer."""

    token: str
    session: str
    lease: str
    stop: Callable[[], None]


@dataclass(slots=True)
class Waiter:
    """Who waits here for a session: `called` is set when it is time to try to begin."""

    token: str
    lease: str
    line: str
    called: asyncio.Event = field(default_factory=asyncio.Event)

    def due(self, ms: int) -> None:
        """In so many milliseconds it will be time, if nobody calls before and the next heartbeat is later."""
        if ms <= BEAT_S * 1000:
            asyncio.get_running_loop().call_later(ms / 1000, self.called.set)


class Link:
    """The client of one event loop. Connects when it is first used, and again whenever it has to."""

    def __init__(self, url: str, namespace: str, *, on_connect: Callable[[Redis], Awaitable[None]]) -> None:
        self.loop = asyncio.get_running_loop()
        self.channel = f"{namespace}:server:{uuid4().hex}"
        self.held: dict[str, Held] = {}
        self.waiters: dict[str, Waiter] = {}
        self._url, self._on_connect = url, on_connect
        self._client: Client | None = None
        self._connecting: asyncio.Task[Client] | None = None
        self._slots, self._lanes = asyncio.Semaphore(_CALLS), asyncio.Semaphore(_BEATS_AT_ONCE)
        self._failed_at = -LEASE_S
        self._tasks: list[asyncio.Task[None]] = []

    async def close(self) -> None:
        """Lets go of the connections and tasks; to be called on the link's own event loop."""
        while tasks := [task for task in (self._connecting, *self._tasks) if task is not None and not task.done()]:
            for task in tasks:  # again: before Python 3.12, wait_for, which the driver uses, may swallow a cancellation
                task.cancel()
            await asyncio.wait(tasks, timeout=0.05)
        await self._disconnect()

    def grace_ms(self) -> int:
        """How long a holder that is not heard of should be waited for, because Redis itself was not to be reached."""
        return max(0, round((self._failed_at + LEASE_S - self.loop.time()) * 1000))

    async def run(self, script: Script, keys: Sequence[str], *args: object) -> Any:
        """What the script answers. Sent again once if the connection broke: every script may be."""

        async def send(client: Client) -> Any:
            operands = (str(len(keys)), *keys, *map(str, args))
            try:
                return await client.execute_command("EVALSHA", script.sha, *operands)
            except NoScriptError:
                return await client.execute_command("EVAL", script.text, *operands)

        return await self._guarded(send)

    async def command(self, *args: str | int) -> Any:
        """What a plain command, of those that may be sent again, answers."""
        return await self._guarded(lambda client: cast(Awaitable[Any], client.execute_command(*args)))

    async def sets(self, pattern: str) -> AsyncIterator[str]:
        """The names of all sorted sets that match, on every node; some may come twice. Not for a request's path."""
        try:
            client = await self._connected()
            async for key in client.scan_iter(match=pattern, count=1000, _type="zset"):
                yield str(key)
        except _FAILURES as error:
            raise _refused(error) from error

    async def _guarded(self, send: Callable[[Client], Awaitable[Any]]) -> Any:
        """Raises `StoreUnavailable` or `StoreFull`, and no error of the driver."""
        try:
            async with asyncio.timeout(_CALL_S), self._slots:
                client = await self._connected()
                try:
                    return await send(client)
                except RedisConnectionError:
                    return await send(client)
        except _FAILURES as error:
            refused = _refused(error)
            if not isinstance(refused, StoreFull):
                self._failed_at = self.loop.time()
            if isinstance(error, RedisClusterException) or "READONLY" in str(error):
                await self._disconnect()
            raise refused from error

    async def _connected(self) -> Client:
        """The client. However many ask for it, one connects, and not in the context of the request that came first."""
        if self._client is not None:
            return self._client
        if self._connecting is None:
            self._connecting = self.loop.create_task(self._connect(), context=Context())
            self._connecting.add_done_callback(self._has_connected)
        return await asyncio.shield(self._connecting)

    def _has_connected(self, task: asyncio.Task[Client]) -> None:
        self._connecting = None
        if not task.cancelled():
            task.exception()  # those who wait for it raise it

    async def _connect(self) -> Client:
        """The client, of a cluster if that is what answers."""
        single = Redis.from_url(self._url, retry=Retry(NoBackoff(), 0), **_OPTIONS)
        try:
            clustered = await _is_cluster(single)
            await self._on_connect(single)
        except BaseException:
            await single.aclose()
            raise
        client: Client = single
        if clustered:
            await single.aclose()
            client = await RedisCluster.from_url(self._url, retry=Retry(NoBackoff(), 0), **_OPTIONS).initialize()
        self._client = client
        if not self._tasks:
            self._tasks = [self.loop.create_task(work) for work in (self._listen(), self._beat())]
        return client

    async def _disconnect(self) -> None:
        """The next call connects anew, to whatever the URL leads to by then: a failover may have changed that."""
        client, self._client = self._client, None
        if client is not None:
            with suppress(*_FAILURES):
                await client.aclose()

    async def _listen(self) -> None:
        """Hears, for all turns and waiters of this process, of freed sessions and of stops."""
        pause = BEAT_S / 4
        while True:
            started = self.loop.time()
            try:
                await self._hear(await self._connected())
            except _FAILURES as error:
                log.debug("The subscription broke, and is made again: %s", type(error).__name__)
            except Exception:
                log.exception("The subscription failed, and is made again.")
            pause = BEAT_S / 2 if self.loop.time() - started > LEASE_S else min(pause * 2, LEASE_S)
            await asyncio.sleep(pause)

    async def _hear(self, client: Client) -> None:
        pubsub = client.pubsub()
        try:
            await pubsub.subscribe(self.channel)
            while True:
                message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=None)
                if message is not None:
                    self._heed(str(message["data"]))
        finally:
            with suppress(*_FAILURES):
                await pubsub.aclose()  # type: ignore[no-untyped-call]  # the driver has no types here

    def _heed(self, message: str) -> None:
        word, _, token = message.partition(" ")
        if word == "go" and token in self.waiters:
            self.waiters[token].called.set()
        elif word == "stop" and token in self.held:
            self.loop.call_soon(self.held[token].stop)

    async def _beat(self) -> None:
        """Keeps the leases of this process's turns and its places in line; learns what no message told."""
        while True:
            await asyncio.sleep(BEAT_S)
            entries: list[Held | Waiter] = [*self.held.values(), *self.waiters.values()]
            for result in await asyncio.gather(*map(self._beat_of, entries), return_exceptions=True):
                if isinstance(result, Exception) and not isinstance(result, StoreUnavailable):
                    log.error("A heartbeat failed.", exc_info=result)

    async def _beat_of(self, entry: Held | Waiter) -> None:
        lease_ms = round(LEASE_S * 1000)
        async with self._lanes:
            if isinstance(entry, Waiter) and entry.token in self.waiters:
                entry.due(await self.run(QUEUE, [entry.lease, entry.line], entry.token, lease_ms))
            elif isinstance(entry, Held) and entry.token in self.held:
                answer = await self.run(RENEW, [entry.session, entry.lease], entry.token, self.channel, lease_ms)
                if answer != 0 and entry.token in self.held:
                    self.loop.call_soon(entry.stop)


async def _is_cluster(client: Redis) -> bool:
    try:
        hello = await client.execute_command("HELLO")  # type: ignore[no-untyped-call]  # nor here
    except ResponseError:  # not allowed to ask
        return False
    return "cluster" in [str(word) for word in hello]


def _refused(error: Exception) -> StoreUnavailable:
    """What a client is told: no address, no name, no password."""
    text = str(error)
    if isinstance(error, OutOfMemoryError) or "OOM command not allowed" in text:
        return StoreFull("The history store's memory is full: nothing was recorded. Try again when there is space.")
    code = next((word for word in _CODES if word in text), type(error).__name__)
    return StoreUnavailable(f"The history store can't be reached or can't write now ({code}). Try again in a moment.")


async def warnings(client: Redis) -> list[str]:
    """What the server's settings mean for the histories that it is to keep, as far as it tells."""
    found: list[str] = []
    try:
        keeps = await client.info("persistence")
        memory = await client.info("memory")
    except ResponseError:
        return found
    try:
        snapshots = (await client.config_get("save")).get("save")
    except ResponseError:
        snapshots = "unknown"
    if not keeps.get("aof_enabled"):
        loss = "what was said since the last snapshot" if snapshots else "all histories"
        found.append(f"has appendonly off: when it stops, {loss} may be lost. Set `appendonly yes`.")
    policy = memory.get("maxmemory_policy", "noeviction")
    if memory.get("maxmemory") and policy != "noeviction":
        found.append(f"forgets when its memory is full ({policy}). Set `maxmemory-policy noeviction`.")
    return found

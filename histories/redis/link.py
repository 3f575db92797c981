"""A process's way to Redis: one client for each event loop, which connects when it has to, and its errors as ours."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from contextvars import Context
from typing import Any, Final, cast

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, OutOfMemoryError, RedisClusterException, RedisError, ResponseError

from histories.base import StoreFull, StoreUnavailable
from histories.fair import FairSlots
from histories.redis.scripts import Script

log = logging.getLogger("recollect.histories")

LEASE_S: Final = 3.0
"""How long a turn belongs to a holder that is not heard of. Then lua/holder.lua gives it another heartbeat's time."""
_CALLS: Final = 16
"""How many calls may be under way at once: one Redis, and one event loop, do one at a time. More wait for one of them
to return, in turn between users. With 64 of one user's at it, everybody else waited for what came of all of them."""
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
FAILURES: Final = (RedisError, RedisClusterException, OSError)

#: What a server may say that its operator should read in our message.
_CODES: Final = (
    *("READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "NOREPLICAS", "MISCONF", "BUSY", "TRYAGAIN"),
    *("NOPERM", "NOAUTH", "WRONGPASS"),
)

Client = Redis | RedisCluster


class Link:
    """The client of one event loop. Connects when it is first used, and again whenever it has to.

    `on_connect` is given a client of each new connection's server; `on_first` is called when there is one.
    """

    def __init__(
        self, url: str, *, on_connect: Callable[[Redis], Awaitable[None]], on_first: Callable[[], None]
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self._url, self._on_connect, self._on_first = url, on_connect, on_first
        self._client: Client | None = None
        self._connecting: asyncio.Task[Client] | None = None
        self._slots = FairSlots(_CALLS)
        self._failed_at = -LEASE_S

    async def close(self) -> None:
        """Lets go of the connections; to be called on the link's own event loop."""
        if self._connecting is not None:
            await end_tasks([self._connecting])
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

        return await self._guarded(_user_of(keys[0]), send)

    async def command(self, *args: str | int) -> Any:
        """What a plain command on a key, of those that may be sent again, answers."""
        user = _user_of(str(args[1]))
        return await self._guarded(user, lambda client: cast(Awaitable[Any], client.execute_command(*args)))

    async def sets(self, pattern: str) -> AsyncIterator[str]:
        """The names of all sorted sets that match, on every node; some may come twice. Not for a request's path."""
        try:
            client = await self.client()
            async for key in client.scan_iter(match=pattern, count=1000, _type="zset"):
                yield str(key)
        except FAILURES as error:
            raise _refused(error) from error

    async def forgets_by(self) -> str | None:
        """The policy by which a server of these evicts keys when its memory is full; None if none does, or tells."""
        try:
            client = await self.client()
            async with asyncio.timeout(_CALL_S):
                told = await client.info("memory", **_everywhere(client))
        except ResponseError:  # not allowed to ask
            return None
        except FAILURES as error:
            raise _refused(error) from error
        servers = told.values() if isinstance(client, RedisCluster) else [told]
        policies = [str(server.get("maxmemory_policy", "noeviction")) for server in servers if isinstance(server, dict)]
        return next((policy for policy in policies if policy != "noeviction"), None)

    async def _guarded(self, user: str, send: Callable[[Client], Awaitable[Any]]) -> Any:
        """Waits its turn. Raises `StoreUnavailable` or `StoreFull`, and no error of the driver."""
        try:
            async with asyncio.timeout(_CALL_S):
                await self._slots.take(user)
                try:
                    return await self._sent(send)
                finally:
                    self._slots.release()
        except FAILURES as error:
            refused = _refused(error)
            if not isinstance(refused, StoreFull):
                self._failed_at = self.loop.time()
            if isinstance(error, RedisClusterException) or "READONLY" in str(error):
                await self._disconnect()
            raise refused from error

    async def _sent(self, send: Callable[[Client], Awaitable[Any]]) -> Any:
        client = await self.client()
        try:
            return await send(client)
        except RedisConnectionError:
            return await send(client)

    async def client(self) -> Client:
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
        self._on_first()
        return client

    async def _disconnect(self) -> None:
        """The next call connects anew, to whatever the URL leads to by then: a failover may have changed that."""
        client, self._client = self._client, None
        if client is not None:
            with suppress(*FAILURES):
                await client.aclose()


def _user_of(key: str) -> str:
    """Whose call it is: the keys of one user share a hash tag. One without a tag stands for itself."""
    return key.partition("}")[0]


def _everywhere(client: Client) -> dict[str, Any]:
    return {"target_nodes": RedisCluster.PRIMARIES} if isinstance(client, RedisCluster) else {}


async def end_tasks(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Cancels tasks until they have ended: before Python 3.12, wait_for, which the driver uses, may swallow that."""
    while running := [task for task in tasks if not task.done()]:
        for task in running:
            task.cancel()
        await asyncio.wait(running, timeout=0.05)


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
    except ResponseError:
        return found
    try:
        snapshots = (await client.config_get("save")).get("save")
    except ResponseError:
        snapshots = "unknown"
    if not keeps.get("aof_enabled"):
        loss = "what was said since the last snapshot" if snapshots else "all histories"
        found.append(f"has appendonly off: when it stops, {loss} may be lost. Set `appendonly yes`.")
    return found

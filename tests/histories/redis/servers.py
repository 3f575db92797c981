"""Servers that share a Redis, for the tests of its store."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from langchain_core.messages import HumanMessage

from histories.base import NewTurn, OpenTurn, StoreUnavailable
from histories.redis.store import RedisStore
from tests.redis_server import RedisServer
from tests.store_holder import USER
from tests.tcp_proxy import Proxy


@asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[RedisStore]:
    store = RedisStore(url, **options)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def through(proxy: Proxy, server: RedisServer) -> str:
    """The server's URL, by way of the proxy."""
    return server.url.replace(str(server.port), str(proxy.port))


def queue_of(server: RedisServer) -> Any:
    """Who waits for the session "s"."""
    with server.client() as client:
        return json.loads(client.get(f"recollect:{{{USER}}}:line:s") or '""')


async def retried(work: Any) -> None:
    """Until it is not unavailable any more."""
    async with asyncio.timeout(60):
        while True:
            with suppress(StoreUnavailable):
                await work()
                return
            await asyncio.sleep(0.05)


async def dead_turn(server: RedisServer, *words: str, events: tuple[str, ...] = (), **options: Any) -> str:
    """A turn of the session "s" whose holder has just died, and has been found to be dead."""
    store = RedisStore(server.url)
    new = NewTurn(input=[HumanMessage(" ".join(words))], tokens=3, **options)
    turn = await store.history(USER, "s").begin(new)
    assert isinstance(turn, OpenTurn)
    if events:
        await turn.journal([json.dumps(event).encode() for event in events])
    await store.close()
    session, lease = (f"recollect:{{{USER}}}:{kind}:s" for kind in ("session", "lease"))
    with server.client() as client:
        client.hset(session, "doubt", f"{client.hget(session, 'run')} 0")
        client.delete(lease)
    return turn.turn_id

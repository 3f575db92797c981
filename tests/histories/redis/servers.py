"""Servers that share a Redis, for the tests of its store."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage, HumanMessage

from histories.base import HistoryStore, NewTurn, OpenTurn, Reply, StoreUnavailable, TurnStatus
from histories.redis.store import RedisStore
from tests.redis_holder import USER
from tests.redis_server import RedisServer
from tests.tcp_proxy import Proxy

ROOT = Path(__file__).parents[3]
REPLY = Reply(status=TurnStatus.COMPLETE, output=[AIMessage("an answer")], tokens=2)


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


async def begun(store: HistoryStore, session: str = "s", words: str = "a question", **options: Any) -> OpenTurn:
    turn = await store.history(USER, session).begin(NewTurn(input=[HumanMessage(words)], tokens=3), **options)
    assert isinstance(turn, OpenTurn)
    return turn


async def record(store: HistoryStore, session: str = "s") -> list[tuple[str, list[object], list[object]]]:
    """The session's turns: status, what was said, what was answered."""
    turns = (await store.history(USER, session).turns(limit=1000)).items
    return [(t.status.value, [m.content for m in t.input], [m.content for m in t.output]) for t in turns]


class Holder:
    """Another server on the same Redis, in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def send(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())
        await self.process.stdin.drain()

    async def answer(self) -> str:
        assert self.process.stdout is not None
        return (await asyncio.wait_for(self.process.stdout.readline(), 30)).decode().strip()

    async def ask(self, line: str) -> str:
        await self.send(line)
        return await self.answer()


@asynccontextmanager
async def holder(url: str) -> AsyncIterator[Holder]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.redis_holder", cwd=ROOT,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        other = Holder(process)
        assert await other.ask(url) == "ready"
        yield other
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


def queue_of(server: RedisServer) -> Any:
    """Who waits for the session "s"."""
    with server.client() as client:
        return json.loads(client.get(f"recollect:{{{USER}}}:line:s") or '""')


async def retried(work: Any) -> None:
    """Until it is not unavailable any more."""
    async with asyncio.timeout(10):
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

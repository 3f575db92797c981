"""What the tests of PostgreSQL do in few words."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import psycopg
from langchain_core.messages import AIMessage, HumanMessage

from histories.base import (
    HistoryStore,
    NewTurn,
    OpenTurn,
    Reply,
    StoreUnavailable,
    TurnStatus,
)
from histories.postgres.store import PostgresStore
from tests.postgres_holder import USER

REPLY = Reply(status=TurnStatus.COMPLETE, output=[AIMessage("an answer")], tokens=2)


@asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(url, **options)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def begun(store: HistoryStore, session: str = "s", words: str = "a question", **options: Any) -> OpenTurn:
    turn = await store.history(USER, session).begin(NewTurn(input=[HumanMessage(words)], tokens=3), **options)
    assert isinstance(turn, OpenTurn)
    return turn


async def record(store: HistoryStore, session: str = "s") -> list[tuple[str, list[object], list[object]]]:
    """The session's turns: status, what was said, what was answered."""
    turns = (await store.history(USER, session).turns(limit=1000)).items
    return [(t.status.value, [m.content for m in t.input], [m.content for m in t.output]) for t in turns]


async def until(condition: Callable[[], object], limit_s: float = 5.0) -> None:
    """Waits until `condition()` holds."""
    async with asyncio.timeout(limit_s):
        while not condition():
            await asyncio.sleep(0.01)


def ask(url: str, question: str) -> Any:
    """The one value that a statement gives."""
    with psycopg.connect(url, autocommit=True) as conn:
        cursor = conn.execute(question)
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None


def in_line(url: str) -> Callable[[], bool]:
    return lambda: ask(url, "SELECT count(*) FROM recollect_waiters") == 1


async def outlasting(work: Callable[[], Any]) -> Any:
    """The result of `work`, tried again while the store is unavailable."""
    async with asyncio.timeout(20):
        while True:
            with suppress(StoreUnavailable):
                return await work()
            await asyncio.sleep(0.05)

"""What the tests of PostgreSQL do in few words."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import psycopg

from histories.base import (
    StoreUnavailable,
)
from histories.postgres.store import PostgresStore


@asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(url, **options)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def until(condition: Callable[[], object], limit_s: float = 60.0) -> None:
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
    async with asyncio.timeout(60):
        while True:
            with suppress(StoreUnavailable):
                return await work()
            await asyncio.sleep(0.05)

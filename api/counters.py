"""Counters for the rates of several workers and servers: in a file of their data folder, or where the store is."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path
from typing import Any, Protocol

from limits.aio.storage import Storage
from typing_extensions import override

from histories.base import StoreUnavailable

_INCREMENT = """
INSERT INTO counters (name, value, ends) VALUES (:name, :amount, :now + :expiry)
ON CONFLICT (name) DO UPDATE SET
    value = CASE WHEN ends <= :now THEN :amount ELSE value + :amount END,
    ends = CASE WHEN ends <= :now THEN :now + :expiry ELSE ends END
RETURNING value
"""

_OPENING = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = OFF",
    "CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INT, ends REAL)",
)


class FileCounters(Storage):
    """A storage for `limits`. An increment takes some hundredths of a millisecond, so it is done where it is asked for.

    Nothing is synced: a power cut may cost counts, and nothing else.
    """

    STORAGE_SCHEME = None

    def __init__(self, path: Path) -> None:
        super().__init__(None)
        self._path = path
        self._opened: sqlite3.Connection | None = None

    @property
    def _database(self) -> sqlite3.Connection:
        if self._opened is None:
            os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))
            self._opened = sqlite3.connect(self._path, timeout=1, isolation_level=None, check_same_thread=False)
            for statement in _OPENING:
                self._opened.execute(statement)
            self._opened.execute("DELETE FROM counters WHERE ends <= ?", (time.time(),))
        return self._opened

    def close(self) -> None:
        """Lets go of the file."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    @property
    @override
    def base_exceptions(self) -> type[Exception]:
        return sqlite3.Error

    @override
    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        values = {"name": key, "amount": amount, "now": time.time(), "expiry": expiry}
        return int(self._database.execute(_INCREMENT, values).fetchone()[0])

    @override
    async def get(self, key: str) -> int:
        return int(self._row(key)[0])

    @override
    async def get_expiry(self, key: str) -> float:
        return float(self._row(key)[1])

    def _row(self, key: str) -> Any:
        now = time.time()
        query = "SELECT value, ends FROM counters WHERE name = ? AND ends > ?"
        return self._database.execute(query, (key, now)).fetchone() or (0, now)

    @override
    async def check(self) -> bool:
        return True

    @override
    async def reset(self) -> int | None:
        return self._database.execute("DELETE FROM counters").rowcount

    @override
    async def clear(self, key: str) -> None:
        self._database.execute("DELETE FROM counters WHERE name = ?", (key,))


class Counting(Protocol):
    """A store that counts, too: those of Redis and PostgreSQL do."""

    async def count(self, name: str, amount: int, life_s: int) -> tuple[int, float]:
        """Adds to a counter: its value, and the time at which it begins anew."""

    async def counted(self, name: str) -> tuple[int, float] | None:
        """The same, without adding anything; None if it has not begun."""


class StoreCounters(Storage):
    """A storage for `limits` where a store is: by its connections, in its cluster, with its errors."""

    STORAGE_SCHEME = None

    def __init__(self, store: Counting) -> None:
        super().__init__(None)
        self._store = store

    @property
    @override
    def base_exceptions(self) -> type[Exception]:
        return StoreUnavailable

    @override
    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        return (await self._store.count(key, amount, expiry))[0]

    @override
    async def get(self, key: str) -> int:
        told = await self._store.counted(key)
        return 0 if told is None else told[0]

    @override
    async def get_expiry(self, key: str) -> float:
        told = await self._store.counted(key)
        return time.time() if told is None else told[1]

    @override
    async def check(self) -> bool:
        return True

    @override
    async def reset(self) -> int | None:
        return None  # nobody asks for it

    @override
    async def clear(self, key: str) -> None:
        value = await self.get(key)
        await self._store.count(key, -value, 1)

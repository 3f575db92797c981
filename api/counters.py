"""Counters in a file, for the rates of several workers and servers that share a data folder."""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path
from typing import Any

from limits.aio.storage import Storage
from typing_extensions import override

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

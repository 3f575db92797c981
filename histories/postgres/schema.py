"""The tables of the PostgreSQL store, and how they come to be: numbered files of plain SQL, each applied once.

Then come the functions of the database, which the servers call.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from histories.base import StoreUnavailable
from histories.postgres.driver import Connection

_MIGRATIONS: Final = Path(__file__).with_name("migrations")
_FUNCTIONS: Final = Path(__file__).with_name("functions")
_LOCK: Final = 0x7265636F6C6C6563  # "recollec": one migration at a time in a database
_NEWEST: Final = "SELECT coalesce(max(version), 0) FROM recollect_schema"


def migrations() -> list[tuple[int, Path]]:
    """The migrations by their number, oldest first."""
    return sorted((int(path.name.partition("_")[0]), path) for path in _MIGRATIONS.glob("[0-9]*_*.sql"))


def functions() -> list[Path]:
    """The functions and views, which are made anew after each migration: one that is changed comes with a migration."""
    return sorted(_FUNCTIONS.glob("*.sql"))


async def migrate(conn: Connection) -> list[int]:
    """Brings the tables up to date, and gives the numbers of the migrations that it applied.

    Any number of servers may do so at once. Raises `StoreUnavailable` when the tables are a newer version's.
    """
    steps = migrations()
    have = await _version(conn)
    if have > steps[-1][0]:
        raise StoreUnavailable("These histories belong to a newer version of Recollect: update this server.")
    if have == steps[-1][0]:
        return []
    if await _value(conn, "SHOW server_encoding") != "UTF8":
        raise StoreUnavailable("This database can't hold every text: make one with ENCODING 'UTF8'.")
    async with conn.transaction():
        await conn.execute("SET LOCAL statement_timeout = 0")
        await conn.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
        await conn.execute(
            "CREATE TABLE IF NOT EXISTS recollect_schema"
            " (version integer PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT clock_timestamp())"
        )
        have = await _value(conn, _NEWEST)
        applied = [(number, path) for number, path in steps if number > have]
        for number, path in applied:
            await conn.execute(path.read_text("utf-8"))
            await conn.execute("INSERT INTO recollect_schema (version) VALUES (%s)", [number])
        for path in functions() if applied else []:
            await conn.execute(path.read_text("utf-8"))
    return [number for number, _ in applied]


async def _version(conn: Connection) -> int:
    there = await _value(conn, "SELECT to_regclass('recollect_schema') IS NOT NULL")
    return int(await _value(conn, _NEWEST)) if there else 0


async def _value(conn: Connection, question: str) -> Any:
    row = await (await conn.execute(question)).fetchone()
    return row[0] if row else None

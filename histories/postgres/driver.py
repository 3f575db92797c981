"""psycopg, as the PostgreSQL store uses it: how to connect, how long to wait, and what its errors mean."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import PoolClosed, PoolTimeout

from histories.base import StoreFull, StoreUnavailable

Connection = AsyncConnection[tuple[Any, ...]]
Row = tuple[Any, ...]
Params = Mapping[str, object]
Ask = Callable[[str, Params], Awaitable[list[Row]]]
"""How PostgreSQL is asked, on whichever connection."""


class Unanswered(StoreUnavailable):
    """The connection broke after something was sent on it: whether it was done is not known."""


def connection_params(url: str) -> dict[str, Any]:
    """The parameters that `url` stands for, and defaults that notice a dead server within seconds.

    Raises `ValueError` without any part of the URL in it.
    """
    try:
        given = {name: value for name, value in conninfo_to_dict(url).items() if value is not None}
    except psycopg.Error:
        given = {"host": "@"}
    if "@" in str(given.get("host", "")):
        raise ValueError(
            "This is not a URL of PostgreSQL: write postgresql://user:password@host:5432/database, "
            "and percent-encode what is special in the password."
        )
    several = "," in str(given.get("host", ""))
    defaults: dict[str, Any] = {
        "application_name": "recollect",
        "connect_timeout": 3,
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": 8000,
        "client_encoding": "utf8",
        "target_session_attrs": "read-write" if several else "any",
    }
    return {**defaults, **given, "autocommit": True}


async def fetch(conn: Connection, statement: str, params: Params, *, prepare: bool = True) -> list[Row]:
    cursor = await conn.execute(statement, params, prepare=prepare)
    return await cursor.fetchall() if cursor.description else []


async def refuse_broken(conn: Connection) -> None:
    """Raises when the server has hung up meanwhile. Asks the socket, not the server: this is no round trip."""
    conn.pgconn.consume_input()


@contextmanager
def cut_after(conn: Connection, limit_s: float) -> Iterator[None]:
    """Hangs up when the server is silent for so long.

    Cancelling would not do: it asks the server to give up, and waits for the answer.
    """
    timer = asyncio.get_running_loop().call_later(limit_s, _hang_up, conn)
    try:
        yield
    finally:
        timer.cancel()


def _hang_up(conn: Connection) -> None:
    with suppress(psycopg.Error, OSError), socket.socket(fileno=os.dup(conn.fileno())) as line:
        line.shutdown(socket.SHUT_RDWR)


@contextmanager
def refusals() -> Iterator[None]:
    """psycopg's errors as the contract's, without the names of hosts and users that are in psycopg's."""
    try:
        yield
    except (PoolTimeout, PoolClosed):
        raise StoreUnavailable("PostgreSQL can't be reached, or is too busy. Try again later.") from None
    except psycopg.errors.DiskFull:
        raise StoreFull("PostgreSQL has no space left: nothing was recorded. Try again when it has.") from None
    except psycopg.OperationalError as error:
        raise Unanswered(f"PostgreSQL can't be reached now ({name_of(error)}). Try again later.") from None
    except psycopg.Error as error:
        raise StoreUnavailable(f"PostgreSQL refused the work ({name_of(error)}).") from None


def name_of(error: BaseException) -> str:
    return getattr(error, "sqlstate", None) or type(error).__name__

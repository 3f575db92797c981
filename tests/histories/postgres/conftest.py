"""A PostgreSQL that the tests of this folder may do anything to."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from typing import Any

import psycopg
import pytest

from histories.postgres.store import PostgresStore
from tests.histories.postgres.steps import opened
from tests.postgres_server import NoServer, PostgresServer, fresh_url


@pytest.fixture(scope="session")
def own_server() -> Iterator[PostgresServer]:
    """A server that the tests may do anything to."""
    try:
        server = PostgresServer()
        try:
            server.start()
            yield server
        finally:
            server.remove()
    except NoServer as reason:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(reason))


@pytest.fixture
def server(own_server: PostgresServer) -> PostgresServer:
    """The same, and it answers."""
    own_server.start()
    return own_server


@pytest.fixture
def url(server: PostgresServer) -> str:
    """Tables of the test's own."""
    return fresh_url(server.url)


@pytest.fixture
def connection(url: str) -> Iterator[psycopg.Connection[Any]]:
    """The database itself."""
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


@pytest.fixture
async def store(url: str) -> AsyncIterator[PostgresStore]:
    async with opened(url) as store:
        yield store

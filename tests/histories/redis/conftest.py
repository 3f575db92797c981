"""Redis servers of their own for the tests of its store."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator

import pytest

from histories.redis.store import RedisStore
from tests.histories.redis.servers import opened
from tests.redis_server import Cluster, NoServer, RedisServer


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A server that the test may do anything to."""
    server = RedisServer()
    try:
        server.start()
        yield server
    except NoServer as reason:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(reason))
    finally:
        server.remove()


@pytest.fixture
async def store(server: RedisServer) -> AsyncIterator[RedisStore]:
    async with opened(server.url) as store:
        yield store


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    cluster = Cluster()
    try:
        cluster.start()
        yield cluster
    except NoServer as reason:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(reason))
    finally:
        cluster.remove()

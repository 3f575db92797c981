"""Fixtures that several test files share."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from histories.base import HistoryStore, SessionHistory
from tests import postgres_server, redis_server
from tests.stores import KINDS, Stores

_kept: list[httpx.AsyncClient] = []
"""Clients of event loops that are gone."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are processors: tests wait a good deal, for leases that run out, and for other processes."""
    return min(4, (os.cpu_count() or 1) + 1)


def pytest_collection_finish() -> None:
    """What has been imported is there to stay: no garbage collection during the tests has to look through it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _apps_are_built_fast() -> Iterator[None]:
    if "langserve" not in sys.modules:  # none of the tests builds an app, or needs a second of imports
        yield
        return
    from tests.built_once import built_once

    with built_once():
        yield


@pytest.fixture(scope="session", autouse=True)
def _remotes_are_not_closed_as_garbage() -> Iterator[None]:
    """LangServe closes the clients of a RemoteRunnable that is garbage in a new thread. Where it is found to be garbage
    while another thread is being started, both wait for one lock, for ever.
    """
    if "langserve" not in sys.modules:
        yield
        return

    def close(sync_client: httpx.Client, async_client: httpx.AsyncClient) -> None:
        sync_client.close()
        _kept.append(async_client)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("langserve.client._close_clients", close)
        yield


@pytest.fixture(scope="session", autouse=True)
def _waits_for_recall() -> Iterator[None]:
    """Tests look at what is found, also on a machine that is slow at it. Those of the limits set their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("histories.postgres.search._RECALL_S", 10.0)
        patch.setattr("histories.redis.texts._RECALL_S", 10.0)
        yield


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A PostgreSQL that tests may use but not harm."""
    try:
        with postgres_server.any_server() as url:
            yield url
    except postgres_server.NoServer as reason:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A Redis that tests may use but not harm."""
    try:
        with redis_server.any_server() as url:
            yield url
    except redis_server.NoServer as reason:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(reason))


@pytest.fixture(params=list(KINDS))
async def stores(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stores]:
    """An empty place of each kind of store, and stores on it."""
    stores = KINDS[request.param](request, tmp_path)
    yield stores
    await stores.close()


@pytest.fixture
async def store(stores: Stores) -> HistoryStore:
    """An opened, empty store of each kind."""
    return await stores.open()


@pytest.fixture
def history(store: HistoryStore) -> SessionHistory:
    """An unknown session of one user, in a store of each kind."""
    return store.history("alice", "s1")

"""How the Redis store connects, and what it says to whom."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest
from langchain_core.messages import AIMessage, HumanMessage

from histories.base import (
    StoreUnavailable,
)
from histories.redis.store import RedisStore
from tests.histories.redis.servers import opened, through
from tests.redis_server import SECRET, RedisServer
from tests.store_holder import USER, whole_turn
from tests.tcp_proxy import Proxy, certificate


async def test_no_error_and_no_log_says_the_password(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    said = []
    urls = {
        "wrong password": f"redis://:{SECRET}-not@127.0.0.1:{server.port}",
        "nobody there": f"redis://:{SECRET}@127.0.0.1:1",
    }
    for url in urls.values():
        async with opened(url.replace("%", "%25")) as store:
            with pytest.raises(StoreUnavailable) as refused:
                await store.ping()
            said += [str(refused.value), repr(refused.value.__cause__), str(refused.value.__cause__), repr(store)]
    with pytest.raises(ValueError) as unreadable:
        RedisStore(f"redis://:{SECRET}/2@host")
    said += [str(unreadable.value), caplog.text]
    assert unreadable.value.__suppress_context__
    assert not any("a-secret" in text for text in said)


async def test_a_server_that_would_forget_is_warned_of_once(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(server.url):
        assert caplog.text == ""
    with server.client() as client:
        client.config_set("appendonly", "no")
    async with opened(server.url) as store:
        await store.ping()
        assert [record.getMessage().partition(" has ")[2][:14] for record in caplog.records] == ["appendonly off"]


async def test_histories_work_over_tls(server: RedisServer, tmp_path: Path) -> None:
    authority, context = certificate(tmp_path)
    async with Proxy(server.port, tls=context) as proxy:
        url = through(proxy, server).replace("redis://", "rediss://")
        async with opened(f"{url}?ssl_ca_certs={authority}") as store:
            assert await whole_turn(store, "s", "hello") == 0
        async with opened(url) as store:
            with pytest.raises(StoreUnavailable):
                await store.ping()


async def test_a_store_serves_several_event_loops(store: RedisStore) -> None:
    history = store.history(USER, "s")
    await asyncio.gather(
        *(asyncio.to_thread(history.add_messages, [HumanMessage(str(n)), AIMessage("yes")]) for n in range(3)),
        *(whole_turn(store, "s", f"three-{n}") for n in range(3)),
    )
    assert len(await asyncio.to_thread(lambda: history.messages)) == 12

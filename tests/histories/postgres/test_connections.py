"""Connections: how many, to what, and what is said of them to whom."""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import suppress

import pytest
from langchain_core.messages import AIMessage, HumanMessage

from histories.base import (
    StoreUnavailable,
)
from histories.postgres.store import PostgresStore, migrate_schema
from tests.histories.postgres.steps import ask, opened, until
from tests.histories.steps import REPLY, begun
from tests.postgres_server import SECRET, PostgresServer
from tests.store_holder import USER, whole_turn
from tests.tcp_proxy import Proxy


async def test_turns_that_run_hold_no_connection(url: str) -> None:
    async with opened(url, pool_size=1) as store:
        turns = [await begun(store, f"s{n}") for n in range(5)]
        assert store.link().idle == 1
        assert ask(url, "SELECT count(*) FROM pg_stat_activity WHERE state LIKE '%in transaction%'") == 0
        for turn in turns:
            await turn.end(REPLY)


async def test_an_exhausted_pool_waits_and_is_then_unavailable(url: str) -> None:
    async with opened(url, pool_size=1, pool_wait_s=0.3) as store:
        async with store.link().connection():
            with pytest.raises(StoreUnavailable):
                await begun(store)
            waiting = asyncio.create_task(begun(store))
        await (await waiting).end(REPLY)


async def test_a_turn_takes_two_round_trips(server: PostgresServer, url: str) -> None:
    proxy = CountingProxy(server.port)
    async with proxy, opened(url.replace(str(server.port), str(proxy.port)), lease_s=60.0) as store:
        await whole_turn(store, "s", "first")  # connections, tables
        before = proxy.requests
        assert await whole_turn(store, "s", "second") == 1
        assert proxy.requests - before == 2


class CountingProxy(Proxy):
    """Counts what clients send; each of a turn's requests goes out whole."""

    requests = 0

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, replies: bool) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                self.requests += not replies
                writer.write(data)
                await writer.drain()


async def test_a_store_serves_several_event_loops(store: PostgresStore) -> None:
    history = store.history(USER, "s")
    await asyncio.gather(
        *(asyncio.to_thread(history.add_messages, [HumanMessage(str(n)), AIMessage("yes")]) for n in range(3)),
        *(whole_turn(store, "s", f"three-{n}") for n in range(3)),
    )
    assert len(await asyncio.to_thread(lambda: history.messages)) == 12


async def test_loops_that_are_gone_take_their_connections_with_them(url: str, store: PostgresStore) -> None:
    def one_loop() -> None:
        asyncio.run(store.history(USER, "s").aadd_messages([HumanMessage("hello"), AIMessage("yes")]))

    for _ in range(3):
        thread = threading.Thread(target=one_loop)
        thread.start()
        await asyncio.to_thread(thread.join)
    assert len(await store.history(USER, "s").aget_messages()) == 6


async def test_no_error_and_no_log_says_the_password(server: PostgresServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    said = []
    urls = {
        "wrong password": server.url.replace("%25", "%26"),
        "nobody there": server.url.replace(str(server.port), "1"),
        "no such database": f"{server.url}x",
    }
    for url in urls.values():
        async with opened(url, pool_wait_s=0.5) as store:
            with pytest.raises(StoreUnavailable) as refused:
                await store.ping()
            said += [str(refused.value), repr(refused.value.__cause__), repr(store), repr(store.link().__dict__)]
        with pytest.raises(StoreUnavailable) as refused:
            await migrate_schema(url)
        said.append(str(refused.value))
    for unreadable in (
        f"postgresql://u:{SECRET}@host:1",
        "postgresql://u:a-secret@x@host",
        "postgresql://u:1@h?a-secret=1",
    ):
        with pytest.raises(ValueError) as error:
            PostgresStore(unreadable)
        assert error.value.__context__ is None
        said.append(str(error.value))
    said.append(caplog.text)
    assert not any("a-secret" in text for text in said)


async def test_what_was_switched_off_for_speed_is_on_for_us(url: str) -> None:
    async with opened(f"{url}%20-csynchronous_commit%3Doff") as store, store.link().connection() as conn:
        assert await (await conn.execute("SHOW synchronous_commit")).fetchone() == ("on",)


async def test_a_pooler_of_transactions_is_noticed_at_the_start(
    server: PostgresServer, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Deaf(server.port) as proxy, opened(plain(url, proxy)) as store:
        assert await whole_turn(store, "s", "hello") == 0
        await until(lambda: "PgBouncer" in caplog.text)
    assert "session" in caplog.text


def plain(url: str, proxy: Proxy) -> str:
    """The URL by way of the proxy, without an offer of TLS, whose answer is no message."""
    return f"{url.replace(str(proxy.target), str(proxy.port))}&sslmode=disable&gssencmode=disable"


class Deaf(Proxy):
    """Takes the notifications out of what the server says, as a pooler of transactions loses them."""

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, replies: bool) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while replies:
                kind, size = await reader.readexactly(1), await reader.readexactly(4)
                rest = await reader.readexactly(int.from_bytes(size) - 4)
                if kind != b"A":
                    writer.write(kind + size + rest)
                    await writer.drain()
        await super()._pass_on(reader, writer, replies=replies)

"""What becomes of turns when PostgreSQL fails."""

from __future__ import annotations

import asyncio

import pytest

from histories.base import (
    HistoryDamaged,
    StoreFull,
    StoreUnavailable,
)
from histories.postgres.store import PostgresStore
from tests.histories.postgres.steps import ask, in_line, opened, outlasting, until
from tests.histories.steps import REPLY, answer_each_once, begun, record
from tests.postgres_server import PostgresServer
from tests.proofs import proves
from tests.quick import tries
from tests.store_holder import USER, whole_turn
from tests.tcp_proxy import Proxy


async def test_a_reply_is_saved_by_a_server_that_comes_back_and_nobody_takes_its_turn(
    server: PostgresServer, url: str, store: PostgresStore
) -> None:
    async with opened(url) as other:
        turn = await begun(store)
        waiting = asyncio.create_task(outlasting(lambda: begun(other, words="next", wait_s=60)))
        await until(in_line(url))
        server.kill()
        ending = asyncio.create_task(turn.end(REPLY))
        with pytest.raises(StoreUnavailable):
            await other.history(USER, "s").info()
        assert not ending.done()
        server.start()
        await ending
        await (await waiting).end(REPLY)
    turns = [turn for turn in await record(store) if turn[0] != "interrupted"]
    assert turns == [("complete", ["a question"], ["an answer"]), ("complete", ["next"], ["an answer"])]


@proves("G2")
async def test_a_reply_that_no_server_comes_back_for_is_an_error(server: PostgresServer, url: str) -> None:
    async with opened(url, save_limit_s=0.3) as store, opened(url) as other:
        turn = await begun(store)
        server.kill()
        with pytest.raises(StoreUnavailable):
            await turn.end(REPLY)
        with pytest.raises(StoreUnavailable):
            await begun(store, wait_s=0)
        with pytest.raises(StoreUnavailable):
            await store.ping()
        server.start()
        await outlasting(store.ping)
        await (await begun(other, words="after", wait_s=60)).end(REPLY)
        assert await record(store) == [("interrupted", ["a question"], []), ("complete", ["after"], ["an answer"])]


async def test_a_silent_server_is_an_error_soon_and_its_return_saves_the_reply(
    server: PostgresServer, url: str
) -> None:
    async with opened(url, statement_s=0.5) as store:
        turn = await begun(store)
        server.pause()
        try:
            ending = asyncio.create_task(turn.end(REPLY))
            for one in tries(5):
                with one, pytest.raises(StoreUnavailable):
                    await store.history(USER, "other").info()
        finally:
            server.resume()
        await ending
        assert await record(store) == [("complete", ["a question"], ["an answer"])]


async def test_a_store_opens_without_its_server_and_works_when_it_is_there(server: PostgresServer, url: str) -> None:
    server.kill()
    async with opened(url) as store:
        with pytest.raises(StoreUnavailable):
            await store.ping()
        server.start()
        await outlasting(store.ping)
        assert await whole_turn(store, "s", "hello") == 0


async def test_answers_lost_on_their_way_are_no_second_turns(server: PostgresServer, url: str) -> None:
    async with (
        Proxy(server.port) as proxy,
        opened(url.replace(str(server.port), str(proxy.port)), lease_s=60.0) as store,
    ):
        await answer_each_once(store, proxy)


async def test_connections_that_the_server_closed_are_replaced(url: str, store: PostgresStore) -> None:
    assert await whole_turn(store, "s", "first") == 0
    ask(url, "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'recollect'")
    await outlasting(store.ping)
    assert await whole_turn(store, "s", "second") == 1


async def test_a_full_disk_refuses_the_reply_and_frees_the_session(url: str, store: PostgresStore) -> None:
    turn = await begun(store)
    ask(url, """
        CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'no space left on device' USING ERRCODE = 'disk_full'; END $$;
        CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON recollect_turns FOR EACH ROW EXECUTE FUNCTION full_disk();
    """)  # fmt: skip
    with pytest.raises(StoreFull):
        await turn.end(REPLY)
    with pytest.raises(StoreFull):
        await begun(store, words="never", wait_s=0)
    ask(url, "DROP TRIGGER full_disk ON recollect_turns")
    await (await begun(store, words="after", wait_s=0)).end(REPLY)
    assert await record(store) == [("interrupted", ["a question"], []), ("complete", ["after"], ["an answer"])]


async def test_a_server_that_only_reads_is_unavailable_until_it_is_promoted(url: str, store: PostgresStore) -> None:
    ask(url, "ALTER ROLE postgres SET default_transaction_read_only = on")
    try:
        async with opened(url) as store:
            with pytest.raises(StoreUnavailable):
                await begun(store)
    finally:
        ask(url, "BEGIN READ WRITE; ALTER ROLE postgres RESET default_transaction_read_only; COMMIT")
    assert await whole_turn(store, "s", "after") == 0


async def test_damaged_messages_are_said_to_be_so_and_hold_nothing_up(url: str, store: PostgresStore) -> None:
    await (await begun(store)).end(REPLY)
    ask(url, "UPDATE recollect_turns SET output = 'nonsense'")
    with pytest.raises(HistoryDamaged):
        await begun(store, window_tokens=100)
    with pytest.raises(HistoryDamaged):
        await store.history(USER, "s").turns()
    await (await begun(store, wait_s=0)).end(REPLY)

"""What is PostgreSQL's own: leases, fences and lines between servers; what becomes of turns when PostgreSQL fails."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import psycopg
import pytest
from langchain_core.messages import AIMessage, HumanMessage

from histories.base import (
    HistoryDamaged,
    HistoryStore,
    InvalidCursor,
    InvalidId,
    NewTurn,
    OpenTurn,
    Reply,
    SessionBusy,
    SessionExists,
    SessionNotFound,
    StoreFull,
    StoreUnavailable,
    Turn,
    TurnLost,
    TurnStatus,
    now,
)
from histories.memory import MemoryStore
from histories.postgres import sql as sql
from histories.postgres.rows import like
from histories.postgres.schema import migrations
from histories.postgres.store import PostgresStore, migrate_schema
from histories.window import window_floor
from tests.postgres_holder import USER, holder, whole_turn
from tests.postgres_server import SECRET, NoServer, PostgresServer, drop_fresh, fresh_url
from tests.tcp_proxy import Proxy

REPLY = Reply(status=TurnStatus.COMPLETE, output=[AIMessage("an answer")], tokens=2)


@pytest.fixture(scope="module")
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


@asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[PostgresStore]:
    store = PostgresStore(url, **options)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def begun(store: HistoryStore, session: str = "s", words: str = "a question", **options: Any) -> OpenTurn:
    turn = await store.history(USER, session).begin(NewTurn(input=[HumanMessage(words)], tokens=3), **options)
    assert isinstance(turn, OpenTurn)
    return turn


async def record(store: HistoryStore, session: str = "s") -> list[tuple[str, list[object], list[object]]]:
    """The session's turns: status, what was said, what was answered."""
    turns = (await store.history(USER, session).turns(limit=1000)).items
    return [(t.status.value, [m.content for m in t.input], [m.content for m in t.output]) for t in turns]


async def until(condition: Callable[[], object], limit_s: float = 5.0) -> None:
    """Waits until `condition()` holds."""
    async with asyncio.timeout(limit_s):
        while not condition():
            await asyncio.sleep(0.01)


def ask(url: str, question: str) -> Any:
    """The one value that a statement gives."""
    with psycopg.connect(url, autocommit=True) as conn:
        cursor = conn.execute(question)
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None


def in_line(url: str) -> Callable[[], bool]:
    return lambda: ask(url, "SELECT count(*) FROM recollect_waiters") == 1


# One turn at a time, across servers


async def test_a_holder_paused_for_longer_than_its_lease_never_writes(url: str, store: PostgresStore) -> None:
    async with holder(url) as other:
        assert await other.ask("begin s theirs") == "begun"
        os.kill(other.process.pid, signal.SIGSTOP)
        ours = await begun(store, words="ours", wait_s=10)
        await other.send("end too-late")
        os.kill(other.process.pid, signal.SIGCONT)
        assert await other.answer() == "TurnLost"
        await ours.end(REPLY)
    assert await record(store) == [("interrupted", ["theirs"], []), ("complete", ["ours"], ["an answer"])]


async def test_a_dead_holders_session_takes_its_next_turn_within_5_s(url: str, store: PostgresStore) -> None:
    async with holder(url) as other, holder(url) as waiter:
        assert await other.ask("begin s theirs") == "begun"
        await waiter.send("begin s never")
        await until(in_line(url))
        waiter.process.kill()
        other.process.kill()
        died = time.monotonic()
        ours = await begun(store, words="ours", wait_s=10)
        assert time.monotonic() - died < 5
        assert [turn[0] for turn in await record(store)] == ["interrupted", "running"]
        await ours.end(REPLY)
    assert await record(store) == [("interrupted", ["theirs"], []), ("complete", ["ours"], ["an answer"])]
    assert (await store.history(USER, "s").turns()).items[0].ended_at is not None


async def test_what_a_dead_server_left_is_shown_as_interrupted_and_can_be_forked_rewound_and_deleted(url: str) -> None:
    async with opened(url) as store:
        async with holder(url) as other:
            for session in ("s", "gone"):
                assert await other.ask(f"begin {session} theirs") == "begun"
        turn_id = (await store.history(USER, "s").turns()).items[0].turn_id
        assert (await record(store))[0][0] == "running"
        ask(url, "UPDATE recollect_servers SET beaten_at = 'epoch', lease = '0'")
        assert await record(store) == [("interrupted", ["theirs"], [])]
        await store.history(USER, "s").fork("copy", turn_id)
        assert await record(store, "copy") == [("interrupted", ["theirs"], [])]
        await store.history(USER, "s").rewind(turn_id)
        assert (await store.history(USER, "s").info()).turns == 0
        await store.history(USER, "gone").delete()
        assert [s.session_id for s in (await store.sessions(USER)).items] == ["s", "copy"]


async def test_turns_of_one_session_from_two_processes_and_two_stores_run_in_order_and_see_all_before(
    url: str, store: PostgresStore
) -> None:
    async with holder(url) as one, holder(url) as two, opened(url) as third:
        await one.send("many s 12 one")
        await two.send("many s 12 two")
        ours = await asyncio.gather(*(whole_turn((store, third)[n % 2], "s", f"three-{n}") for n in range(24)))
        theirs = [int(word) for other in (one, two) for word in (await other.answer()).split()]
    assert sorted([*ours, *theirs]) == list(range(48))
    turns = await record(store)
    assert all(turn == ("complete", turn[1], [f"heard {turn[1][0]}"]) for turn in turns)
    for name in ("one", "two"):
        said = [str(turn[1][0]) for turn in turns if str(turn[1][0]).startswith(name)]
        assert said == [f"{name}-{n}" for n in range(12)]


async def test_who_waits_in_another_server_is_called_and_not_overtaken(url: str, store: PostgresStore) -> None:
    async with opened(url) as other:
        first = await begun(store)
        waiting = asyncio.create_task(begun(other, words="second", wait_s=10))
        await until(in_line(url))
        third = asyncio.create_task(begun(store, words="third", wait_s=10))
        await asyncio.sleep(0.1)  # the waiter has looked twice by now, and only a call wakes it before a second is over
        freed = time.monotonic()
        await first.end(REPLY)
        second = await waiting
        assert time.monotonic() - freed < 0.5
        with pytest.raises(SessionBusy):
            await begun(store, words="never", wait_s=0)
        await second.end(REPLY)
        await (await third).end(REPLY)
    assert [turn[1] for turn in await record(store)] == [["a question"], ["second"], ["third"]]


async def test_who_gives_up_waiting_is_out_of_the_line(url: str, store: PostgresStore) -> None:
    async with opened(url) as other:
        first = await begun(store)
        with pytest.raises(SessionBusy):
            await begun(other, wait_s=0.1)
        assert not in_line(url)()
        cancelled = asyncio.create_task(begun(other, wait_s=10))
        await until(in_line(url))
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert not in_line(url)()
        await first.end(REPLY)
        await (await begun(other, wait_s=0)).end(REPLY)
    assert len(await record(store)) == 2


async def test_a_live_holder_keeps_its_session_for_longer_than_a_lease(url: str) -> None:
    async with opened(url, lease_s=1.0) as store, opened(url, lease_s=1.0) as other:
        turn = await begun(store)
        with pytest.raises(SessionBusy):
            await begun(other, wait_s=2.5)
        for work in (
            other.history(USER, "s").delete(),
            other.forget(USER),
            other.history(USER, "s").fork("f", turn.turn_id),
        ):
            with pytest.raises(SessionBusy):
                await work
        await turn.end(REPLY)
        assert await record(store) == [("complete", ["a question"], ["an answer"])]


async def test_a_retry_of_a_turn_that_runs_elsewhere_is_refused_at_once_even_behind_a_waiter(
    url: str, store: PostgresStore
) -> None:
    new = NewTurn(input=[HumanMessage("once")], turn_id="mine", given=True)
    async with opened(url) as other:
        turn = await store.history(USER, "s").begin(new)
        assert isinstance(turn, OpenTurn)
        with pytest.raises(SessionBusy, match="turn_id"):
            await other.history(USER, "s").begin(new, wait_s=30)
        waiting = asyncio.create_task(begun(other, wait_s=10))
        await until(in_line(url))
        for each in (store, other):
            with pytest.raises(SessionBusy, match="turn_id"):
                await asyncio.wait_for(each.history(USER, "s").begin(new, wait_s=30), 1)
        await turn.end(REPLY)
        again = await other.history(USER, "s").begin(new)
        assert isinstance(again, Turn)
        assert [m.content for m in again.output] == ["an answer"]
        await (await waiting).end(REPLY)


async def test_stop_reaches_the_server_that_runs_the_turn(url: str, store: PostgresStore) -> None:
    stopped = asyncio.Event()
    turn = await begun(store, on_stop=stopped.set)
    async with opened(url) as other:
        assert await other.history(USER, "s").stop()
        await asyncio.wait_for(stopped.wait(), 1)
        await turn.end(REPLY)
        assert not await other.history(USER, "s").stop()
        with pytest.raises(SessionNotFound):
            await other.history(USER, "unknown").stop()


async def test_a_stop_whose_call_is_lost_is_seen_by_the_heartbeat(url: str, store: PostgresStore) -> None:
    stopped = asyncio.Event()
    turn = await begun(store, on_stop=stopped.set)
    ask(url, "INSERT INTO recollect_stops SELECT holder, fence FROM recollect_sessions")
    await asyncio.wait_for(stopped.wait(), 2)
    await turn.end(REPLY)


async def test_who_lost_its_turn_is_told_to_stop(url: str, store: PostgresStore) -> None:
    stopped = asyncio.Event()
    lost = await begun(store, on_stop=stopped.set)
    async with opened(url) as other:
        ask(url, "DELETE FROM recollect_servers")
        ours = await begun(other, wait_s=0)
        await asyncio.wait_for(stopped.wait(), 2)
        with pytest.raises(TurnLost):
            await lost.end(REPLY)
        await ours.end(REPLY)
    assert [turn[0] for turn in await record(store)] == ["interrupted", "complete"]


async def test_a_cancelled_begin_leaves_no_turn_that_runs(store: PostgresStore) -> None:
    for pause in range(12):
        beginning = asyncio.create_task(begun(store, words=str(pause), wait_s=1))
        await asyncio.sleep(pause / 2000)
        beginning.cancel()
        with suppress(asyncio.CancelledError):
            await (await beginning).end(REPLY)
    await (await begun(store, wait_s=0)).end(REPLY)
    assert all(turn[0] in ("interrupted", "complete") for turn in await record(store))


async def test_an_end_is_written_although_its_caller_is_cancelled(store: PostgresStore) -> None:
    turn = await begun(store)
    ending = asyncio.create_task(turn.end(REPLY))
    await asyncio.sleep(0)
    ending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ending
    assert await record(store) == [("complete", ["a question"], ["an answer"])]


# PostgreSQL that fails


async def test_a_reply_is_saved_by_a_server_that_comes_back_and_nobody_takes_its_turn(
    server: PostgresServer, url: str, store: PostgresStore
) -> None:
    async with opened(url) as other:
        turn = await begun(store)
        waiting = asyncio.create_task(outlasting(lambda: begun(other, words="next", wait_s=20)))
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


async def outlasting(work: Callable[[], Any]) -> Any:
    """The result of `work`, tried again while the store is unavailable."""
    async with asyncio.timeout(20):
        while True:
            with suppress(StoreUnavailable):
                return await work()
            await asyncio.sleep(0.05)


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
        await (await begun(other, words="after", wait_s=10)).end(REPLY)
        assert await record(store) == [("interrupted", ["a question"], []), ("complete", ["after"], ["an answer"])]


async def test_a_silent_server_is_an_error_soon_and_its_return_saves_the_reply(
    server: PostgresServer, url: str
) -> None:
    async with opened(url, statement_s=0.5) as store:
        turn = await begun(store)
        server.pause()
        try:
            ending = asyncio.create_task(turn.end(REPLY))
            with pytest.raises(StoreUnavailable):
                await asyncio.wait_for(store.history(USER, "other").info(), 5)
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
        for cut in range(4):
            proxy.cut_replies = 1
            turn = await begun(store, words=str(cut), window_tokens=1000)
            assert len(turn.past) == 2 * cut
            proxy.cut_replies = 1
            await turn.end(REPLY)
            assert await record(store) == [("complete", [str(n)], ["an answer"]) for n in range(cut + 1)]
        assert proxy.cuts == 8
        assert (await store.history(USER, "s").info()).turns == 4


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


# Connections


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


# Tables


async def test_tables_are_made_once_by_any_number_of_servers(url: str) -> None:
    async with opened(url) as one, opened(url) as two, opened(url) as three:
        shown = await asyncio.gather(*(whole_turn(each, "s", "hello") for each in (one, two, three)))
    assert sorted(shown) == [0, 1, 2]
    assert ask(url, "SELECT count(*) FROM recollect_schema") == len(migrations())


async def test_concurrent_migrations_apply_each_step_once(url: str) -> None:
    applied = await asyncio.gather(*(migrate_schema(url) for _ in range(5)))
    assert sorted(applied, key=len) == [[], [], [], [], [number for number, _ in migrations()]]


async def test_tables_of_a_newer_version_are_left_alone(url: str) -> None:
    await migrate_schema(url)
    ask(url, "INSERT INTO recollect_schema VALUES (999)")
    async with opened(url) as store:
        with pytest.raises(StoreUnavailable, match="newer version"):
            await begun(store)
    with pytest.raises(StoreUnavailable, match="newer version"):
        await migrate_schema(url)


async def test_a_database_that_can_not_hold_every_text_is_refused(server: PostgresServer) -> None:
    ask(server.url, "CREATE DATABASE ascii ENCODING 'SQL_ASCII' TEMPLATE template0 LOCALE 'C'")
    with pytest.raises(StoreUnavailable, match="UTF8"):
        await migrate_schema(f"{server.url.removesuffix('postgres')}ascii")


async def test_users_without_rights_can_use_tables_that_were_made_for_them(server: PostgresServer, url: str) -> None:
    await migrate_schema(url)
    schema = url.rpartition("%3D")[2]
    ask(url, f"""
        DO $$ BEGIN CREATE ROLE app LOGIN PASSWORD 'app'; EXCEPTION WHEN duplicate_object THEN NULL; END $$;
        GRANT USAGE ON SCHEMA {schema} TO app;
        GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO app;
    """)  # fmt: skip
    async with opened(url.replace(server.url.partition("@")[0], "postgresql://app:app")) as store:
        assert await whole_turn(store, "s", "hello") == 0


async def test_the_same_statements_run_on_partitioned_tables(url: str) -> None:
    await migrate_schema(url)
    for table in ("recollect_sessions", "recollect_turns", "recollect_waiters"):
        parts = [
            f"CREATE TABLE {table}_{n} PARTITION OF {table} FOR VALUES WITH (MODULUS 4, REMAINDER {n})"
            for n in range(4)
        ]
        ask(url, f"""
            ALTER TABLE {table} RENAME TO old;
            CREATE TABLE {table} (LIKE old INCLUDING ALL) PARTITION BY HASH (user_id);
            {"; ".join(parts)};
            DROP TABLE old;
        """)  # fmt: skip
    async with opened(url) as store, opened(url) as other:
        await asyncio.gather(*(whole_turn(each, "s", "hello") for each in (store, other) for _ in range(4)))
        turns = await store.history(USER, "s").turns()
        await store.history(USER, "s").fork("f", turns.items[3].turn_id)
        await store.history(USER, "s").rewind(turns.items[3].turn_id)
        assert [s.turns for s in (await store.sessions(USER, query="heard")).items] == [3, 4]
        await store.forget(USER)
        assert (await store.sessions(USER)).items == []


# What is read


async def test_the_window_is_that_of_every_store(store: PostgresStore) -> None:
    draw, memory = random.Random(7), MemoryStore()
    for n in range(40):
        limit, asked, answered = draw.choice((1, 7, 30)), draw.randrange(5), draw.randrange(9)
        status = draw.choice((TurnStatus.COMPLETE, TurnStatus.INTERRUPTED, TurnStatus.FAILED))
        output = [AIMessage(f"a{n}")] if draw.random() < 0.8 else []
        pasts = []
        for each in (store, memory):
            new = NewTurn(input=[HumanMessage(f"q{n}")], tokens=asked)
            turn = await each.history(USER, "s").begin(new, window_tokens=limit)
            assert isinstance(turn, OpenTurn)
            pasts.append(turn.past)
            await turn.end(Reply(status=status, output=output, tokens=answered))
        assert pasts[0] == pasts[1]


async def test_the_statement_starts_the_window_where_window_floor_does(
    connection: psycopg.Connection[Any], store: PostgresStore
) -> None:
    message = '[{"type": "ai", "data": {"content": "%s"}}]'
    for tokens in (0, 1, 3, 49, 50, 99, 100, 149, 150, 10**9):
        for limit in (1, 2, 3, 99, 100, 101):
            session, floor = f"{tokens} {limit}", window_floor(tokens + 3, limit)
            await store.history(USER, session).restore([], title="t", created_at=now())
            with connection.transaction():
                connection.execute("UPDATE recollect_sessions SET tokens = %s WHERE session_id = %s", [tokens, session])
                for seq, before in enumerate((floor - 1, floor), 1):
                    connection.execute(
                        "INSERT INTO recollect_turns (user_id, session_id, seq, turn_id, status, chain, kind,"
                        " started_at, input, output, tokens, tokens_before, said)"
                        " VALUES (%s, %s, %s, %s, 'complete', '', '', now(), '[]', %s, 0, %s, '')",
                        [USER, session, seq, str(seq), message % seq, before],
                    )
                connection.execute("UPDATE recollect_sessions SET last_seq = 2 WHERE session_id = %s", [session])
            turn = await begun(store, session, window_tokens=limit)
            assert [m.content for m in turn.past] == ["2"]
            await turn.end(REPLY)


async def test_a_turn_of_a_long_history_reads_its_window_alone(url: str, store: PostgresStore) -> None:
    long = "x" * 500
    turns = [
        Turn(turn_id=str(n), status=TurnStatus.COMPLETE if n < 4000 else TurnStatus.FAILED, chain="", started_at=now(),
             input=[HumanMessage(long)], output=[AIMessage(long)], tokens=300)
        for n in range(4010)
    ]  # fmt: skip
    await store.history(USER, "s").restore(turns, title="long", created_at=now())
    turn = await begun(store, window_tokens=3000)
    assert 10 <= len(turn.past) <= 20
    await turn.end(REPLY)
    params = {
        "user": USER, "session": "s", "fence": "f", "server": "v", "turn": "t", "given": True, "patient": True,
        "title": "", "title_said": "", "chain": "", "input": "[]", "said": "", "tokens": 3, "half": 1500,
    }  # fmt: skip
    async with store.link().connection() as conn:
        await conn.execute("SET plan_cache_mode = force_generic_plan")
        async with conn.transaction(force_rollback=True):
            plan = await (
                await conn.execute(f"EXPLAIN (ANALYZE, BUFFERS) {sql.BEGIN}", params, prepare=True)
            ).fetchall()
    removed = [int(line.split()[-1]) for (line,) in plan if "Rows Removed" in line]
    assert max(removed) < 40, "\n".join(line for (line,) in plan)
    assert not any("Seq Scan on recollect_turns" in line for (line,) in plan)


async def test_sessions_of_the_same_microsecond_are_all_listed(store: PostgresStore) -> None:
    at = now()
    for n in range(7):
        await store.history(USER, f"s{n}").restore([], title="t", created_at=at)
    found, cursor = list[str](), None
    while True:
        page = await store.sessions(USER, limit=2, cursor=cursor)
        found += [session.session_id for session in page.items]
        cursor = page.next
        if cursor is None:
            break
    assert found == [f"s{n}" for n in reversed(range(7))]


async def test_search_uses_an_index_where_the_server_has_one_to_offer(postgres_url: str) -> None:
    if ask(postgres_url, "SELECT count(*) FROM pg_available_extensions WHERE name IN ('pg_trgm', 'btree_gin')") != 2:
        pytest.skip("this PostgreSQL comes without pg_trgm and btree_gin")
    url = fresh_url(postgres_url)
    try:
        async with opened(url) as store, store.link().connection() as conn:
            # An empty table is read by any other way there is, so there is to be none.
            for constraint in ("recollect_turns_pkey", "recollect_turns_turn_id_session_id_user_id_key"):
                await conn.execute(f"ALTER TABLE recollect_turns DROP CONSTRAINT {constraint}")
            await conn.execute("SET enable_seqscan = off")
            params = {"user": USER, "session": "", "at": now(), "like": like("needle"), "limit": 2}
            plan = await (await conn.execute(f"EXPLAIN {sql.SESSIONS_THAT_SAY}", params)).fetchall()
            assert any("recollect_turns_said" in line for (line,) in plan)
    finally:
        drop_fresh(url)


@pytest.mark.parametrize("cursor", ["", "x", "~", "1", "1-~s", "-~s", "-99999999999999999~s", "9" * 30 + "~s"])
async def test_a_cursor_that_is_none_is_said_to_be_so(store: PostgresStore, cursor: str) -> None:
    with pytest.raises(InvalidCursor):
        await store.sessions(USER, cursor=cursor)


async def test_search_knows_no_wildcards_no_case_and_every_character(store: PostgresStore) -> None:
    said = {
        "a": "100% of it",
        "b": "1000 of it",
        "c": "snake_case \\ backslash",
        "d": "Größe und ÉCLAIR",
        "e": "a\0b \ud800",
    }
    for session, text in said.items():
        await store.history(USER, session).aadd_messages([HumanMessage("?"), AIMessage(text)])
        await store.history("bob", session).aadd_messages([HumanMessage(text)])
    await store.history(USER, "e").rename("A Title, \0 with {")
    for query, expected in {
        "100%": "a", "0 OF": "b", "e_c": "c", "\\": "c", "grösse": "d", "éclair": "d", "a\0b": "e", "\ud800": "e",
        "title, \0": "e", "of it": "ab", "nothing": "",
    }.items():  # fmt: skip
        found = (await store.sessions(USER, query=query)).items
        assert sorted(session.session_id for session in found) == list(expected), query
    assert (await store.history(USER, "e").info()).title == "A Title, \0 with {"


async def test_ids_of_any_text_are_kept_apart(store: PostgresStore) -> None:
    names = [
        "a",
        "A",
        "é",
        "e\u0301",
        '"a"',
        "{}",
        '{"wtf8": "YQ=="}',
        "a\0",
        "\ud800",
        "\ud83d\ude00",
        "😀",
        "a/b",
        "",
        " ",
        "%",
        "x" * 128,
    ]
    for user in names:
        for session in names:
            new = NewTurn(input=[HumanMessage(f"{user!r} {session!r}")], turn_id="t" + session)
            turn = await store.history(user, session).begin(new)
            assert isinstance(turn, OpenTurn)
            await turn.end(REPLY)
    for user in names:
        sessions = (await store.sessions(user)).items
        assert sorted(session.session_id for session in sessions) == sorted(names)
        for session in names:
            (turn_,) = (await store.history(user, session).turns()).items
            assert turn_.turn_id == "t" + session
            assert [m.content for m in turn_.input] == [f"{user!r} {session!r}"]


async def test_an_import_is_whole_or_not_at_all(store: PostgresStore) -> None:
    turn = Turn(turn_id="t", status=TurnStatus.COMPLETE, chain="", started_at=now(), input=[HumanMessage("x")])
    with pytest.raises(InvalidId):
        await store.history(USER, "s").restore([turn, turn], title="t", created_at=now())
    assert (await store.sessions(USER)).items == []
    await store.history(USER, "s").restore([turn], title="t", created_at=now())
    with pytest.raises(SessionExists):
        await store.history(USER, "s").restore([turn], title="t", created_at=now())
    with pytest.raises(SessionExists):
        await store.history(USER, "s").fork("s", "t")


# What it says, and to whom


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

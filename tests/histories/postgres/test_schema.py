"""The tables: made once, brought up to date, left alone when they are newer."""

from __future__ import annotations

import asyncio

import psycopg
import pytest
from langchain_core.messages import HumanMessage

from histories.base import (
    NewTurn,
    OpenTurn,
    StoreUnavailable,
    TurnStatus,
)
from histories.postgres.schema import migrations
from histories.postgres.store import migrate_schema
from tests.histories.postgres.steps import ask, opened
from tests.histories.steps import REPLY, begun
from tests.postgres_server import PostgresServer
from tests.store_holder import USER, whole_turn


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


PARTITIONED = (
    "recollect_sessions", "recollect_turns", "recollect_waiters", "recollect_events", "recollect_readers",
)  # fmt: skip


async def test_the_same_statements_run_on_partitioned_tables(url: str) -> None:
    await migrate_schema(url)
    for table in PARTITIONED:
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
        assert len(await store.recall(USER, "heard")) == 7
        await store.forget(USER)
        assert (await store.sessions(USER)).items == []


async def test_what_the_first_version_wrote_is_read_and_gone_on_with(url: str) -> None:
    as_it_was = (migrations()[0][1]).read_text("utf-8")
    message = '[{"type":"human","data":{"content":"%s"}}]'
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(as_it_was)
        conn.execute(
            "CREATE TABLE recollect_schema (version integer PRIMARY KEY, applied_at timestamptz DEFAULT now())"
        )
        conn.execute("INSERT INTO recollect_schema VALUES (1)")
        conn.execute(
            """
            INSERT INTO recollect_sessions VALUES
            (%s, 's', 'An Old Title', 'an old title', 'chat', now(), now(), 3, 20, 5, 'a dead server', 'f')""",
            [USER],
        )
        for seq, status, tokens, before in ((1, "complete", 10, 0), (4, "complete", 10, 10), (5, "running", 0, 20)):
            conn.execute(
                "INSERT INTO recollect_turns VALUES (%s, 's', %s, %s, 'f', %s, 'chat', '', now(), now(), %s, %s, NULL,"
                " %s, %s, '')",
                [USER, seq, f"t{seq}", status, message % f"old {seq}", message % "yes", tokens, before],
            )  # fmt: skip
    async with opened(url) as store:
        history = store.history(USER, "s")
        turn = await begun(store, window_tokens=1000)
        assert [m.content for m in turn.past] == ["old 1", "yes", "old 4", "yes"]
        await turn.end(REPLY)
        assert [t.turn_id for t in (await history.turns()).items] == ["t1", "t4", "t5", turn.turn_id]
        assert (await history.turn("t5")).status is TurnStatus.INTERRUPTED
        assert [s.title for s in (await store.sessions(USER, query="old title yes")).items] == ["An Old Title"]
        assert {found.turn.turn_id for found in await store.recall(USER, "old")} == {"t1", "t4"}
        version = await history.begin(NewTurn(input=[HumanMessage("new 4")], version_of="t4"))
        assert isinstance(version, OpenTurn)
        await version.end(REPLY)
        assert [t.turn_id for t in (await history.turns()).items] == ["t1", version.turn_id]
        await history.choose("t4")
        assert (await history.info()).turns == 4

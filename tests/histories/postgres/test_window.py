"""The window: that of every store, however long the history."""

from __future__ import annotations

import random
from typing import Any

import psycopg
from langchain_core.messages import AIMessage, HumanMessage

from histories.base import (
    NewTurn,
    OpenTurn,
    Reply,
    Turn,
    TurnStatus,
    now,
)
from histories.memory import MemoryStore
from histories.postgres import statements
from histories.postgres.driver import Connection
from histories.postgres.store import PostgresStore
from histories.window import window_floor
from tests.histories.steps import REPLY, begun
from tests.proofs import proves
from tests.store_holder import USER


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
                        " started_at, input, output, tokens, tokens_before, parent)"
                        " VALUES (%s, %s, %s, %s, 'complete', '', '', now(), '[]', %s, 0, %s, 0)",
                        [USER, session, seq, str(seq), message % seq, before],
                    )
                connection.execute(
                    "UPDATE recollect_sessions SET last_seq = 2, head = 2 WHERE session_id = %s", [session]
                )
            turn = await begun(store, session, window_tokens=limit)
            assert [m.content for m in turn.past] == ["2"]
            await turn.end(REPLY)


@proves("G9")
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
    await store.history(USER, "s").rewind("2000", keep=True)
    await store.history(USER, "s").choose("1")  # back again: what has been hidden, and is, stands in nobody's way
    for _ in range(3):
        again = await begun(store, window_tokens=3000)
        await again.end(REPLY)
        await store.history(USER, "s").rewind(again.turn_id, keep=True)
    assert await turns_read(store) < 60


async def turns_read(store: PostgresStore) -> int:
    """How many turns PostgreSQL reads in order to begin one, whatever the plan that it makes."""
    params = {
        "user": USER, "session": "s", "token": "f", "server": "v", "turn": "t", "given": True, "patient": True,
        "version_of": None, "if_last": None, "title": "", "title_words": [], "chain": "", "input": "[]", "tokens": 3,
        "half": 1500,
    }  # fmt: skip
    async with store.link().connection() as conn, conn.transaction(force_rollback=True):
        await conn.execute("SET LOCAL plan_cache_mode = force_generic_plan")
        before = await counted(conn)
        rows = await (await conn.execute(statements.BEGIN, params)).fetchall()
        assert rows[0][0] == "begun"
        return await counted(conn) - before


async def counted(conn: Connection) -> int:
    """How many turns this connection has read of late."""
    asked = await conn.execute(
        "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relid = 'recollect_turns'::regclass"
    )
    return int((await asked.fetchall())[0][0])

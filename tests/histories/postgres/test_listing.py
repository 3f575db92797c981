"""What is listed and found, and that every text is an id."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage

from histories.base import (
    InvalidCursor,
    InvalidId,
    NewTurn,
    OpenTurn,
    Page,
    SessionExists,
    StoreUnavailable,
    Turn,
    TurnStatus,
    now,
)
from histories.postgres import statements
from histories.postgres.rows import queries
from histories.postgres.store import PostgresStore
from tests.histories.postgres.steps import ask, opened, until
from tests.histories.steps import REPLY
from tests.proofs import proves
from tests.store_holder import USER, whole_turn
from tests.stores import all_sessions


@pytest.mark.parametrize("cursor", ["", "x", "~", "1", "1-~s", "-~s", "-99999999999999999~s", "9" * 30 + "~s"])
async def test_a_cursor_that_is_none_is_said_to_be_so(store: PostgresStore, cursor: str) -> None:
    with pytest.raises(InvalidCursor):
        await store.sessions(USER, cursor=cursor)


@proves("G7")
async def test_what_a_search_finds_is_its_users_alone_and_in_the_index_from_then_on(
    url: str, store: PostgresStore
) -> None:
    turn = Turn(
        turn_id="t", status=TurnStatus.COMPLETE, chain="", started_at=now(), input=[HumanMessage("a\0b \ud800")]
    )
    for user in (USER, "bob"):
        await store.history(user, "s").restore([turn], title="A Title, \0 with {", created_at=now())
    assert ask(url, "SELECT count(*) FROM recollect_turns WHERE words IS NULL") == 2
    for query in ("title", "b a", "with B"):
        assert [session.session_id for session in (await store.sessions(USER, query=query)).items] == ["s"]
    assert ask(url, "SELECT count(*) FROM recollect_turns WHERE words IS NULL") == 1
    assert (await store.history(USER, "s").info()).title == "A Title, \0 with {"


@proves("G13")
async def test_a_page_of_a_long_session_that_was_just_taken_in_is_there_at_once(store: PostgresStore) -> None:
    history = store.history(USER, "s")
    turns = [
        Turn(turn_id=f"t{n}", status=TurnStatus.COMPLETE, chain="", started_at=now(), input=[HumanMessage("x")])
        for n in range(10_000)
    ]
    await history.restore(turns, title="T", created_at=now())
    async with asyncio.timeout(20):  # nobody has told the planner of them yet: it took a minute
        page = await history.turns(limit=128)
    assert [turn.turn_id for turn in page.items] == [f"t{n}" for n in range(9872, 10_000)]


async def test_a_search_after_an_import_ends_in_its_time_and_goes_on_until_all_is_in_the_index(
    store: PostgresStore, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("histories.postgres.search._INDEX_S", 0.0)
    monkeypatch.setattr("histories.postgres.search._RECALL_S", 0.0)
    monkeypatch.setattr("histories.postgres.search._PART", 10)
    for session in range(5):
        turns = [
            Turn(
                turn_id=str(n), status=TurnStatus.COMPLETE, chain="", started_at=now(), input=[HumanMessage("a needle")]
            )
            for n in range(9)
        ]
        await store.history(USER, f"s{session}").restore(turns, title="t", created_at=now())
    first = await store.sessions(USER, query="needle")
    assert ([one.session_id for one in first.items], first.next is not None) == (["s4"], True)
    assert ask(url, "SELECT count(*) FROM recollect_turns WHERE words IS NULL") == 36
    assert len(await store.recall(USER, "needle", limit=50)) == 19
    found = await all_sessions(store, USER, limit=2, query="needle")
    assert [one.session_id for one in found] == ["s4", "s3", "s2", "s1", "s0"]
    assert [len(one.hits) for one in found] == [3] * 5


async def _restore_many(store: PostgresStore) -> None:
    turns = [
        Turn(
            turn_id=str(n), status=TurnStatus.COMPLETE, chain="", started_at=now(), input=[HumanMessage(f"word{n} is")]
        )
        for n in range(2000)
    ]
    await store.history(USER, "s").restore(turns, title="many", created_at=now())


async def test_a_search_reads_the_index_and_not_the_turns(store: PostgresStore) -> None:
    await _restore_many(store)
    (session,) = await all_sessions(store, USER, query="word1999 IS")
    assert session.hits[0].turn_id == "1999"
    params = {"queries": queries(USER, "word7", prefixes=True), "user": USER, "at": now(), "session": "", "limit": 2}
    params |= {"end_at": None, "end": None}
    async with store.link().connection() as conn:
        await conn.execute("ANALYZE recollect_turns")
        plan = await (await conn.execute(f"EXPLAIN {statements.SESSIONS_THAT_SAY}", params)).fetchall()
    assert any("recollect_turns_words" in line for (line,) in plan), plan


async def test_a_recall_in_a_long_session_reads_what_it_gives_and_not_all_of_it(
    store: PostgresStore, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("histories.postgres.search._RECALL_S", 60.0)
    await _restore_many(store)
    (found,) = await store.recall(USER, "word1234", session_id="s")
    assert found.turn.turn_id == "1234"
    params = {
        "queries": queries(USER, "word1234", prefixes=True), "user": USER, "session": "s", "most": 100, "limit": 100,
        "but_sessions": ["s"] * 20, "but_turns": [str(n) for n in range(1980, 2000)],
    }  # fmt: skip
    async with store.link().connection() as conn:
        await conn.execute("ANALYZE recollect_turns")
        explained = await conn.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statements.CANDIDATES}", params)
        ((plan,),) = await explained.fetchall()
    assert max(_rows_read(plan[0]["Plan"])) < 100


def _rows_read(node: dict[str, Any]) -> Iterator[float]:
    """How many rows each step of a plan has looked at."""
    yield node["Actual Loops"] * (node["Actual Rows"] + node.get("Rows Removed by Filter", 0))
    for inner in node.get("Plans", []):
        yield from _rows_read(inner)


async def test_the_index_is_made_by_the_keys_of_turns_however_many_are_not_in_it(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _restore_many(store)
    params = {"user": USER, "sessions": ["s"] * 10, "turns": [str(n) for n in range(10)], "words": ["x"] * 10}
    async with store.link().connection() as conn:
        await conn.execute("SET plan_cache_mode = force_generic_plan")
        explained = await conn.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statements.INDEX_TURNS}", params, prepare=True)
        ((plan,),) = await explained.fetchall()
    assert max(_rows_read(plan[0]["Plan"])) < 100


async def test_a_text_of_very_many_words_is_kept_and_found_by_the_first_of_them(store: PostgresStore) -> None:
    text = " ".join(f"{number:x}{'y' * 70}" for number in range(40_000))
    await store.history(USER, "s").aadd_messages([HumanMessage(text), AIMessage("yes")])
    assert len((await store.sessions(USER, query=f"1{'y' * 70}")).items) == 1


@proves("G13")
async def test_hundreds_of_searches_of_one_user_leave_the_others_their_turn(url: str) -> None:
    async with opened(url, pool_size=4) as store:
        await whole_turn(store, "s", "hello")
        async with store.link().connection() as conn, conn.transaction():
            await conn.execute("LOCK recollect_turns")  # whoever searches waits for it
            searching = [asyncio.create_task(store.sessions(USER, query="hello")) for _ in range(100)]
            await until(lambda: ask(url, "SELECT count(*) FROM pg_locks WHERE NOT granted") == 1)
            await asyncio.wait_for(store.ping(), 5)
        found = await asyncio.gather(*searching, return_exceptions=True)
        assert {len(page.items) for page in found if isinstance(page, Page)} == {1}
        assert {type(page) for page in found} <= {Page, StoreUnavailable}


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

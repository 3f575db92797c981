"""Lists, imports and searches of sessions in Redis."""

from __future__ import annotations

import pytest
from langchain_core.messages import HumanMessage

from histories.base import (
    OpenTurn,
    StoreFull,
    Turn,
    TurnStatus,
    now,
)
from histories.redis.store import RedisStore
from histories.redis.texts import Texts
from tests.redis_server import RedisServer
from tests.store_holder import USER, whole_turn
from tests.stores import all_sessions, replied, said, talk


async def test_an_import_that_broke_off_leaves_nothing_for_long(server: RedisServer, store: RedisStore) -> None:
    turns = [
        Turn(
            turn_id=str(n), status=TurnStatus.COMPLETE, chain="", started_at=now(), input=[HumanMessage("x" * 900_000)]
        )
        for n in range(10)
    ]
    with server.client() as client:
        client.config_set("maxmemory", int(client.info("memory")["used_memory"]) + 6_000_000)
        with pytest.raises(StoreFull):
            await store.history(USER, "s").restore(turns, title="t", created_at=now())
        left = client.keys("*new-*")
        assert left
        assert all(client.pttl(key) > 0 for key in left)
        client.config_set("maxmemory", 0)
    assert (await store.sessions(USER)).items == []
    await store.history(USER, "s").restore(turns, title="t", created_at=now())
    assert (await store.history(USER, "s").info()).turns == 10


async def test_a_search_gives_what_it_found_in_its_time_and_goes_on_from_there(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        await talk(store.history(USER, str(number)), "hello" if number % 2 else "good day")
    monkeypatch.setattr("histories.redis.store._SEARCH_S", -1.0)
    page = await store.sessions(USER, query="hello")
    assert (page.items, page.next is not None) == ([], True)
    assert [session.session_id for session in await all_sessions(store, USER, query="hello")] == ["3", "1"]


async def test_a_search_sees_what_was_added_taken_away_and_chosen_since(store: RedisStore) -> None:
    history = store.history(USER, "s")

    async def finds(*words: str) -> list[bool]:
        return [bool((await store.sessions(USER, query=word)).items) for word in words]

    one, two = await talk(history, "apple", "pear")
    await history.rename("a title")
    assert await finds("apple", "pear", "plum") == [True, True, False]
    await talk(history, "plum")
    assert await finds("apple", "pear", "plum") == [True, True, True]
    await history.delete_turn(two)
    assert await finds("apple", "pear", "plum") == [True, False, True]
    turn = await history.begin(said("cherry", version_of=one))
    assert isinstance(turn, OpenTurn)
    await turn.end(replied())
    assert await finds("apple", "plum", "cherry") == [False, False, True]
    await history.choose(one)
    assert await finds("apple", "plum", "cherry") == [True, True, False]


async def test_a_search_of_one_very_long_session_ends_in_its_time_and_reads_on_with_the_next(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page leaves off within the session, and as many pages as that takes find what stands at its beginning."""
    turns = [
        Turn(
            turn_id=str(n), status=TurnStatus.COMPLETE, chain="", started_at=now(),
            input=[HumanMessage("needle" if n == 0 else "newest" if n == 899 else "hay")],
        )
        for n in range(900)
    ]  # fmt: skip
    await store.history(USER, "long").restore(turns, title="t", created_at=now())
    await talk(store.history(USER, "older"), "a needle, too")
    await talk(store.history(USER, "newer"), "a needle here")
    monkeypatch.setattr("histories.redis.store._SEARCH_S", -1.0)
    monkeypatch.setattr("histories.redis.texts._BATCH", 200)
    assert [one.session_id for one in await all_sessions(store, USER, query="newest")] == ["long"]
    pages, cursor = list[list[str]](), None
    while True:
        page = await store.sessions(USER, query="needle", cursor=cursor)
        pages.append([one.session_id for one in page.items])
        cursor = page.next
        if cursor is None:
            break
    assert [name for page_ in pages for name in page_] == ["newer", "older", "long"]
    assert len(pages) >= 4
    await talk(store.history(USER, "long"), "hay")  # now it is the first one of the list
    store._texts = Texts()
    found = await all_sessions(store, USER, query="needle")
    assert [one.session_id for one in found] == ["long", "newer", "older"]


async def test_a_recall_in_a_long_session_reaches_its_first_turn(store: RedisStore) -> None:
    turns = [
        Turn(
            turn_id=str(n), status=TurnStatus.COMPLETE, chain="", started_at=now(),
            input=[HumanMessage("A dog named Rex." if n == 0 else f"A dog, number {n}.")],
        )
        for n in range(2500)
    ]  # fmt: skip
    await store.history(USER, "s").restore(turns, title="dogs", created_at=now())

    async def named() -> str:
        (found,) = await store.recall(USER, "What is the dog named?", session_id="s", limit=1)
        return found.turn.turn_id

    for _ in range(20):  # each reads on
        if await named() == "0":
            break
    assert await named() == "0"
    await store.history(USER, "s").rewind("1")
    await whole_turn(store, "s", "a cat")
    assert await named() == "0"
    await store.history(USER, "s").rewind("0")
    assert await store.recall(USER, "What is the dog named?", session_id="s") == []

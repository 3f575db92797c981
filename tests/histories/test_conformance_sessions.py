"""What every store does about sessions: pages, lists, titles, rewinds, forks, imports, forgetting."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta

import pytest

from histories.base import (
    HistoryMoved,
    HistoryStore,
    InvalidCursor,
    Kept,
    OpenTurn,
    SessionBusy,
    SessionExists,
    SessionHistory,
    SessionNotFound,
    Turn,
    TurnNotFound,
    now,
)
from histories.base import TurnStatus as Is
from histories.memory import MemoryStore
from tests.proofs import proves
from tests.stores import FAILED, Stores, all_sessions, all_turns, begun, fill, replied, said, shown_past, talk, texts


async def test_pages_of_turns_are_stable_while_turns_are_added(history: SessionHistory) -> None:
    await talk(history, *map(str, range(10)))
    page = await history.turns(limit=3)
    assert [texts(t.input) for t in page.items] == [["7"], ["8"], ["9"]]
    await talk(history, "10", "11")
    await history.rename("another title")
    held = await begun(history, "12")
    seen = []
    while page.next is not None:
        page = await history.turns(limit=3, before=page.next)
        seen.append([texts(t.input)[0] for t in page.items])
    assert seen == [["4", "5", "6"], ["1", "2", "3"], ["0"]]
    await held.end(replied())


async def test_a_page_that_holds_all_has_no_next(history: SessionHistory) -> None:
    await talk(history, "1", "2", "3")
    assert (await history.turns(limit=3)).next is None
    assert (await history.turns(limit=2)).next is not None


@pytest.mark.parametrize("cursor", ["", "x", "-1", "1e3", "９", "99999999999999999999", " 1", "1;2", "\0"])
async def test_a_made_up_cursor_is_refused(store: HistoryStore, history: SessionHistory, cursor: str) -> None:
    await talk(history, "hello")
    with pytest.raises(InvalidCursor):
        await history.turns(before=cursor)
    for user in ("alice", "nobody"):
        with pytest.raises(InvalidCursor):
            await store.sessions(user, cursor=cursor)


async def test_sessions_are_listed_newest_first(store: HistoryStore) -> None:
    for name in ("a", "b", "c"):
        await talk(store.history("alice", name), f"hello {name}")
    await talk(store.history("alice", "a"), "more")
    await talk(store.history("bob", "z"), "mine")
    listed = await all_sessions(store, "alice")
    assert [(s.session_id, s.title, s.turns) for s in listed] == [
        ("a", "hello a", 2), ("c", "hello c", 1), ("b", "hello b", 1)
    ]  # fmt: skip
    for session in listed:
        assert await store.history("alice", session.session_id).info() == session
        assert session.created_at <= session.updated_at <= now()
    assert await all_sessions(store, "nobody") == []
    assert await all_sessions(store, "alice", limit=1) == await all_sessions(store, "alice", limit=2) == listed


async def test_the_list_is_in_the_order_of_updated_at_whatever_happens(store: HistoryStore) -> None:
    for name in range(8):
        await talk(store.history("alice", str(name)), "hello")
    await store.history("alice", "3").rename("x")
    await store.history("alice", "old").restore([], title="old", created_at=now() - timedelta(days=3))
    listed = await all_sessions(store, "alice")
    assert [s.updated_at for s in listed] == sorted((s.updated_at for s in listed), reverse=True)
    assert (listed[0].session_id, listed[-1].session_id) == ("3", "old")


async def test_pages_of_sessions_skip_none_that_stays_as_it_is(store: HistoryStore) -> None:
    for name in range(9):
        await talk(store.history("alice", str(name)), "hello")
    page = await store.sessions("alice", limit=4)
    assert [s.session_id for s in page.items] == ["8", "7", "6", "5"]
    await talk(store.history("alice", "new"), "hello")
    await store.history("alice", "5").delete()
    rest = await store.sessions("alice", limit=4, cursor=page.next)
    assert [s.session_id for s in rest.items] == ["4", "3", "2", "1"]
    last = await store.sessions("alice", limit=4, cursor=rest.next)
    assert ([s.session_id for s in last.items], last.next) == (["0"], None)


async def test_a_search_finds_what_was_said_or_titled(store: HistoryStore) -> None:
    await talk(store.history("alice", "1"), "Where is my ÜBERSCHRIFT?", reply=replied("Straße\n12"))
    await talk(store.history("alice", "2"), "Another thing", reply=replied('say "cheese" 🧀'))
    await store.history("alice", "2").rename("Named 100% by hand_")
    await talk(store.history("alice", "3"), "nothing of the kind")
    await talk(store.history("bob", "4"), "Where, Straße, cheese")

    async def found(query: str) -> list[str]:
        return [s.session_id for s in await all_sessions(store, "alice", limit=1, query=query)]

    assert await found("where") == ["1"]
    assert await found("WHERE IS") == ["1"]
    assert await found("überschrift") == ["1"]
    assert await found("STRASSE") == await found("straße") == ["1"]
    assert await found('"CHEESE" 🧀') == ["2"]
    assert await found("by hand") == await found("100%") == await found("hand_") == ["2"]
    assert await found("") == await found("  ") == ["3", "2", "1"]
    for miss in ("no such words", "_x_", "session", "complete", "alice", "crc", "*", "\\", "[a-z]"):
        assert await found(miss) == [], miss


async def test_a_rename_lasts_whatever_follows(history: SessionHistory) -> None:
    await talk(history, "hello")
    turn = await begun(history, "more")
    await history.rename('A "title" 🦜')
    await turn.end(replied("and", tokens=3))
    await talk(history, "even more")
    assert ((await history.info()).title, (await history.info()).turns) == ('A "title" 🦜', 3)
    await history.rename("Another")
    assert (await history.info()).title == "Another"


async def test_the_title_is_what_was_said_first(store: HistoryStore) -> None:
    history = store.history("alice", "s1")
    await talk(history, "  How do\nI bake " + "a very good bread " * 9)
    assert (await history.info()).title == "How do I bake a very good bread a very good bread a very…"
    await talk(history, "second")
    assert (await history.info()).title.startswith("How do")


async def test_a_rewind_ends_the_history_before_that_turn(history: SessionHistory) -> None:
    await fill(history, 6, tokens=10)
    await history.rename("kept")
    ids = [t.turn_id for t in await all_turns(history)]
    with pytest.raises(TurnNotFound):
        await history.rewind("no such turn")
    await history.rewind(ids[3])
    assert [t.turn_id for t in await all_turns(history)] == ids[:3]
    assert (await history.info()).turns == 3
    assert (await history.info()).title == "kept"
    assert await shown_past(history, 61, tokens=10) == ["q0", "a0", "q1", "a1", "q2", "a2"]
    with pytest.raises(TurnNotFound):
        await history.rewind(ids[4])
    await history.rewind(ids[0])
    assert await all_turns(history) == []
    assert await shown_past(history, 100) == []
    await talk(history, "afresh")
    assert (await history.info()).turns == 2


async def test_nothing_is_taken_from_a_session_whose_turn_runs(stores: Stores, history: SessionHistory) -> None:
    ids = await talk(history, "hello")
    turn = await begun(history, "more")
    for asker in (history, (await stores.open()).history("alice", "s1")):
        changes = asker.rewind(ids[0]), asker.delete(), asker.aclear(), asker.fork("s2", turn.turn_id)
        for change in changes:
            with pytest.raises(SessionBusy):
                await change
    await turn.end(replied())
    assert len(await all_turns(history)) == 2


async def test_a_fork_shares_the_past_up_to_a_turn(store: HistoryStore, history: SessionHistory) -> None:
    await fill(history, 4, tokens=10)
    await history.rename("The title")
    running = await begun(history, "runs on")
    turns = await all_turns(history)
    await history.fork("s2", turns[2].turn_id)
    await running.end(replied())
    fork = store.history("alice", "s2")
    assert await all_turns(fork) == turns[:3]
    assert (await fork.info()).title == "The title"
    assert [s.session_id for s in await all_sessions(store, "alice")] == ["s1", "s2"]
    assert await shown_past(fork, 1000) == ["q0", "a0", "q1", "a1", "q2", "a2"]
    assert len(await all_turns(history)) == 5
    for name in ("s1", "s2"):
        with pytest.raises(SessionExists):
            await history.fork(name, turns[0].turn_id)
    with pytest.raises(TurnNotFound):
        await history.fork("s3", "no such turn")
    assert [s.session_id for s in await all_sessions(store, "bob")] == []


async def test_a_restored_session_is_what_it_was(store: HistoryStore, history: SessionHistory) -> None:
    await fill(history, 3, tokens=10)
    await talk(history, "fails", reply=FAILED)
    await (await begun(history, said("cut", turn_id="t-9"))).end(replied("half", Is.INTERRUPTED, tokens=2))
    turns, info = await all_turns(history), await history.info()
    copy = store.history("bob", "copy")
    await copy.restore(turns, title=info.title, created_at=info.created_at)
    assert await all_turns(copy) == turns
    restored = await copy.info()
    assert (restored.title, restored.created_at, restored.turns) == (info.title, info.created_at, info.turns)
    assert restored.updated_at == info.updated_at
    assert await shown_past(copy, 1000) == await shown_past(history, 1000)
    answer = await copy.begin(said("again", turn_id=turns[0].turn_id))
    assert isinstance(answer, Turn)
    with pytest.raises(SessionExists):
        await copy.restore([], title="x", created_at=now())


async def test_what_ran_when_it_was_exported_is_restored_as_interrupted(store: HistoryStore) -> None:
    turn = await begun(store.history("alice", "s1"), "hello")
    turns = await all_turns(store.history("alice", "s1"))
    copy = store.history("alice", "s2")
    await copy.restore(turns, title="x", created_at=now())
    await turn.end(FAILED)
    assert [t.status for t in await all_turns(copy)] == [Is.INTERRUPTED]
    await talk(copy, "more")


async def test_a_name_whose_turn_runs_is_taken(store: HistoryStore, history: SessionHistory) -> None:
    turn = await begun(history, "hello")
    with pytest.raises(SessionExists):
        await history.restore([], title="x", created_at=now())
    await turn.end(replied())


async def test_of_many_who_restore_a_session_one_does(store: HistoryStore, history: SessionHistory) -> None:
    tries = [history.restore([], title=str(n), created_at=now()) for n in range(8)]
    done = await asyncio.gather(*tries, return_exceptions=True)
    assert sorted(str(type(d).__name__) for d in done) == ["NoneType"] + ["SessionExists"] * 7
    assert (await history.info()).turns == 0


async def test_a_session_that_is_not_there_is_not_found(history: SessionHistory) -> None:
    for ask in (
        history.info(), history.rename("x"), history.rewind("t"), history.delete(), history.fork("s2", "t"),
        history.stop(),
    ):  # fmt: skip
        with pytest.raises(SessionNotFound):
            await ask


@proves("G14")
async def test_a_deleted_session_is_forgotten(store: HistoryStore, history: SessionHistory) -> None:
    await talk(history, "hello")
    await talk(store.history("alice", "s2"), "hello")
    await history.delete()
    assert await all_turns(history) == []
    assert [s.session_id for s in await all_sessions(store, "alice")] == ["s2"]
    with pytest.raises(SessionNotFound):
        await history.delete()
    await history.aclear()
    await talk(history, "afresh")
    assert ((await history.info()).title, (await history.info()).turns) == ("afresh", 1)


async def test_a_user_is_forgotten_but_for_a_session_whose_turn_runs(store: HistoryStore) -> None:
    for name in ("s1", "s2", "s3"):
        await talk(store.history("alice", name), "hello")
    await talk(store.history("bob", "s1"), "mine")
    turn = await begun(store.history("alice", "s2"), "runs")
    with pytest.raises(SessionBusy):
        await store.forget("alice")
    assert [s.session_id for s in await all_sessions(store, "alice")] == ["s2"]
    await turn.end(replied())
    await store.forget("alice")
    await store.forget("alice")
    assert await all_sessions(store, "alice") == []
    assert [s.session_id for s in await all_sessions(store, "bob")] == ["s1"]


@pytest.mark.parametrize("seed", range(6))
async def test_every_store_agrees_with_the_simplest_one(store: HistoryStore, seed: int) -> None:
    dice, model = random.Random(seed), MemoryStore()

    async def turn(history: SessionHistory, turn_id: str, status: Is, words: str) -> str:
        begun = await history.begin(said(words, turn_id=turn_id, tokens=0))
        if isinstance(begun, Turn):
            return begun.turn_id
        assert isinstance(begun, OpenTurn)
        if words.endswith("7"):
            await history.rename(words)
        await begun.end(replied("" if status is Is.FAILED else f"re: {words}", status))
        return "run"

    async def outcome(history: SessionHistory, step: str, *what: str) -> str:
        try:
            if step == "turn":
                return await turn(history, what[0], Is(what[1]), what[2])
            await (history.rewind(what[0]) if step == "rewind" else history.fork(what[1], what[0]))
        except (SessionNotFound, TurnNotFound, SessionExists) as error:
            return type(error).__name__
        return "done"

    async def state(of: HistoryStore, session: str) -> object:
        history = of.history("alice", session)
        turns = await all_turns(history)
        shown = [(t.turn_id, t.status, texts(t.input), texts(t.output)) for t in turns]
        try:
            info = await history.info()
        except SessionNotFound:
            return shown
        return shown, info.turns, info.title, texts(await history.aget_messages())

    for number in range(50):
        session, turn_id = dice.choice(["s1", "s1", "s2"]), f"t-{dice.randrange(7)}"
        status = dice.choice([Is.COMPLETE, Is.FAILED, Is.FAILED, Is.INTERRUPTED])
        step = dice.choice(["turn"] * 12 + ["rewind", "rewind", "fork"])
        what = [turn_id, "s3" if step == "fork" else status, str(number)]
        done = [await outcome(of.history("alice", session), step, *what) for of in (store, model)]
        assert done[0] == done[1], (number, session, step, what)
        assert await state(store, session) == await state(model, session), (number, session, step, what)
        history = store.history("alice", session)
        assert [t.turn_id for t in await all_turns(history, 2)] == [t.turn_id for t in await all_turns(history)]


async def test_a_store_tells_who_has_a_session_each_of_them_once(store: HistoryStore) -> None:
    assert [user async for user in store.users()] == []
    users = ["alice", "Alice", "b%b", "*", "}:sessions", "用户", "\ud800", "a b/../c", '"', "%", "\1"]
    for user in users:
        await talk(store.history(user, "}:sessions"), "hello")
        await store.history(user, "s2").restore([], title="none", created_at=now())
    assert sorted([user async for user in store.users()]) == sorted(users)
    await store.forget("alice")
    assert sorted([user async for user in store.users()]) == sorted(users[1:])


async def test_a_store_tells_how_much_it_keeps_of_a_user(store: HistoryStore) -> None:
    assert await store.kept("alice") == Kept(0, 0, 0)
    await talk(store.history("alice", "short"), "hello", "again")
    await talk(store.history("alice", "long ü \ud800"), "x" * 20_000)
    await talk(store.history("bob", "short"), "hello")
    kept = await store.kept("alice")
    assert (kept.sessions, kept.turns) == (2, 3)
    one, other = [await store.bytes_kept("alice", name) for name in ("short", "long ü \ud800")]
    assert one < 20_000 <= other
    assert one + other <= kept.size * 1.01
    assert await store.bytes_kept("alice", "absent") == await store.bytes_kept("carol") == 0
    await store.history("alice", "long ü \ud800").delete()
    assert (await store.kept("alice")).size < 20_000


async def test_sessions_of_the_same_microsecond_are_all_listed(store: HistoryStore) -> None:
    at = now()
    for n in range(7):
        await store.history("alice", f"s{n}").restore([], title="t", created_at=at)
    listed = [session.session_id for session in await all_sessions(store, "alice", limit=2)]
    assert sorted(listed) == [f"s{n}" for n in range(7)]


async def test_a_session_is_deleted_only_as_it_was_seen_if_that_is_asked_for(store: HistoryStore) -> None:
    history = store.history("alice", "s1")
    await talk(history, "one")
    seen = (await history.info()).updated_at
    await talk(history, "two")
    with pytest.raises(HistoryMoved):
        await history.delete(if_updated_at=seen)
    assert len(await all_turns(history)) == 2
    running = await begun(history, "three")
    with pytest.raises(SessionBusy):
        await history.delete(if_updated_at=(await history.info()).updated_at)
    await running.end(replied())
    await history.delete(if_updated_at=(await history.info()).updated_at)
    with pytest.raises(SessionNotFound):
        await history.delete(if_updated_at=seen)

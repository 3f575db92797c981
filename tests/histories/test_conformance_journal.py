"""What every store does about the events of a running turn, and about what is kept of a turn beside its messages."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence

import pytest
from langchain_core.messages import AIMessage

import histories.files.history as files_history
import histories.postgres.history as postgres_history
import histories.redis.history as redis_history
from histories import gate
from histories.base import (
    Event,
    Feedback,
    HistoryMoved,
    HistoryStore,
    Note,
    OpenTurn,
    Reply,
    SessionHistory,
    TurnDetails,
    TurnLost,
    TurnNotFound,
    TurnRunning,
    TurnStatus,
    now,
)
from tests.proofs import proves
from tests.stores import Stores, all_turns, begun, replied, said, talk
from turns.notes import add_note

WITHIN_S = 60


def words(*said: str) -> list[bytes]:
    return [json.dumps(word).encode() for word in said]


async def heard(events: AsyncIterator[Sequence[Event]], upto: int | None = None) -> list[Event]:
    """All events, or those up to and with a number."""
    found: list[Event] = []
    async with asyncio.timeout(WITHIN_S):
        async for some in events:
            found += some
            if upto is not None and found[-1].seq >= upto:
                break
    return found


@proves("G12")
async def test_every_process_hears_what_a_turn_says_while_it_runs(stores: Stores, history: SessionHistory) -> None:
    turn = await begun(history, "hello")
    elsewhere = (await stores.open()).history("alice", "s1")
    await turn.journal(words("a", "b"))
    assert await heard(elsewhere.events(turn.turn_id), upto=1) == [Event(0, b'"a"'), Event(1, b'"b"')]
    assert await heard(history.events(turn.turn_id, after=0), upto=1) == [Event(1, b'"b"')]
    listening = [asyncio.create_task(heard(one.events(turn.turn_id, after=1))) for one in (history, elsewhere)]
    await asyncio.sleep(0)
    await turn.journal(words("c"))
    await turn.journal(words("d"))
    for one in (history, elsewhere):
        assert [event.seq for event in await heard(one.events(turn.turn_id), upto=3)] == [0, 1, 2, 3]
    await turn.end(replied("abcd"))
    for task in listening:
        # Who was still reading when the turn ended finds the rest on the record.
        assert [event.seq for event in await task] in ([2, 3], [2], [])


async def test_who_runs_a_turn_learns_that_others_listen_to_it(stores: Stores, history: SessionHistory) -> None:
    elsewhere = (await stores.open()).history("alice", "s1")
    await elsewhere.attend("never")  # nor is there the session
    turn = await begun(history, "hello")
    await elsewhere.attend("never")
    assert not await history.is_attended(turn.turn_id)
    await elsewhere.attend(turn.turn_id)
    await elsewhere.attend(turn.turn_id)
    assert await history.is_attended(turn.turn_id)
    assert not await history.is_attended("never")
    await turn.end(replied())
    await elsewhere.attend(turn.turn_id)
    following = await begun(history, "more")
    assert not await history.is_attended(turn.turn_id)
    assert not await history.is_attended(following.turn_id)
    await following.end(replied())


async def test_a_word_that_somebody_listens_is_forgotten_after_a_while(
    stores: Stores, history: SessionHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (gate, files_history, redis_history, postgres_history):
        monkeypatch.setattr(module, "ATTENDED_S", 0.2)
    turn = await begun(history, "hello")
    await (await stores.open()).history("alice", "s1").attend(turn.turn_id)
    async with asyncio.timeout(WITHIN_S):
        while await history.is_attended(turn.turn_id):
            await asyncio.sleep(0.01)
    await turn.end(replied())


async def test_a_turn_knows_when_it_has_begun(history: SessionHistory) -> None:
    for number in range(2):
        turn = await begun(history, f"question {number}")
        assert turn.started_at == (await history.turn(turn.turn_id)).started_at
        await turn.end(replied())


async def test_a_turn_that_has_ended_has_no_events(history: SessionHistory) -> None:
    turn = await begun(history, "hello")
    await turn.journal(words("a"))
    await turn.end(replied())
    assert await heard(history.events(turn.turn_id)) == []
    assert await heard(history.events("never")) == []
    with pytest.raises(TurnLost):
        await turn.journal(words("b"))


async def test_a_turn_hears_nothing_of_the_one_before_it(stores: Stores, history: SessionHistory) -> None:
    first = await begun(history, "hello")
    await first.journal(words("old", "older"))
    await first.end(replied())
    turn = await begun(history, "more")
    await turn.journal(words("new"))
    elsewhere = (await stores.open()).history("alice", "s1")
    assert await heard(elsewhere.events(turn.turn_id), upto=0) == [Event(0, b'"new"')]
    assert await heard(elsewhere.events(first.turn_id)) == []
    await turn.end(replied())


async def test_many_events_and_large_ones_come_whole_and_in_order(stores: Stores, history: SessionHistory) -> None:
    turn = await begun(history, "hello")
    elsewhere = (await stores.open()).history("alice", "s1")
    sent = words(*(f"{number} " + "x" * (200_000 if number == 7 else 20) for number in range(500)))
    reading = asyncio.create_task(heard(elsewhere.events(turn.turn_id), upto=499))
    for start in range(0, 500, 50):
        await turn.journal(sent[start : start + 50])
    assert await reading == [Event(seq, data) for seq, data in enumerate(sent)]
    await turn.end(replied())


async def test_a_running_turn_is_told_and_can_be_joined(stores: Stores, history: SessionHistory) -> None:
    turn = await begun(history, said("hello", turn_id="mine"))
    elsewhere = (await stores.open()).history("alice", "s1")
    for one in (history, elsewhere):
        assert (await one.info()).running == "mine"
        assert (await one.turn("mine")).status is TurnStatus.RUNNING
        with pytest.raises(TurnRunning):
            await one.begin(said("hello", turn_id="mine"), wait_s=0)
    await turn.end(replied())
    assert (await elsewhere.info()).running is None


async def test_a_complete_turn_is_answered_while_another_one_runs(stores: Stores, history: SessionHistory) -> None:
    await talk_as(history, "done")
    running = await begun(history, "another")
    for one in (history, (await stores.open()).history("alice", "s1")):
        recorded = await one.begin(said("again", turn_id="done"), wait_s=0)
        assert not isinstance(recorded, OpenTurn)
        assert recorded.status is TurnStatus.COMPLETE
    await running.end(replied())


async def talk_as(history: SessionHistory, turn_id: str) -> None:
    turn = await begun(history, said("hello", turn_id=turn_id))
    await turn.end(replied())


DETAILS = TurnDetails(
    finish_reason="length",
    sources=[{"title": "Ätna \ud800 \udc00", "n": 1.5, "deep": [{"a": None}]}],
    value={"answer": "x", "context": []},
    recalled=[{"session_id": "s", "turn_id": "t", "at": "2026-01-01T00:00:00Z"}],
)


async def test_what_came_beside_the_messages_is_kept(stores: Stores, history: SessionHistory) -> None:
    turn = await begun(history, "hello")
    await turn.end(Reply(status=TurnStatus.COMPLETE, output=[AIMessage("hi")], details=DETAILS))
    failed = await begun(history, "more")
    error = TurnDetails(error={"status_code": 502, "message": "It broke."})
    await failed.end(Reply(status=TurnStatus.FAILED, details=error))
    for one in (history, (await stores.open()).history("alice", "s1")):
        first, second = await all_turns(one)
        assert first.details == DETAILS
        assert second.details == error
        assert (await one.turn(turn.turn_id)).details == DETAILS


async def test_details_survive_a_fork_and_an_import(store: HistoryStore, history: SessionHistory) -> None:
    turn = await begun(history, "hello")
    await turn.end(Reply(status=TurnStatus.COMPLETE, output=[AIMessage("hi")], details=DETAILS))
    await history.feedback(turn.turn_id, Feedback(score=1, comment="good"))
    await history.fork("copy", turn.turn_id)
    (copy,) = await all_turns(store.history("alice", "copy"))
    assert (copy.details, copy.feedback) == (DETAILS, {"score": 1, "comment": "good"})


async def test_feedback_is_kept_and_can_be_changed_while_a_turn_runs(stores: Stores, history: SessionHistory) -> None:
    one, two = await talk(history, "one", "two")
    await history.feedback(one, Feedback(score=-1, comment="no"))
    running = await begun(history, "three")
    elsewhere = (await stores.open()).history("alice", "s1")
    await elsewhere.feedback(one, Feedback(score=1, comment="Ünïcode \ud800"))
    await running.end(replied())
    turns = await all_turns(history)
    assert [turn.feedback for turn in turns] == [{"score": 1, "comment": "Ünïcode \ud800"}, None, None]
    with pytest.raises(TurnNotFound):
        await history.feedback("x", Feedback(score=0, comment=""))
    await talk(history, "four")
    assert (await history.turn(one)).feedback == {"score": 1, "comment": "Ünïcode \ud800"}
    assert (await history.turn(two)).feedback is None


async def test_notes_outlive_sessions_and_go_with_their_user(stores: Stores, store: HistoryStore) -> None:
    notes = [Note(text="Likes Ätna \ud800", created_at=now()), Note(text="Second", created_at=now())]
    await store.set_notes("alice", notes)
    await talk(store.history("alice", "s1"), "hello")
    await store.history("alice", "s1").delete()
    elsewhere = await stores.open()
    assert await elsewhere.notes("alice") == notes
    assert await elsewhere.notes("bob") == []
    await elsewhere.set_notes("alice", notes[1:])
    assert await store.notes("alice") == notes[1:]
    await store.forget("alice")
    assert await elsewhere.notes("alice") == []


async def test_of_many_who_change_the_notes_that_they_have_seen_each_is_heard(
    stores: Stores, store: HistoryStore
) -> None:
    elsewhere = await stores.open()
    await asyncio.gather(*(add_note((store, elsewhere)[n % 2], "alice", f"Fact {n}") for n in range(12)))
    notes = await store.notes("alice")
    assert {note.text for note in notes} == {f"Fact {n}" for n in range(12)}
    await elsewhere.set_notes("alice", notes[1:], if_notes=notes)
    with pytest.raises(HistoryMoved):
        await store.set_notes("alice", [], if_notes=notes)
    assert await store.notes("alice") == notes[1:]
    await store.forget("alice")
    with pytest.raises(HistoryMoved):
        await store.set_notes("alice", notes, if_notes=notes[1:])
    await store.set_notes("alice", notes, if_notes=[])
    await store.set_notes("alice", [], if_notes=notes)
    await store.set_notes("alice", notes[:1], if_notes=[])
    assert await elsewhere.notes("alice") == notes[:1]


async def test_a_recall_finds_what_bears_on_a_question(store: HistoryStore, history: SessionHistory) -> None:
    ids = await talk(history, "My dog is called Bello", "The weather is fine", "I live in Örebro")
    (other,) = await talk(store.history("alice", "s2"), "Bello likes sausages")
    await talk(store.history("bob", "s1"), "Bello is my dog, too")
    failed = await begun(history, "Bello, Bello")
    await failed.end(replied("", TurnStatus.FAILED))

    async def found(query: str, **options: object) -> list[tuple[str, str]]:
        recalled = await store.recall("alice", query, **options)  # type: ignore[arg-type]
        assert all(one.score > 0 for one in recalled)
        return [(one.session_id, one.turn.turn_id) for one in recalled]

    async with asyncio.timeout(WITHIN_S):
        while sorted(await found("Bello?")) != sorted([("s1", ids[0]), ("s2", other)]):
            await asyncio.sleep(0.01)
    assert await found("bello's dog", session_id="s1") == [("s1", ids[0])]
    assert await found("OREBRO?") == [("s1", ids[2])]
    assert await found("bello", exclude=[("s2", other)]) == [("s1", ids[0])]
    assert await found("bello", limit=1) != []
    assert await found("") == await found("xyzzy") == await found('"; DROP * ^ NEAR( AND') == []
    await history.rewind(ids[0])
    assert await found("bello dog") == [("s2", other)]
    await store.history("alice", "s2").delete()
    assert await found("bello dog") == []


async def test_a_search_is_for_words_however_they_are_written(store: HistoryStore) -> None:
    await talk(store.history("alice", "1"), "Where is my ÜBERSCHRIFT in the café?", reply=replied("第一章 Straße"))
    await talk(store.history("alice", "2"), "Another thing", reply=replied("100% nothing"))
    await store.history("alice", "2").rename("conversation 77")

    async def found(query: str) -> list[str]:
        return [s.session_id for s in (await store.sessions("alice", query=query)).items]

    assert await found("cafe where") == await found("uberschrift") == await found("ｃａｆｅ́ STRASSE") == ["1"]
    assert await found("第章") == ["1"]
    assert await found("77 conversation") == await found("77 noth another") == ["2"]
    assert await found("hing") == await found("77 where") == await found("%") == []


async def test_a_search_shows_where_its_words_stand(store: HistoryStore) -> None:
    ids = await talk(store.history("alice", "s1"), "The dog is called Bello", "And the cat " + "meows " * 50 + "Mimi")
    (session,) = (await store.sessions("alice", query="BELL mimi")).items
    assert {hit.turn_id for hit in session.hits} == set(ids)
    assert any("Bello" in hit.snippet for hit in session.hits)
    assert any("Mimi" in hit.snippet and len(hit.snippet) < 200 for hit in session.hits)
    assert (await store.sessions("alice", query="bello nothing")).items == []


async def test_a_search_for_several_words_shows_first_where_all_of_them_stand(store: HistoryStore) -> None:
    said = ["Reply one", "Reply 237", "number 237", "Reply two", "Reply three", "237 again", "a Reply, the 237th"]
    ids = await talk(store.history("alice", "s1"), *said)
    (session,) = (await store.sessions("alice", query="reply 237")).items
    assert [hit.turn_id for hit in session.hits] == [ids[6], ids[1], ids[5]]

"""Recall follows what becomes of a history, however often it was asked before."""

from __future__ import annotations

from histories.base import HistoryStore, SessionHistory
from histories.search import Index, passage, terms
from tests.stores import FAILED, begun, replied, said, talk


async def found(store: HistoryStore, query: str, session_id: str | None = "s1") -> list[str]:
    return [str(one.turn.input[0].content) for one in await store.recall("alice", query, session_id=session_id)]


async def test_new_turns_are_recalled_beside_those_that_were_known(
    store: HistoryStore, history: SessionHistory
) -> None:
    await talk(history, "our dog is called Rex", "the weather is fine")
    assert await found(store, "dog") == ["our dog is called Rex"]
    await talk(history, "another dog is called Lou")
    assert sorted(await found(store, "dog")) == ["another dog is called Lou", "our dog is called Rex"]


async def test_what_was_rewound_or_deleted_is_not_recalled_though_it_was_before(
    store: HistoryStore, history: SessionHistory
) -> None:
    ids = await talk(history, "a dog named Rex", "a dog named Lou", "a dog named Max", "something else")
    assert len(await found(store, "dog")) == 3
    await history.delete_turn(ids[1])
    assert sorted(await found(store, "dog")) == ["a dog named Max", "a dog named Rex"]
    await history.rewind(ids[2])
    assert await found(store, "dog") == ["a dog named Rex"]
    await talk(history, "a dog named Ada")
    assert sorted(await found(store, "dog")) == ["a dog named Ada", "a dog named Rex"]


async def test_of_versions_the_shown_one_is_recalled(store: HistoryStore, history: SessionHistory) -> None:
    ids = await talk(history, "a dog named Rex", "a dog named Lou")
    assert len(await found(store, "dog")) == 2
    turn = await begun(history, said("a cat named Tom", version_of=ids[1]))
    await turn.end(replied("mew"))
    assert await found(store, "dog") == ["a dog named Rex"]
    await history.choose(ids[1])
    assert len(await found(store, "dog")) == 2


async def test_a_turn_says_whether_there_are_older_ones_than_its_window(history: SessionHistory) -> None:
    told = list[tuple[int, bool]]()
    for n in range(12):
        turn = await begun(history, said(f"question {n}", tokens=10), window=100)
        told.append((len(turn.window), turn.has_older))
        await turn.end(replied(tokens=10))
    assert told == [(shown, shown < n) for n, (shown, _) in enumerate(told)]
    assert {has_older for _, has_older in told} == {True, False}


async def test_turns_that_are_left_out_hide_no_change_of_others(store: HistoryStore, history: SessionHistory) -> None:
    ids = await talk(history, "a dog named Rex", "a dog named Lou")
    assert len(await found(store, "dog")) == 2
    ids += await talk(history, "a dog named Max")
    left_out = {("s1", ids[-1])}
    assert len(await store.recall("alice", "dog", session_id="s1", exclude=left_out)) == 2
    version = await begun(history, said("a cat named Tom", version_of=ids[1]))
    await version.end(replied("mew"))
    left_out = {("s1", version.turn_id)}
    (one,) = await store.recall("alice", "dog", session_id="s1", exclude=left_out)
    assert one.turn.turn_id == ids[0]


async def test_a_failed_turn_is_not_recalled(store: HistoryStore, history: SessionHistory) -> None:
    await talk(history, "a dog named Rex")
    await talk(history, "a dog named Lou", reply=FAILED)
    await talk(history, "something else")
    assert await found(store, "dog") == ["a dog named Rex"]


async def test_a_session_of_the_same_name_is_another_one(store: HistoryStore, history: SessionHistory) -> None:
    await talk(history, "a dog named Rex")
    assert len(await found(store, "dog")) == 1
    await history.delete()
    await talk(history, "a dog named Lou")
    assert await found(store, "dog") == ["a dog named Lou"]
    assert await found(store, "dog", None) == ["a dog named Lou"]


async def test_a_question_in_other_forms_of_the_words_finds_what_was_said(
    store: HistoryStore, history: SessionHistory
) -> None:
    await talk(history, "We named our dogs Rex and Lou", "It rains in the cities", "I was running home")
    assert await found(store, "What is the name of the dog?") == ["We named our dogs Rex and Lou"]
    assert await found(store, "Which city?") == ["It rains in the cities"]
    assert await found(store, "Do I run?") == ["I was running home"]


def test_words_that_tell_nothing_find_nothing_unless_there_are_no_others() -> None:
    assert terms("What is the name of it?") == ["nam"]
    assert terms("who are you") == ["who", "are", "you"]


def test_rare_words_count_for_more() -> None:
    index = Index[int]()
    for number in range(50):
        index.add(number, "the garden is green" if number else "the giraffe is green")
    assert index.rank("a green giraffe")[0][0] == 0
    assert index.rank("giraffe", among={1, 2}) == []


def test_of_a_long_text_the_part_with_the_words_is_shown() -> None:
    text = "nothing much " * 300 + "the password is swordfish " + "nothing much " * 300
    assert "swordfish" in passage("what was the password?", text, 200)
    assert len(passage("what was the password?", text, 200)) < 220

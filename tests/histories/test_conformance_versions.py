"""What every store does about versions of a turn: another reply at its place, and which of them is shown."""

from __future__ import annotations

import asyncio

import pytest

from histories.base import (
    HistoryMoved,
    HistoryStore,
    OpenTurn,
    Reply,
    SessionBusy,
    SessionHistory,
    SessionNotFound,
    TurnNotFound,
    TurnStatus,
    TurnTree,
)
from tests.proofs import proves
from tests.stores import FAILED, Stores, all_turns, begun, replied, said, talk, texts


async def shown(history: SessionHistory) -> list[str]:
    return texts([turn.input[0] for turn in await all_turns(history)])


async def another(history: SessionHistory, place: str, words: str, window: int = 0) -> OpenTurn:
    return await begun(history, said(words, version_of=place), window=window)


async def test_another_version_stands_in_the_place_of_a_turn(history: SessionHistory) -> None:
    one, two, three = await talk(history, "one", "two", "three")
    turn = await another(history, two, "two, again", window=1000)
    assert texts(turn.past) == ["one", "re: one"]
    assert await shown(history) == ["one", "two, again"]
    await turn.end(replied())
    assert await shown(history) == ["one", "two, again"]
    assert (await history.info()).turns == 2
    latest = (await all_turns(history))[-1]
    assert latest.versions == [two, turn.turn_id]
    for hidden in (two, three):
        assert (await history.turn(hidden)).status is TurnStatus.COMPLETE
    assert (await history.turn(one)).versions == ()
    following = await begun(history, "four", window=1000)
    assert texts(following.past) == ["one", "re: one", "two, again", "a reply"]
    await following.end(replied())


async def test_the_first_turn_may_have_versions(history: SessionHistory) -> None:
    first, _ = await talk(history, "one", "two")
    turn = await another(history, first, "uno", window=1000)
    assert turn.past == []
    await turn.end(replied())
    assert await shown(history) == ["uno"]
    await history.choose(first)
    assert await shown(history) == ["one", "two"]


@proves("G14")
async def test_what_followed_a_version_is_shown_with_it_again(history: SessionHistory) -> None:
    _, two, _ = await talk(history, "one", "two", "three")
    again = await another(history, two, "two, again")
    await again.end(replied())
    await talk(history, "four", "five")
    await history.choose(two)
    assert await shown(history) == ["one", "two", "three"]
    turn = await begun(history, "six", window=1000)
    assert texts(turn.past)[::2] == ["one", "two", "three"]
    await turn.end(replied())
    await history.choose(again.turn_id)
    assert await shown(history) == ["one", "two, again", "four", "five"]
    await history.choose(two)
    assert await shown(history) == ["one", "two", "three", "six"]
    assert (await history.info()).turns == 4


@proves("G14")
async def test_versions_within_versions_are_all_kept(history: SessionHistory) -> None:
    _, b = await talk(history, "a", "b")
    c = await another(history, b, "c")
    await c.end(replied())
    (d,) = await talk(history, "d")
    e = await another(history, d, "e")
    await e.end(replied())
    f = await another(history, c.turn_id, "f")
    await f.end(replied())
    assert await shown(history) == ["a", "f"]
    assert (await history.turn(b)).versions == [b, c.turn_id, f.turn_id]
    await history.choose(c.turn_id)
    assert await shown(history) == ["a", "c", "e"]
    await history.choose(d)
    assert await shown(history) == ["a", "c", "d"]
    assert (await history.turn(e.turn_id)).versions == [d, e.turn_id]


@pytest.mark.parametrize("reply", [FAILED, replied("", TurnStatus.INTERRUPTED)], ids=["failed", "interrupted"])
async def test_a_version_that_comes_to_nothing_costs_nothing(history: SessionHistory, reply: Reply) -> None:
    one, _ = await talk(history, "one", "two")
    turn = await another(history, one, "uno")
    await turn.end(reply)
    assert await shown(history) == ["one", "two"]
    assert (await history.turn(one)).versions == [one, turn.turn_id]
    following = await begun(history, "three", window=1000)
    assert texts(following.past)[::2] == ["one", "two"]
    await following.end(replied())
    assert await shown(history) == ["one", "two", "three"]


async def test_a_partial_version_is_shown(history: SessionHistory) -> None:
    one, _ = await talk(history, "one", "two")
    turn = await another(history, one, "uno")
    await turn.end(replied("half a", TurnStatus.INTERRUPTED))
    assert await shown(history) == ["uno"]


async def test_a_retry_of_a_version_replaces_it(history: SessionHistory) -> None:
    one, _ = await talk(history, "one", "two")
    turn = await begun(history, said("uno", version_of=one, turn_id="v"))
    await turn.end(FAILED)
    again = await begun(history, said("uno!", version_of=one, turn_id="v"))
    await again.end(replied())
    assert await shown(history) == ["uno!"]
    assert (await history.turn(one)).versions == [one, "v"]


async def test_only_a_shown_turn_can_be_given_another_version(history: SessionHistory) -> None:
    _, two = await talk(history, "one", "two")
    turn = await another(history, two, "two, again")
    await turn.end(replied())
    for place in (two, "nowhere"):
        with pytest.raises(TurnNotFound):
            await another(history, place, "more")
    await talk(history, "three")
    assert await shown(history) == ["one", "two, again", "three"]


@proves("G14")
async def test_a_rewind_that_keeps_can_be_taken_back(history: SessionHistory) -> None:
    _, two, _ = await talk(history, "one", "two", "three")
    await history.rewind(two, keep=True)
    assert await shown(history) == ["one"]
    assert (await history.info()).turns == 1
    await talk(history, "four")
    assert (await all_turns(history))[-1].versions[0] == two
    await history.choose(two)
    assert await shown(history) == ["one", "two", "three"]


async def test_a_rewind_that_does_not_keep_forgets_every_version(history: SessionHistory) -> None:
    _, two, three = await talk(history, "one", "two", "three")
    turn = await another(history, two, "two, again")
    await turn.end(replied())
    await history.rewind(turn.turn_id)
    assert await shown(history) == ["one"]
    for gone in (two, three, turn.turn_id):
        with pytest.raises(TurnNotFound):
            await history.turn(gone)
        with pytest.raises(TurnNotFound):
            await history.choose(gone)


async def test_one_turn_can_be_deleted_by_itself(history: SessionHistory) -> None:
    one, two, _ = await talk(history, "one", "two", "three")
    await history.delete_turn(two)
    assert await shown(history) == ["one", "three"]
    await history.delete_turn(one)
    assert await shown(history) == ["three"]
    turn = await begun(history, "four", window=1000)
    assert texts(turn.past) == ["three", "re: three"]
    await turn.end(replied())
    with pytest.raises(TurnNotFound):
        await history.delete_turn(two)
    assert (await history.info()).turns == 2


async def test_a_version_that_is_not_shown_can_be_deleted(history: SessionHistory) -> None:
    _, two, _ = await talk(history, "one", "two", "three")
    turn = await another(history, two, "two, again")
    await turn.end(replied())
    await history.delete_turn(two)
    assert await shown(history) == ["one", "two, again"]
    with pytest.raises(TurnNotFound):
        await history.turn(two)


async def test_who_acts_on_what_is_past_is_told(history: SessionHistory) -> None:
    one, two = await talk(history, "one", "two")
    for act in (history.rewind, history.choose, history.delete_turn):
        with pytest.raises(HistoryMoved):
            await act(one, if_last=one)
    with pytest.raises(HistoryMoved):
        await history.begin(said("three"), if_last=one)
    assert await shown(history) == ["one", "two"]
    turn = await history.begin(said("three"), if_last=two)
    assert isinstance(turn, OpenTurn)
    await turn.end(replied())
    await history.rewind(turn.turn_id, if_last=turn.turn_id)
    assert await shown(history) == ["one", "two"]


async def test_an_unknown_session_has_no_last_turn(history: SessionHistory) -> None:
    with pytest.raises(HistoryMoved):
        await history.begin(said("one"), if_last="x")
    turn = await history.begin(said("one"), if_last="")
    assert isinstance(turn, OpenTurn)
    await turn.end(replied())


async def test_nothing_is_chosen_or_deleted_while_a_turn_runs(stores: Stores, history: SessionHistory) -> None:
    one, _ = await talk(history, "one", "two")
    turn = await begun(history, "three")
    elsewhere = (await stores.open()).history("alice", "s1")
    for other in (history, elsewhere):
        for act in (other.choose, other.delete_turn, other.rewind):
            with pytest.raises(SessionBusy):
                await act(one)
    await turn.end(replied())
    assert await shown(history) == ["one", "two", "three"]


async def test_versions_of_what_is_not_there(history: SessionHistory) -> None:
    for act in (history.choose, history.delete_turn, history.turn):
        with pytest.raises(SessionNotFound):
            await act("x")
    await talk(history, "one")
    for act in (history.choose, history.delete_turn, history.turn):
        with pytest.raises(TurnNotFound):
            await act("x")


async def test_a_fork_takes_the_shown_line_along(store: HistoryStore, history: SessionHistory) -> None:
    _, two, three = await talk(history, "one", "two", "three")
    turn = await another(history, two, "two, again")
    await turn.end(replied())
    await talk(history, "four")
    await history.fork("copy", turn.turn_id)
    assert await shown(store.history("alice", "copy")) == ["one", "two, again"]
    with pytest.raises(TurnNotFound):
        await history.fork("other", three)


async def test_another_process_sees_the_line_that_was_chosen(stores: Stores, history: SessionHistory) -> None:
    one, _ = await talk(history, "one", "two")
    turn = await another(history, one, "uno")
    await turn.end(replied())
    elsewhere = (await stores.open()).history("alice", "s1")
    assert await shown(elsewhere) == ["uno"]
    await elsewhere.choose(one)
    following = await begun(history, "three", window=1000)
    assert texts(following.past)[::2] == ["one", "two"]
    await following.end(replied())
    assert await shown(elsewhere) == ["one", "two", "three"]


async def test_a_tree_hangs_together_while_turns_come_and_end(
    history: SessionHistory, monkeypatch: pytest.MonkeyPatch
) -> None:
    for store in ("redis", "postgres"):  # which read it in batches
        monkeypatch.setattr(f"histories.{store}.history._BATCH", 2)
    await talk(history, "zero")
    trees = list[TurnTree]()
    async with asyncio.TaskGroup() as both:
        talking = both.create_task(talk(history, *map(str, range(20))))
        while not talking.done():
            trees.append(await history.tree())
            await asyncio.sleep(0)
    for tree in trees:
        running = {turn.turn_id for turn in tree.turns if turn.status is TurnStatus.RUNNING}
        assert running <= {tree.turns[-1].turn_id}
        assert running.isdisjoint(tree.after)
    lengths = [len(tree.line) for tree in trees]
    assert lengths == sorted(lengths)
    assert len((await history.tree()).line) == 21

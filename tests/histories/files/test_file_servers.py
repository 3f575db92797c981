"""Several servers on one folder: order, fairness, kill -9, and what is done to files behind their backs."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from histories.base import SessionBusy, TurnLost
from histories.base import TurnStatus as Is
from histories.files.store import FileStore
from tests.processes import other
from tests.proofs import proves
from tests.quick import tries
from tests.stores import all_turns, begun, replied, said, talk, texts


@proves("G3")
async def test_two_servers_with_24_turns_each_make_48_whole_pairs_each_seeing_all_before(tmp_path: Path) -> None:
    url = f"file:{tmp_path}"
    with other(url, "many", "a", 24) as a, other(url, "many", "b", 24) as b:
        seen = []
        for each in (a, b):
            await each.tells()
        for each in (a, b):
            seen += await each.tells()
    assert sorted(seen) == list(range(48))
    store = FileStore(tmp_path)
    turns = await all_turns(store.history("alice", "s1"))
    assert len(turns) == 48
    assert {t.status for t in turns} == {Is.COMPLETE}
    for turn in turns:
        assert texts(turn.output) == [f"re: {texts(turn.input)[0]}"]
    for name in ("a", "b"):
        ours = [texts(t.input)[0] for t in turns if texts(t.input)[0].startswith(name)]
        assert ours == [f"{name}-{n}" for n in range(24)]
    await store.close()


async def test_a_busy_server_starves_no_other(tmp_path: Path) -> None:
    """Three processes never leave the session free; a fourth gets its turn after at most one of each of them."""
    url = f"file:{tmp_path}"
    store = FileStore(tmp_path)
    history = store.history("alice", "s1")
    with other(url, "talk", "a") as a, other(url, "talk", "b") as b, other(url, "talk", "c") as c:
        for each in (a, b, c):
            await each.tells()
        for _ in range(5):
            for one in tries(12):  # 3, and those that ran while this process was not scheduled
                before = len(await all_turns(history))
                turn = await begun(history, "mine", wait_s=60)
                one.took = len(await all_turns(history)) - before
                await turn.end(replied())
        for each in (a, b, c):
            each.kill()
    await talk(history, "all are gone")
    await store.close()


async def test_a_killed_server_frees_the_session_and_its_turn_is_interrupted(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    history = store.history("alice", "s1")
    await talk(history, "earlier")
    with other(f"file:{tmp_path}", "hold") as holder:
        turn_id = await holder.tells()
        for wait_s in (0, 0.02):
            with pytest.raises(SessionBusy):
                await history.begin(said("mine"), wait_s=wait_s)
        for one in tries(5):
            with one, pytest.raises(SessionBusy):
                await history.begin(said("a retry", turn_id=turn_id), wait_s=60)
        assert [t.status for t in await all_turns(history)] == [Is.COMPLETE, Is.RUNNING]
        holder.kill()
    assert [t.status for t in await all_turns(history)] == [Is.COMPLETE, Is.INTERRUPTED]
    assert not await history.stop()
    await history.fork("fork", turn_id)
    assert [t.status for t in await all_turns(store.history("alice", "fork"))] == [Is.COMPLETE, Is.INTERRUPTED]
    turn = await begun(history, said("a retry", turn_id=turn_id), wait_s=0)
    await turn.end(replied("made it"))
    assert [(t.status, texts(t.output)) for t in await all_turns(history)] == [
        (Is.COMPLETE, ["re: earlier"]), (Is.COMPLETE, ["made it"])
    ]  # fmt: skip
    await store.close()


async def test_locks_of_dead_processes_are_harmless(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    history = store.history("alice", "s1")
    ids = await talk(history, "hello")
    (log,) = tmp_path.rglob("*.jsonl")
    log.with_suffix(".turn").touch()
    log.with_suffix(".next").mkdir()
    (log.with_suffix(".next") / "00000000000000000001-abc").touch()
    turn = await begun(history, "more", wait_s=0)
    await turn.end(replied())
    log.with_suffix(".turn").touch()
    await history.rewind(ids[0])
    log.with_suffix(".turn").touch()
    await history.delete()
    await store.close()


@proves("G6")
@pytest.mark.parametrize("seed", range(6))
async def test_kill_9_at_any_instant_loses_nothing_that_was_assured(tmp_path: Path, seed: int) -> None:
    store = FileStore(tmp_path)
    history = store.history("alice", "s1")
    assured: dict[str, str] = {}
    for name in ("a", "b", "c"):
        with other(f"file:{tmp_path}", "talk", name) as talker:
            for _ in range(1 + (seed * 7 + ord(name)) % 23):
                what, words = await talker.tells()
                assured[words] = what
            await asyncio.sleep((seed * 31 + ord(name)) % 10 / 4000)  # somewhere within a turn
            talker.kill()
            assured |= {words: what for what, words in talker.told()}
        turns = {t.turn_id: t for t in await all_turns(history)}
        for words, what in assured.items():
            kept = turns[words]
            assert texts(kept.input) == [words]
            assert kept.status is Is.COMPLETE or (what == "begun" and kept.status is Is.INTERRUPTED)
            if kept.status is Is.COMPLETE:
                assert texts(kept.output)[0].startswith(f"re: {words}")
        assert (await history.info()).turns == len(turns)
        assert {t.status for t in turns.values()} <= {Is.COMPLETE, Is.INTERRUPTED}
    await talk(history, "the next turn works")
    await store.close()


async def test_a_reply_to_a_session_that_was_removed_by_hand_is_an_error(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    history = store.history("alice", "s1")
    for whole_folder in (False, True):
        turn = await begun(history, "hello")
        (log,) = tmp_path.rglob("*.jsonl")
        for path in list(log.parent.iterdir()) if whole_folder else [log]:
            path.unlink()
        if whole_folder:
            log.parent.rmdir()
        with pytest.raises(TurnLost):
            await turn.end(replied())
        assert await all_turns(history) == []
        assert len(store.gate.queue) == 0
        await talk(history, "afresh")
    await store.close()


async def test_who_lost_the_session_to_another_writes_nothing_into_it(tmp_path: Path) -> None:
    one, two = FileStore(tmp_path), FileStore(tmp_path)
    turn = await begun(one.history("alice", "s1"), "mine")
    (lock,) = tmp_path.rglob("*.turn")
    lock.unlink()  # by hand: nothing else does this while it is held
    taken = await begun(two.history("alice", "s1"), "yours")
    with pytest.raises(TurnLost):
        await turn.end(replied("too late"))
    await taken.end(replied("in time"))
    assert [(t.status, texts(t.output)) for t in await all_turns(two.history("alice", "s1"))] == [
        (Is.INTERRUPTED, []), (Is.COMPLETE, ["in time"])
    ]  # fmt: skip
    await one.close()
    await two.close()

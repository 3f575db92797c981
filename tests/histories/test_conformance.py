"""What every store does about turns: one at a time, in order, durable, whatever is cancelled or dies."""

from __future__ import annotations

import asyncio
from itertools import count

import pytest
from langchain_core.messages import AIMessage, HumanMessage

from histories.base import HistoryError, HistoryStore, NewTurn, OpenTurn, Reply, SessionBusy, SessionHistory, Turn, now
from histories.base import TurnStatus as Is
from histories.codec import UnknownMessage
from tests.processes import other
from tests.proofs import proves
from tests.quick import tries
from tests.stores import FAILED, Stores, all_turns, begun, replied, said, talk, texts, until


async def test_an_unknown_session_is_empty(history: SessionHistory) -> None:
    assert (await history.turns()).items == []
    assert await history.aget_messages() == []
    await history.aclear()


@proves("G1")
async def test_a_turn_is_on_the_record_from_its_begin_on(history: SessionHistory) -> None:
    before = now()
    turn = await begun(history, said("hello", chain="chat", tokens=3))
    (running,) = await all_turns(history)
    assert (running.turn_id, running.status, running.chain) == (turn.turn_id, Is.RUNNING, "chat")
    assert texts(running.input) == ["hello"]
    assert running.ended_at is None
    assert not running.output
    usage = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
    await turn.end(Reply(status=Is.COMPLETE, output=[AIMessage("hi")], usage=usage, tokens=4, kind="str"))  # type: ignore[arg-type]
    (ended,) = await all_turns(history)
    assert (ended.status, texts(ended.output), ended.usage) == (Is.COMPLETE, ["hi"], usage)
    assert (ended.tokens, ended.kind, ended.chain) == (7, "str", "chat")
    assert ended.ended_at is not None
    assert before <= ended.started_at <= ended.ended_at <= now()
    assert ended.started_at == running.started_at


async def test_another_process_sees_a_running_turn_as_running(stores: Stores, history: SessionHistory) -> None:
    other = (await stores.open()).history("alice", "s1")
    turn = await begun(history, "hello")
    assert [t.status for t in await all_turns(other)] == [Is.RUNNING]
    await turn.end(FAILED)
    assert [t.status for t in await all_turns(other)] == [Is.FAILED]


@proves("G3")
async def test_turns_run_one_at_a_time_in_order_of_arrival(history: SessionHistory) -> None:
    inside, order = 0, list[int]()

    async def one(number: int) -> None:
        nonlocal inside
        turn = await begun(history, str(number), wait_s=60, window=100_000)
        order.append(number)
        inside += 1
        assert inside == 1
        assert texts(turn.past) == [text for n in range(number) for text in (str(n), f"re: {n}")]
        await asyncio.sleep(0)
        inside -= 1
        await turn.end(replied(f"re: {number}"))

    tasks = []
    for number in range(12):
        tasks.append(asyncio.create_task(one(number)))
        await asyncio.sleep(0.003)  # arrivals are apart
    await asyncio.gather(*tasks)
    assert order == list(range(12))
    assert [texts(t.input) for t in await all_turns(history)] == [[str(n)] for n in range(12)]


@proves("G3")
async def test_turns_from_two_processes_do_not_tear_each_other(stores: Stores) -> None:
    numbers = count()

    async def one(history: SessionHistory) -> int:
        turn = await begun(history, str(next(numbers)), wait_s=60, window=100_000)
        await turn.end(replied())
        return len(turn.past)

    both = [(await stores.open()).history("alice", "s1") for _ in range(2)]
    seen = await asyncio.gather(*(one(history) for history in both for _ in range(8)))
    assert sorted(seen) == list(range(0, 32, 2))
    assert {t.status for t in await all_turns(both[0])} == {Is.COMPLETE}


async def test_sessions_do_not_wait_for_each_other(store: HistoryStore) -> None:
    held = await begun(store.history("alice", "s1"), "hello")
    await talk(store.history("alice", "s2"), "hello")
    await talk(store.history("bob", "s1"), "hello")
    await held.end(FAILED)


async def test_the_wait_for_a_turn_is_bounded(history: SessionHistory) -> None:
    turn = await begun(history, "first")
    for wait_s in (0, 0.05):
        for one in tries(wait_s + 2):
            with one, pytest.raises(SessionBusy):
                await history.begin(said("second"), wait_s=wait_s)
            assert one.took + 0.005 >= wait_s
    await turn.end(replied())
    assert [texts(t.input) for t in await all_turns(history)] == [["first"]]
    await talk(history, "third")


async def test_without_a_wait_a_free_session_is_not_busy(stores: Stores, history: SessionHistory) -> None:
    other = (await stores.open()).history("alice", "s1")
    for number in range(10):
        await (await begun(history if number % 2 else other, "hello", wait_s=0)).end(replied())


async def test_a_look_at_the_record_makes_nobody_find_the_session_busy(stores: Stores, history: SessionHistory) -> None:
    other = (await stores.open()).history("alice", "s1")
    done = False

    async def look() -> None:
        while not done:
            await other.turns(limit=1)
            await other.stop()
            await asyncio.sleep(0)  # a store in memory never waits by itself

    await talk(history, "hello")
    looking = [asyncio.create_task(look()) for _ in range(4)]
    try:
        for _ in range(30):
            await (await begun(history, "hello", wait_s=0)).end(replied())
    finally:
        done = True
        await asyncio.gather(*looking)


async def test_a_turn_ends_once(history: SessionHistory) -> None:
    turn = await begun(history, "hello")
    await turn.end(replied("one"))
    following = await begun(history, "again")
    with pytest.raises(HistoryError):
        await turn.end(replied("two"))
    with pytest.raises(SessionBusy):
        await history.begin(said("me too"), wait_s=0)
    await following.end(replied("three"))
    assert [texts(t.output) for t in await all_turns(history)] == [["one"], ["three"]]


async def test_a_complete_turn_is_answered_from_the_record(stores: Stores, history: SessionHistory) -> None:
    turn = await begun(history, said("hello", turn_id="t-1"))
    await turn.end(replied("hi"))
    await talk(history, "more")
    other = (await stores.open()).history("alice", "s1")
    for each in (history, other):
        answer = await each.begin(said("ignored", turn_id="t-1"))
        assert isinstance(answer, Turn)
        assert (answer.turn_id, answer.status, texts(answer.output)) == ("t-1", Is.COMPLETE, ["hi"])
    assert len(await all_turns(history)) == 2
    await talk(history, "the session is free")


async def test_a_retry_of_a_running_turn_is_refused_at_once(stores: Stores, history: SessionHistory) -> None:
    turn = await begun(history, said("hello", turn_id="t-1"))
    waiting = asyncio.create_task(begun(history, "another", wait_s=60))
    other = (await stores.open()).history("alice", "s1")
    waiting_there = asyncio.create_task(begun(other, "yet another", wait_s=60))
    await until(lambda: bool(history.gate.queue.waits("a session")))
    for each in (history, other):
        for one in tries(2):
            with one, pytest.raises(SessionBusy):
                await each.begin(said("hello", turn_id="t-1"), wait_s=60)
    await turn.end(replied())
    for task in asyncio.as_completed([waiting, waiting_there]):
        await (await task).end(replied())


async def test_a_turn_whose_id_is_given_waits_like_any_other(stores: Stores, history: SessionHistory) -> None:
    other = (await stores.open()).history("alice", "s1")
    turn = await begun(history, said("first", turn_id="t-1"))
    with pytest.raises(SessionBusy):
        await history.begin(said("second", turn_id="t-2"), wait_s=0)
    here = asyncio.create_task(begun(history, said("here", turn_id="t-2")))
    there = asyncio.create_task(begun(other, said("there", turn_id="t-3")))
    await asyncio.sleep(0.02)
    assert not here.done()
    assert not there.done()
    await turn.end(replied())
    for task in asyncio.as_completed([here, there]):
        await (await task).end(replied())
    assert {t.turn_id for t in await all_turns(history)} == {"t-1", "t-2", "t-3"}


async def test_a_store_that_can_be_used_answers_a_ping(store: HistoryStore) -> None:
    await asyncio.gather(*(store.ping() for _ in range(8)))


@proves("G5")
@pytest.mark.parametrize("status", [Is.FAILED, Is.INTERRUPTED])
@pytest.mark.parametrize("others", [0, 2])
async def test_a_retry_replaces_what_did_not_complete(history: SessionHistory, status: Is, others: int) -> None:
    await talk(history, "earlier")
    turn = await begun(history, said("first try", turn_id="t-1"))
    await turn.end(replied("half a re", status))
    await talk(history, *map(str, range(others)))
    again = await begun(history, said("second try", turn_id="t-1"), window=100_000)
    assert "first try" not in texts(again.past)
    await again.end(replied("whole"))
    expected = ["earlier", *map(str, range(others)), "second try"]
    assert [texts(t.input)[0] for t in await all_turns(history)] == expected
    assert [texts(t.input)[0] for t in await all_turns(history, limit=1)] == expected
    assert (await history.info()).turns == len(expected)


async def test_a_retry_may_be_replaced_time_and_again(history: SessionHistory) -> None:
    for others in (0, 1, 0, 0, 1, 0):
        await (await begun(history, said("try", turn_id="t-1"))).end(FAILED)
        await talk(history, *["other"] * others)
    await (await begun(history, said("last", turn_id="t-1"))).end(replied())
    for limit in (1, 2, 50):
        assert [texts(t.input)[0] for t in await all_turns(history, limit)] == ["other", "other", "last"]
    first = (await all_turns(history))[0]
    await history.rewind("t-1")
    assert len(await all_turns(history)) == (await history.info()).turns == 2
    await history.rewind(first.turn_id)
    assert await all_turns(history) == []
    assert (await history.info()).turns == 0


async def test_a_turn_id_belongs_to_its_session(store: HistoryStore) -> None:
    for session in ("s1", "s2"):
        turn = await begun(store.history("alice", session), said("hello", turn_id="t-1"))
        await turn.end(replied(session))


async def test_a_turn_id_that_was_only_mentioned_is_free(history: SessionHistory) -> None:
    traps = {"id": "t-1", "chain": "chat", "r": "turn"}
    tricky = HumanMessage('"id":"t-1","chain"', additional_kwargs=traps, name="t-1")
    turn = await begun(history, NewTurn(input=[tricky]))
    await turn.end(replied())
    assert isinstance(await history.begin(said("hello", turn_id="t-1")), OpenTurn)


async def test_a_begin_that_was_refused_leaves_nothing(history: SessionHistory) -> None:
    with pytest.raises(UnknownMessage):
        await history.begin(NewTurn(input=[HumanMessage("", additional_kwargs={"x": object()})]))
    assert await all_turns(history) == []
    await history.restore([], title="free", created_at=now())


@proves("G2")
async def test_a_reply_that_cannot_be_kept_is_an_error_and_frees_the_session(history: SessionHistory) -> None:
    turn = await begun(history, "hello")
    with pytest.raises(UnknownMessage):
        await turn.end(Reply(status=Is.COMPLETE, output=[AIMessage("", additional_kwargs={"x": b"bytes"})]))
    (ended,) = await all_turns(history)
    assert (ended.status, texts(ended.input)) == (Is.INTERRUPTED, ["hello"])
    await talk(history, "again")


@proves("G6")
async def test_what_a_dead_process_left_running_is_interrupted(stores: Stores, history: SessionHistory) -> None:
    if stores.url is None:
        pytest.skip("ends with its process")
    with other(stores.url, "hold") as holder:
        await holder.tells()
        with pytest.raises(SessionBusy):
            await history.begin(said("too soon"), wait_s=0)
        waiting = asyncio.create_task(begun(history, "mine", wait_s=60))
        holder.kill()
    turn = await waiting
    assert [(texts(t.input), t.status) for t in await all_turns(history)] == [
        (["held"], Is.INTERRUPTED), (["mine"], Is.RUNNING)
    ]  # fmt: skip
    await turn.end(replied())


@proves("G10")
@pytest.mark.parametrize("steps", range(24))
async def test_a_begin_that_is_cancelled_leaves_the_session_usable(history: SessionHistory, steps: int) -> None:
    held = await begun(history, "first") if steps % 2 else None
    task = asyncio.create_task(history.begin(said("cancelled"), wait_s=60, window_tokens=1000))
    for _ in range(steps):
        await asyncio.sleep(0 if steps < 12 else 0.0002)
    task.cancel()
    if held is not None:
        await held.end(replied())
    done = (await asyncio.gather(task, return_exceptions=True))[0]
    if isinstance(done, OpenTurn):  # the cancellation came too late
        await done.end(Reply(status=Is.INTERRUPTED))
    else:
        assert isinstance(done, asyncio.CancelledError)
    await talk(history, "next")
    turns = await all_turns(history)
    assert texts(turns[-1].input) == ["next"]
    assert {t.status for t in turns if texts(t.input) == ["cancelled"]} <= {Is.INTERRUPTED}
    assert (await history.info()).turns == len(turns)


async def test_who_gives_up_waiting_is_passed_by(history: SessionHistory) -> None:
    turn = await begun(history, "first")
    waiting = [asyncio.create_task(begun(history, str(n), wait_s=60)) for n in range(4)]
    await until(lambda: len(history.gate.queue.waits("a session")) == 4)
    for task in waiting[:3]:
        task.cancel()
    await asyncio.gather(*waiting[:3], return_exceptions=True)
    await turn.end(replied())
    await (await waiting[3]).end(replied())
    assert [texts(t.input) for t in await all_turns(history)] == [["first"], ["3"]]


@proves("G1")
@pytest.mark.parametrize("steps", range(12))
async def test_an_end_that_is_cancelled_still_records(history: SessionHistory, steps: int) -> None:
    turn = await begun(history, "hello")
    task = asyncio.create_task(turn.end(replied("kept")))
    for _ in range(steps + 1):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert [(t.status, texts(t.output)) for t in await all_turns(history)] == [(Is.COMPLETE, ["kept"])]
    await talk(history, "next")


async def test_a_running_turn_is_stopped_from_any_process_within_a_second(stores: Stores) -> None:
    here, there = await stores.open(), await stores.open()
    for asker in (here, there):
        for one in tries(1):
            stopped = asyncio.Event()
            turn = await here.history("alice", "s1").begin(said("hello"), on_stop=stopped.set)
            assert isinstance(turn, OpenTurn)
            with one:
                assert await asker.history("alice", "s1").stop()
                await asyncio.wait_for(stopped.wait(), 60)
            await turn.end(replied("half", Is.INTERRUPTED))
            assert not await asker.history("alice", "s1").stop()


async def test_a_turn_without_a_way_to_be_stopped_runs_on(stores: Stores, history: SessionHistory) -> None:
    turn = await begun(history, "hello")
    assert await history.stop()
    assert await (await stores.open()).history("alice", "s1").stop()
    await turn.end(replied())
    assert [t.status for t in await all_turns(history)] == [Is.COMPLETE]

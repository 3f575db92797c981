"""One turn at a time, across servers: leases, tokens, and the line of those who wait."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress

import pytest
from langchain_core.messages import HumanMessage

from histories.base import (
    Event,
    NewTurn,
    OpenTurn,
    Reply,
    SessionBusy,
    Turn,
    TurnLost,
    TurnStatus,
)
from histories.postgres.store import PostgresStore
from tests.histories.postgres.steps import ask, in_line, opened, until
from tests.histories.steps import REPLY, begun, record
from tests.proofs import proves
from tests.quick import tries
from tests.store_holder import USER, Holder, holder, whole_turn


@proves("G3")
async def test_a_holder_paused_for_longer_than_its_lease_never_writes(url: str, store: PostgresStore) -> None:
    async with holder(url) as other:
        assert await other.ask("begin s theirs") == "begun"
        os.kill(other.process.pid, signal.SIGSTOP)
        ours = await begun(store, words="ours", wait_s=60)
        await other.send("end too-late")
        os.kill(other.process.pid, signal.SIGCONT)
        assert await other.answer() == "TurnLost"
        await ours.end(REPLY)
    assert await record(store) == [("interrupted", ["theirs"], []), ("complete", ["ours"], ["an answer"])]


async def test_a_dead_holders_session_takes_its_next_turn_within_5_s(url: str, store: PostgresStore) -> None:
    for one in tries(5):
        async with holder(url) as other, holder(url) as waiter:
            assert await other.ask("begin s theirs") == "begun"
            await waiter.send("begin s never")
            await until(in_line(url))
            waiter.process.kill()
            other.process.kill()
            with one:
                ours = await begun(store, words="ours", wait_s=60)
            assert [turn[0] for turn in await record(store)][-2:] == ["interrupted", "running"]
            await ours.end(REPLY)
        expected = [("interrupted", ["theirs"], []), ("complete", ["ours"], ["an answer"])]
        assert (await record(store))[-2:] == expected
        assert (await store.history(USER, "s").turns()).items[-2].ended_at is not None


async def test_what_a_dead_server_left_is_shown_as_interrupted_and_can_be_forked_rewound_and_deleted(url: str) -> None:
    async with opened(url) as store:
        async with holder(url) as other:
            for session in ("s", "gone"):
                assert await other.ask(f"begin {session} theirs") == "begun"
        turn_id = (await store.history(USER, "s").turns()).items[0].turn_id
        assert (await record(store))[0][0] == "running"
        ask(url, "UPDATE recollect_servers SET beaten_at = 'epoch', lease = '0'")
        assert await record(store) == [("interrupted", ["theirs"], [])]
        await store.history(USER, "s").fork("copy", turn_id)
        assert await record(store, "copy") == [("interrupted", ["theirs"], [])]
        await store.history(USER, "s").rewind(turn_id)
        assert (await store.history(USER, "s").info()).turns == 0
        await store.history(USER, "gone").delete()
        assert [s.session_id for s in (await store.sessions(USER)).items] == ["s", "copy"]


async def test_turns_of_one_session_from_two_processes_and_two_stores_run_in_order_and_see_all_before(
    url: str, store: PostgresStore
) -> None:
    async with holder(url) as one, holder(url) as two, opened(url) as third:
        await one.send("many s 12 one")
        await two.send("many s 12 two")
        ours = await asyncio.gather(*(whole_turn((store, third)[n % 2], "s", f"three-{n}") for n in range(24)))
        theirs = [int(word) for other in (one, two) for word in (await other.answer()).split()]
    assert sorted([*ours, *theirs]) == list(range(48))
    turns = await record(store)
    assert all(turn == ("complete", turn[1], [f"heard {turn[1][0]}"]) for turn in turns)
    for name in ("one", "two"):
        said = [str(turn[1][0]) for turn in turns if str(turn[1][0]).startswith(name)]
        assert said == [f"{name}-{n}" for n in range(12)]


async def test_who_waits_in_another_server_is_called_and_not_overtaken(url: str, store: PostgresStore) -> None:
    async with opened(url) as other:
        for one in tries(0.5):
            first = await begun(store)
            waiting = asyncio.create_task(begun(other, words="second", wait_s=60))
            await until(in_line(url))
            third = asyncio.create_task(begun(store, words="third", wait_s=60))
            await asyncio.sleep(0.1)  # the waiter has looked twice by now; only a call wakes it before a second is over
            with one:
                await first.end(REPLY)
                second = await waiting
            with pytest.raises(SessionBusy):
                await begun(store, words="never", wait_s=0)
            await second.end(REPLY)
            await (await third).end(REPLY)
            assert [turn[1] for turn in await record(store)][-3:] == [["a question"], ["second"], ["third"]]


async def test_who_gives_up_waiting_is_out_of_the_line(url: str, store: PostgresStore) -> None:
    async with opened(url) as other:
        first = await begun(store)
        with pytest.raises(SessionBusy):
            await begun(other, wait_s=0.1)
        assert not in_line(url)()
        cancelled = asyncio.create_task(begun(other, wait_s=60))
        await until(in_line(url))
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert not in_line(url)()
        await first.end(REPLY)
        await (await begun(other, wait_s=0)).end(REPLY)
    assert len(await record(store)) == 2


async def test_a_live_holder_keeps_its_session_for_longer_than_a_lease(url: str) -> None:
    async with opened(url, lease_s=1.0) as store, opened(url, lease_s=1.0) as other:
        turn = await begun(store)
        with pytest.raises(SessionBusy):
            await begun(other, wait_s=2.5)
        for work in (
            other.history(USER, "s").delete(),
            other.forget(USER),
            other.history(USER, "s").fork("f", turn.turn_id),
        ):
            with pytest.raises(SessionBusy):
                await work
        await turn.end(REPLY)
        assert await record(store) == [("complete", ["a question"], ["an answer"])]


async def test_a_retry_of_a_turn_that_runs_elsewhere_is_refused_at_once_even_behind_a_waiter(
    url: str, store: PostgresStore
) -> None:
    new = NewTurn(input=[HumanMessage("once")], turn_id="mine", given=True)
    async with opened(url) as other:
        turn = await store.history(USER, "s").begin(new)
        assert isinstance(turn, OpenTurn)
        with pytest.raises(SessionBusy, match="turn_id"):
            await other.history(USER, "s").begin(new, wait_s=60)
        waiting = asyncio.create_task(begun(other, wait_s=60))
        await until(in_line(url))
        for each in (store, other):
            for one in tries(1):
                with one, pytest.raises(SessionBusy, match="turn_id"):
                    await each.history(USER, "s").begin(new, wait_s=60)
        await turn.end(REPLY)
        again = await other.history(USER, "s").begin(new)
        assert isinstance(again, Turn)
        assert [m.content for m in again.output] == ["an answer"]
        await (await waiting).end(REPLY)


async def test_a_stop_whose_call_is_lost_is_seen_by_the_heartbeat(url: str, store: PostgresStore) -> None:
    for one in tries(2):
        stopped = asyncio.Event()
        turn = await begun(store, on_stop=stopped.set)
        ask(url, "INSERT INTO recollect_stops SELECT holder, token FROM recollect_sessions")
        with one:
            await asyncio.wait_for(stopped.wait(), 60)
        await turn.end(REPLY)


async def test_who_lost_its_turn_is_told_to_stop(url: str, store: PostgresStore) -> None:
    async with opened(url) as other:
        for one in tries(2):
            stopped = asyncio.Event()
            lost = await begun(store, on_stop=stopped.set)
            ask(url, "DELETE FROM recollect_servers")
            ours = await begun(other, wait_s=0)
            with one:
                await asyncio.wait_for(stopped.wait(), 60)
            with pytest.raises(TurnLost):
                await lost.end(REPLY)
            await ours.end(REPLY)
            assert [turn[0] for turn in await record(store)][-2:] == ["interrupted", "complete"]


async def test_a_cancelled_begin_leaves_no_turn_that_runs(store: PostgresStore) -> None:
    for pause in range(12):
        beginning = asyncio.create_task(begun(store, words=str(pause), wait_s=1))
        await asyncio.sleep(pause / 2000)
        beginning.cancel()
        with suppress(asyncio.CancelledError):
            await (await beginning).end(REPLY)
    await (await begun(store, wait_s=0)).end(REPLY)
    assert all(turn[0] in ("interrupted", "complete") for turn in await record(store))


async def test_an_end_is_written_although_its_caller_is_cancelled(store: PostgresStore) -> None:
    turn = await begun(store)
    ending = asyncio.create_task(turn.end(REPLY))
    await asyncio.sleep(0)
    ending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ending
    assert await record(store) == [("complete", ["a question"], ["an answer"])]


async def test_a_stop_that_comes_late_does_not_stop_the_retry(url: str, store: PostgresStore) -> None:
    stopped = asyncio.Event()
    new = NewTurn(input=[HumanMessage("once")], turn_id="mine", given=True)
    first = await store.history(USER, "s").begin(new)
    assert isinstance(first, OpenTurn)
    await first.end(Reply(status=TurnStatus.FAILED))
    token = ask(url, "SELECT token FROM recollect_turns")
    again = await store.history(USER, "s").begin(new, on_stop=stopped.set)
    assert isinstance(again, OpenTurn)
    ask(url, f"INSERT INTO recollect_stops VALUES ('{store.link().server_id}', '{token}')")
    await until(lambda: ask(url, "SELECT count(*) FROM recollect_stops") == 0)
    await asyncio.sleep(0)
    assert not stopped.is_set()
    await again.end(REPLY)


@proves("G12")
async def test_what_a_dead_server_had_said_is_on_the_record_and_who_reads_it_elsewhere_is_told_the_end(
    url: str, store: PostgresStore
) -> None:
    async with holder(url) as other:
        assert await other.ask("begin s theirs") == "begun"
        assert await other.ask("say half an answer") == "said"
        history = store.history(USER, "s")
        (running,) = (await history.turns()).items
        heard = [event.data async for some in _until_dead(history.events(running.turn_id), other) for event in some]
    assert heard == [b'"half"', b'"an"', b'"answer"']
    assert await record(store) == [("interrupted", ["theirs"], ["halfananswer"])]
    (lost,) = (await history.turns()).items
    assert lost.details["events"] == 3
    assert lost.tokens > 0
    assert ask(url, "SELECT count(*) FROM recollect_events") == 0
    following = await begun(store, words="ours", window_tokens=1000)
    assert [m.content for m in following.past] == ["theirs", "halfananswer"]
    await following.end(REPLY)


async def _until_dead(events: AsyncIterator[Sequence[Event]], other: Holder) -> AsyncIterator[Sequence[Event]]:
    """All events; their server is killed after the first ones."""
    async for some in events:
        other.process.kill()
        yield some

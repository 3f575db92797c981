"""Who holds a session of the Redis store: leases, fences, and what becomes of a holder that dies, pauses or stalls."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from langchain_core.messages import HumanMessage

from histories.base import (
    NewTurn,
    OpenTurn,
    Reply,
    SessionBusy,
    TurnStatus,
)
from histories.redis.store import RedisStore
from tests.histories.redis.servers import dead_turn, opened, queue_of
from tests.histories.steps import REPLY, begun, record
from tests.proofs import proves
from tests.quick import tries
from tests.redis_server import RedisServer
from tests.store_holder import USER, holder
from tests.stores import all_turns, talk, texts, until


@proves("G3")
async def test_a_holder_paused_for_longer_than_its_lease_never_writes(server: RedisServer, store: RedisStore) -> None:
    async with holder(server.url) as other:
        assert await other.ask("begin s theirs") == "begun"
        os.kill(other.process.pid, signal.SIGSTOP)
        ours = await begun(store, words="ours", wait_s=60)
        await other.send("end too-late")
        os.kill(other.process.pid, signal.SIGCONT)
        assert await other.answer() == "TurnLost"
        await ours.end(REPLY)
    assert await record(store) == [("interrupted", ["theirs"], []), ("complete", ["ours"], ["an answer"])]


async def test_a_dead_holders_session_takes_its_next_turn_within_5_s(server: RedisServer, store: RedisStore) -> None:
    for one in tries(5):
        async with holder(server.url) as other, holder(server.url) as waiter:
            assert await other.ask("begin s theirs") == "begun"
            await waiter.send("begin s never")
            await until(lambda: len(queue_of(server)) == 1)
            waiter.process.kill()
            other.process.kill()
            with one:
                ours = await begun(store, words="ours", wait_s=60)
            await ours.end(REPLY)
        expected = [("interrupted", ["theirs"], []), ("complete", ["ours"], ["an answer"])]
        assert (await record(store))[-2:] == expected
        assert (await store.history(USER, "s").turns()).items[-2].ended_at is not None
        assert queue_of(server) == ""


async def test_a_live_holder_keeps_its_session_for_longer_than_a_lease(store: RedisStore, server: RedisServer) -> None:
    async with opened(server.url) as other:
        turn = await begun(store)
        with pytest.raises(SessionBusy):
            await begun(other, wait_s=4.5)
        await turn.end(REPLY)
    assert await record(store) == [("complete", ["a question"], ["an answer"])]


async def test_a_holder_whose_lease_ran_out_while_redis_stood_still_is_not_taken_over(
    store: RedisStore, server: RedisServer
) -> None:
    turn = await begun(store)
    with server.client() as client:
        client.delete(f"recollect:{{{USER}}}:lease:s")  # as it is after a stall
    async with opened(server.url) as other:
        with pytest.raises(SessionBusy):
            await begun(other, words="taken over", wait_s=0)
        waiting = asyncio.create_task(begun(other, words="next", wait_s=60))
        with server.client() as client:
            await until(lambda: client.exists(f"recollect:{{{USER}}}:lease:s") == 1)
        assert [status for status, *_ in await record(other)] == ["running"]
        await turn.end(REPLY)
        await (await waiting).end(REPLY)
    assert [status for status, *_ in await record(store)] == ["complete", "complete"]


@pytest.mark.parametrize("act", ["delete", "rewind", "choose", "delete_turn"])
async def test_a_process_changes_no_session_whose_turn_it_runs_also_without_a_lease(
    store: RedisStore, server: RedisServer, act: str
) -> None:
    history = store.history(USER, "s")
    (first,) = await talk(history, "one")
    turn = await begun(store)
    with server.client() as client:
        client.delete(f"recollect:{{{USER}}}:lease:s")  # as it is when the process has stood still
    with pytest.raises(SessionBusy):
        await (history.delete() if act == "delete" else getattr(history, act)(first))
    await turn.end(REPLY)
    assert [status for status, *_ in await record(store)] == ["complete", "complete"]


async def test_what_a_dead_holder_was_heard_to_say_is_on_the_record_for_who_reads_and_for_who_goes_on(
    server: RedisServer, store: RedisStore
) -> None:
    for words in ("read", "go on"):
        turn_id = await dead_turn(server, words, events=("half an ", "answer"))
        if words == "read":
            await retried_until_ended(store, turn_id)
        turn = await begun(store, words="next", wait_s=60, window_tokens=1000)
        assert texts(turn.past)[-2:] == [words, "half an answer"]
        await turn.end(Reply(status=TurnStatus.FAILED))
        dead = await store.history(USER, "s").turn(turn_id)
        assert (dead.status, texts(dead.output)) == (TurnStatus.INTERRUPTED, ["half an answer"])
        assert dead.ended_at is not None
        assert dead.tokens > 3
    with server.client() as client:
        assert client.keys("*journal*") == []


async def retried_until_ended(store: RedisStore, turn_id: str) -> None:
    """A server that has just started gives holders some time: until then the turn is told to run."""
    async with asyncio.timeout(60):
        while (await store.history(USER, "s").turn(turn_id)).status is TurnStatus.RUNNING:
            await asyncio.sleep(0.05)


async def test_a_version_whose_holder_died_is_shown_only_if_it_said_something(
    server: RedisServer, store: RedisStore
) -> None:
    history = store.history(USER, "s")
    one, _ = await talk(history, "one", "two")
    silent = await dead_turn(server, "silent", version_of=one)
    await retried_until_ended(store, silent)
    assert [texts(turn.input) for turn in await all_turns(history)] == [["one"], ["two"]]
    heard = await dead_turn(server, "heard", version_of=one, events=("half",))
    await retried_until_ended(store, heard)
    assert [texts([*turn.input, *turn.output]) for turn in await all_turns(history)] == [["heard", "half"]]
    assert (await history.turn(one)).versions == [one, silent, heard]


async def test_a_stop_is_for_the_attempt_that_ran_and_not_for_its_retry(server: RedisServer, store: RedisStore) -> None:
    new, stopped = NewTurn(input=[HumanMessage("once")], turn_id="mine", given=True), list[str]()
    history = store.history(USER, "s")
    first = await history.begin(new, on_stop=lambda: stopped.append("first"))
    assert isinstance(first, OpenTurn)
    with server.client() as client:
        token = client.hget(f"recollect:{{{USER}}}:session:s", "run")
        await first.end(Reply(status=TurnStatus.FAILED))
        again = await history.begin(new, on_stop=lambda: stopped.append("again"))
        assert isinstance(again, OpenTurn)
        client.hset(f"recollect:{{{USER}}}:session:s", "stop", token)
        client.publish(client.pubsub_channels("*:server:*")[0], f"stop {token}")
        client.delete(f"recollect:{{{USER}}}:lease:s")
        await until(lambda: client.exists(f"recollect:{{{USER}}}:lease:s") == 1)  # a heartbeat later
    assert stopped == []
    await again.end(REPLY)

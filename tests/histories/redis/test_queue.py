"""Who waits for a session of the Redis store, in which server ever: in order of arrival."""

from __future__ import annotations

import asyncio

import pytest
from langchain_core.messages import HumanMessage

from histories.base import (
    NewTurn,
    OpenTurn,
    SessionBusy,
    Turn,
)
from histories.redis.store import RedisStore
from tests.histories.redis.servers import opened, queue_of
from tests.histories.steps import REPLY, begun, record
from tests.quick import tries
from tests.redis_server import RedisServer
from tests.store_holder import USER, holder, whole_turn
from tests.stores import until


async def test_turns_of_one_session_from_two_servers_run_in_order_and_see_all_before(
    server: RedisServer, store: RedisStore
) -> None:
    async with holder(server.url) as one, holder(server.url) as two, opened(server.url) as third:
        await one.send("many s 24 one")
        await two.send("many s 24 two")
        ours = await asyncio.gather(*(whole_turn((store, third)[n % 2], "s", f"three-{n}") for n in range(24)))
        theirs = [int(word) for other in (one, two) for word in (await other.answer()).split()]
    assert sorted([*ours, *theirs]) == list(range(72))
    turns = await record(store)
    assert all(turn == ("complete", turn[1], [f"heard {turn[1][0]}"]) for turn in turns)
    for name, count in (("one", 24), ("two", 24)):
        said = [str(turn[1][0]) for turn in turns if str(turn[1][0]).startswith(name)]
        assert said == [f"{name}-{n}" for n in range(count)]


async def test_who_waits_in_another_server_is_not_overtaken(store: RedisStore, server: RedisServer) -> None:
    async with opened(server.url) as other:
        first = await begun(store)
        waiting = asyncio.create_task(begun(other, words="second", wait_s=60))
        await until(lambda: len(queue_of(server)) == 1)
        third = asyncio.create_task(begun(store, words="third", wait_s=60))
        await first.end(REPLY)
        with pytest.raises(SessionBusy):
            await begun(store, words="never", wait_s=0)
        await (await waiting).end(REPLY)
        await (await third).end(REPLY)
    assert [turn[1] for turn in await record(store)] == [["a question"], ["second"], ["third"]]


async def test_who_gives_up_waiting_is_out_of_the_line(store: RedisStore, server: RedisServer) -> None:
    async with opened(server.url) as other:
        first = await begun(store)
        with pytest.raises(SessionBusy):
            await begun(other, wait_s=0.1)
        assert queue_of(server) == ""
        cancelled = asyncio.create_task(begun(other, wait_s=60))
        await until(lambda: len(queue_of(server)) == 1)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert queue_of(server) == ""
        await first.end(REPLY)
        await (await begun(other, wait_s=0)).end(REPLY)
    assert len(await record(store)) == 2


async def test_a_retry_of_a_turn_that_runs_elsewhere_is_refused_at_once_even_behind_a_waiter(
    store: RedisStore, server: RedisServer
) -> None:
    new = NewTurn(input=[HumanMessage("once")], turn_id="mine", given=True)
    async with opened(server.url) as other:
        turn = await store.history(USER, "s").begin(new)
        assert isinstance(turn, OpenTurn)
        waiting = asyncio.create_task(begun(other, wait_s=60))
        await until(lambda: len(queue_of(server)) == 1)
        for one in tries(1):
            with one, pytest.raises(SessionBusy, match="turn_id"):
                await other.history(USER, "s").begin(new, wait_s=60)
        await turn.end(REPLY)
        again = await other.history(USER, "s").begin(new)
        assert isinstance(again, Turn)
        assert [m.content for m in again.output] == ["an answer"]
        await (await waiting).end(REPLY)


async def test_a_user_of_few_rights_waits_and_stops_by_the_heartbeat(store: RedisStore, server: RedisServer) -> None:
    rights = ("~recollect:*", "resetchannels", "+@read", "+@write", "+@scripting", "+@connection", "+time")
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "app", "on", ">pw", *rights)
    url = f"redis://app:pw@127.0.0.1:{server.port}"
    async with opened(url) as here, opened(url) as other:
        for one in tries(4):
            stopped = asyncio.Event()
            turn = await begun(here, on_stop=stopped.set)
            waiting = asyncio.create_task(begun(other, wait_s=60))
            await until(lambda: len(queue_of(server)) == 1)
            with one:
                assert await other.history(USER, "s").stop()
                await asyncio.wait_for(stopped.wait(), 60)
                await turn.end(REPLY)
                await (await waiting).end(REPLY)

"""The journal of a turn in Redis: read by any number, with and without messages, and gone when it has to be."""

from __future__ import annotations

import asyncio
import json

import pytest

from histories.base import Event, StoreFull, TurnLost
from histories.redis.store import RedisStore
from tests.histories.redis.servers import opened
from tests.histories.steps import REPLY, begun
from tests.redis_server import RedisServer
from tests.store_holder import USER
from tests.tcp_proxy import Proxy


async def read(store: RedisStore, turn_id: str, upto: int | None = None) -> list[int]:
    """The numbers of a turn's events, to the end, or up to that one."""
    found = list[int]()
    async with asyncio.timeout(60):
        async for some in store.history(USER, "s").events(turn_id):
            found += [event.seq for event in some]
            if found[-1] == upto:
                break
    return found


def events(*numbers: int) -> list[bytes]:
    return [json.dumps(number).encode() for number in numbers]


async def test_a_hundred_readers_take_no_connection_each(server: RedisServer, store: RedisStore) -> None:
    turn = await begun(store)
    async with opened(server.url) as other:
        reading = [asyncio.create_task(read(each, turn.turn_id, 19)) for each in (store, other) for _ in range(50)]
        for number in range(20):
            await turn.journal(events(number))
        assert {tuple(await one) for one in reading} == {tuple(range(20))}
        with server.client() as client:
            assert len(client.client_list()) < 200
    await turn.end(REPLY)


async def test_readers_without_a_right_to_messages_hear_all_the_same(store: RedisStore, server: RedisServer) -> None:
    rights = ("~recollect:*", "resetchannels", "+@read", "+@write", "+@scripting", "+@connection", "+time")
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "app", "on", ">pw", *rights)
    async with opened(f"redis://app:pw@127.0.0.1:{server.port}") as other:
        turn = await begun(store)
        reading = asyncio.create_task(read(other, turn.turn_id, 1))
        await turn.journal(events(0))
        await turn.journal(events(1))
        assert await reading == [0, 1]
        await turn.end(REPLY)
        assert await read(other, turn.turn_id) == []


async def test_events_that_were_sent_twice_are_there_once(server: RedisServer) -> None:
    async with Proxy(server.port) as proxy, opened(server.url.replace(str(server.port), str(proxy.port))) as store:
        turn = await begun(store)
        await turn.journal(events(0, 1))
        proxy.cut_replies = 1
        await turn.journal(events(2, 3))
        await turn.journal(events(4))
        assert await read(store, turn.turn_id, 4) == [0, 1, 2, 3, 4]
        await turn.end(REPLY)


async def test_events_that_found_no_space_come_with_the_next_ones(server: RedisServer, store: RedisStore) -> None:
    turn = await begun(store)
    await turn.journal(events(0))
    with server.client() as client:
        client.config_set("maxmemory", 1)
        with pytest.raises(StoreFull):
            await turn.journal(events(1))
        client.config_set("maxmemory", 0)
    await turn.journal(events(2))
    found = [event async for some in _until(store, turn.turn_id, 2) for event in some]
    assert found == [Event(number, str(number).encode()) for number in range(3)]
    await turn.end(REPLY)


async def _until(store: RedisStore, turn_id: str, upto: int):  # type: ignore[no-untyped-def]
    async for some in store.history(USER, "s").events(turn_id):
        yield some
        if some[-1].seq == upto:
            return


async def test_a_holder_that_lost_its_turn_can_not_journal(server: RedisServer, store: RedisStore) -> None:
    turn = await begun(store)
    with server.client() as client:
        client.hset(f"recollect:{{{USER}}}:session:s", "run", "another")
        with pytest.raises(TurnLost):
            await turn.journal(events(0))
        assert client.keys("*journal*") == []
    with pytest.raises(TurnLost):
        await turn.end(REPLY)


async def test_a_journal_expires_and_is_gone_with_its_turn(server: RedisServer, store: RedisStore) -> None:
    turn = await begun(store)
    await turn.journal(events(0))
    with server.client() as client:
        (key,) = client.keys("*journal*")
        assert client.pttl(key) > 0
        await turn.end(REPLY)
        assert client.keys("*journal*") == []

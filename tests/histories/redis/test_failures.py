"""What becomes of turns when Redis is away, silent, full, or another one; and of what it would evict."""

from __future__ import annotations

import asyncio

import pytest

from histories.base import (
    StoreFull,
    StoreUnavailable,
)
from histories.redis.store import RedisStore
from tests.histories.redis.servers import opened, queue_of
from tests.histories.steps import REPLY, answer_each_once, begun, record
from tests.proofs import proves
from tests.quick import tries
from tests.redis_server import RedisServer
from tests.store_holder import USER, whole_turn
from tests.stores import until
from tests.tcp_proxy import Proxy


async def test_a_reply_is_saved_by_a_redis_that_comes_back_and_nobody_takes_its_turn(
    server: RedisServer, store: RedisStore
) -> None:
    async with opened(server.url) as other:
        turn = await begun(store)
        waiting = asyncio.create_task(begun(other, words="next", wait_s=60))
        await until(lambda: len(queue_of(server)) == 1)
        server.kill()
        ending = asyncio.create_task(turn.end(REPLY))
        with pytest.raises(StoreUnavailable):
            await other.history(USER, "s").info()
        server.start()
        await ending
        await (await waiting).end(REPLY)
    assert await record(store) == [
        ("complete", ["a question"], ["an answer"]),
        ("complete", ["next"], ["an answer"]),
    ]


@proves("G2")
async def test_a_reply_that_no_redis_comes_back_for_is_an_error(server: RedisServer) -> None:
    async with opened(server.url, save_limit_s=0.3) as store:
        turn = await begun(store)
        server.kill()
        with pytest.raises(StoreUnavailable):
            await turn.end(REPLY)
        with pytest.raises(StoreUnavailable):
            await begun(store, wait_s=0)
        with pytest.raises(StoreUnavailable):
            await store.ping()
        server.start()
        await store.ping()
        await (await begun(store, words="after", wait_s=60)).end(REPLY)
        assert await record(store) == [("interrupted", ["a question"], []), ("complete", ["after"], ["an answer"])]


async def test_a_silent_redis_is_an_error_soon_to_all_who_ask(server: RedisServer, store: RedisStore) -> None:
    turn = await begun(store)
    new = RedisStore(server.url)
    server.pause()
    try:
        for one in tries(7):
            asked = [each.history(USER, str(n)).info() for n in range(100) for each in (store, new)]
            with one:
                answers = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 60)
            assert all(isinstance(answer, StoreUnavailable) for answer in answers)
    finally:
        server.resume()
    await turn.end(REPLY)
    await new.close()
    assert await record(store) == [("complete", ["a question"], ["an answer"])]


async def test_a_store_opens_without_its_redis_and_works_when_it_is_there(server: RedisServer) -> None:
    server.kill()
    async with opened(server.url) as store:
        with pytest.raises(StoreUnavailable):
            await store.ping()
        server.start()
        await store.ping()
        assert await whole_turn(store, "s", "hello") == 0


async def test_a_reply_lost_on_its_way_is_not_a_second_turn(server: RedisServer) -> None:
    async with Proxy(server.port) as proxy, opened(server.url.replace(str(server.port), str(proxy.port))) as store:
        await answer_each_once(store, proxy)


async def test_a_full_redis_refuses_turns_and_replies_and_loses_nothing(server: RedisServer, store: RedisStore) -> None:
    turn = await begun(store)
    with server.client() as client:
        client.config_set("maxmemory", 1)
        with pytest.raises(StoreFull):
            await turn.end(REPLY)
        with pytest.raises(StoreFull):
            await begun(store, words="never", wait_s=0)
        with pytest.raises(StoreFull):
            await store.ping()
        assert await record(store) == [("interrupted", ["a question"], [])]
        client.config_set("maxmemory", 0)
    await (await begun(store, words="after", wait_s=0)).end(REPLY)
    assert await record(store) == [("interrupted", ["a question"], []), ("complete", ["after"], ["an answer"])]


async def test_a_turn_goes_on_when_a_replica_is_promoted(server: RedisServer) -> None:
    """The old master is a replica by then, and does not hang up: what its name leads to has to be looked up again."""
    replica = RedisServer()
    try:
        replica.start()
        with replica.client() as new, server.client() as old:
            new.replicaof("127.0.0.1", str(server.port))
            async with (
                Proxy(server.port) as name,
                opened(server.url.replace(str(server.port), str(name.port))) as store,
            ):
                await (await begun(store)).end(REPLY)
                turn = await begun(store, words="over two masters")
                await until(lambda: new.get(f"recollect:{{{USER}}}:lease:s") is not None)
                new.replicaof("NO", "ONE")
                old.replicaof("127.0.0.1", str(replica.port))
                name.target = replica.port
                await turn.end(REPLY)
                assert await whole_turn(store, "s", "after") == 2
                assert (await store.history(USER, "s").info()).turns == 3
    finally:
        replica.remove()


async def test_a_redis_that_evicts_is_not_ready_and_takes_no_turn_until_it_is_set_right(server: RedisServer) -> None:
    async with opened(server.url) as store:
        await store.ping()
        with server.client() as client:
            client.config_set("maxmemory-policy", "allkeys-lru")
            with pytest.raises(StoreUnavailable, match="maxmemory-policy noeviction"):
                await store.ping()
            with pytest.raises(StoreUnavailable, match="maxmemory-policy noeviction"):
                await begun(store, wait_s=0)
            client.config_set("maxmemory-policy", "noeviction")
        await store.ping()
        await (await begun(store, wait_s=0)).end(REPLY)
        with server.client() as client:
            client.config_set("maxmemory-policy", "volatile-ttl")
        async with asyncio.timeout(60):  # it is noticed without anybody asking
            while True:
                try:
                    await (await begun(store, wait_s=0)).end(REPLY)
                except StoreUnavailable:
                    break
                await asyncio.sleep(0.1)

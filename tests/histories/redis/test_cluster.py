"""The Redis store on a Redis Cluster."""

from __future__ import annotations

import asyncio
import time

import pytest
from langchain_core.messages import AIMessage, HumanMessage

from histories.base import (
    NewTurn,
    OpenTurn,
    StoreUnavailable,
)
from tests.histories.redis.servers import opened, retried
from tests.histories.steps import REPLY
from tests.redis_server import Cluster


async def test_users_of_a_cluster_have_the_same_guarantees(cluster: Cluster) -> None:
    async with opened(cluster.url) as one, opened(cluster.nodes[2].url) as other:
        for user in ("alice", "bob", "carol", "a}b{", "", "\ud800"):
            histories = [store.history(user, "s{1}") for store in (one, other)]
            turn = await histories[0].begin(NewTurn(input=[HumanMessage("first")]))
            assert isinstance(turn, OpenTurn)
            waiting = asyncio.create_task(histories[1].begin(NewTurn(input=[HumanMessage("second")], turn_id="two")))
            await turn.end(REPLY)
            second = await waiting
            assert isinstance(second, OpenTurn)
            await second.end(REPLY)
            await histories[1].fork("copy", "two")
            await histories[0].rewind("two")
            assert [s.turns for s in (await other.sessions(user)).items] == [1, 2]
            assert len((await one.sessions(user, query="second")).items) == 1
            await one.forget(user)
            assert (await other.sessions(user)).items == []


async def test_rates_are_counted_over_all_nodes_of_a_cluster(cluster: Cluster) -> None:
    async with opened(cluster.url) as one, opened(cluster.nodes[2].url) as other:
        for user in ("alice", "bob", "carol", "a}b{", "\ud800"):
            assert await one.counted(user) is None
            value, ends = await one.count(user, 2, 60)
            assert (value, abs(ends - time.time() - 60) < 10) == (2, True)
            assert (await other.count(user, -1, 60))[0] == 1
            assert (await other.counted(user) or (0, 0))[0] == 1
        await one.count("short", 1, 1)
        while await other.counted("short") is not None:
            await asyncio.sleep(0.05)


async def test_a_dead_node_of_a_cluster_stops_its_own_users_alone(cluster: Cluster) -> None:
    async with opened(cluster.url) as store:
        users = [f"user-{n}" for n in range(12)]
        with cluster.client() as client:
            ports = {u: client.get_node_from_key(f"recollect:{{{u}}}:").port for u in users}
        assert len(set(ports.values())) == 3
        for user in users:
            await store.history(user, "s").aadd_messages([HumanMessage("hello"), AIMessage("hello")])
        dead = cluster.nodes[1]
        dead.kill()
        with pytest.raises(StoreUnavailable):
            await store.history(next(u for u in users if ports[u] == dead.port), "s").info()
        dead.start()
        for user in users:
            await retried(lambda user=user: store.history(user, "s").info())
            assert len(await store.history(user, "s").aget_messages()) == 2

"""What a turn on Redis reads, and what it costs."""

from __future__ import annotations

import random

import pytest
from langchain_core.messages import AIMessage, HumanMessage

from histories.base import (
    HistoryDamaged,
    NewTurn,
    OpenTurn,
    Reply,
    Turn,
    TurnStatus,
    now,
)
from histories.memory import MemoryStore
from histories.redis.store import RedisStore
from tests.histories.steps import REPLY, begun
from tests.proofs import proves
from tests.redis_server import RedisServer
from tests.store_holder import USER, whole_turn
from tests.stores import all_turns, said, talk, texts


async def test_a_turn_takes_two_round_trips(server: RedisServer, store: RedisStore) -> None:
    await whole_turn(store, "s", "first")  # connections, scripts
    with server.client() as client:

        def calls() -> int:
            stats = client.info("commandstats")
            return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("evalsha", "eval"))

        before = calls()
        assert await whole_turn(store, "s", "second") == 1
        assert calls() - before == 2


@proves("G9")
async def test_a_turn_of_a_long_history_reads_its_window_alone(server: RedisServer, store: RedisStore) -> None:
    long = "x" * 500
    turns = [
        Turn(turn_id=str(n), status=status, chain="", started_at=now(), input=[HumanMessage(long)],
             output=[AIMessage(long)], tokens=300)
        for n in range(2000)
        for status in (TurnStatus.COMPLETE if n < 1000 else TurnStatus.FAILED,)
    ]  # fmt: skip
    await store.history(USER, "s").restore(turns, title="long", created_at=now())
    with server.client() as client:

        def sent() -> int:
            return int(client.info("stats")["total_net_output_bytes"])

        before = sent()
        overhead = sent() - before
        turn = await begun(store, window_tokens=3000)
        await turn.end(REPLY)
        assert 10 <= len(turn.past) <= 20
        assert sent() - before - 2 * overhead < 20_000


async def test_the_window_is_that_of_every_store(store: RedisStore) -> None:
    draw, memory = random.Random(7), MemoryStore()
    for n in range(40):
        limit, asked, answered = draw.choice((1, 7, 30)), draw.randrange(5), draw.randrange(9)
        status = draw.choice((TurnStatus.COMPLETE, TurnStatus.INTERRUPTED, TurnStatus.FAILED))
        output = [AIMessage(f"a{n}")] if draw.random() < 0.8 else []
        pasts = []
        for each in (store, memory):
            turn = await each.history(USER, "s").begin(
                NewTurn(input=[HumanMessage(f"q{n}")], tokens=asked), window_tokens=limit
            )
            assert isinstance(turn, OpenTurn)
            pasts.append(turn.past)
            await turn.end(Reply(status=status, output=output, tokens=answered))
        assert pasts[0] == pasts[1]


@pytest.mark.parametrize("damage", ["", "nonsense", "complete\n-\n{}\nnonsense", "complete\n-\n{}\n[]\n[]"])
async def test_damaged_messages_are_said_to_be_so_and_hold_nothing_up(
    server: RedisServer, store: RedisStore, damage: str
) -> None:
    await (await begun(store)).end(REPLY)
    with server.client() as client:
        (key,) = client.scan_iter(match="*:session:s")
        client.hset(key, "e1", damage)
    with pytest.raises(HistoryDamaged):
        await begun(store, window_tokens=100)
    await (await begun(store, wait_s=0)).end(REPLY)


@pytest.mark.parametrize("has_versions", [False, True])
async def test_a_window_that_is_gone_is_made_again(server: RedisServer, store: RedisStore, has_versions: bool) -> None:
    history = store.history(USER, "s")
    one, *_ = await talk(history, "one", "two", "three")
    if has_versions:
        turn = await history.begin(said("uno", version_of=one))
        assert isinstance(turn, OpenTurn)
        await turn.end(REPLY)
        await history.choose(one)
    with server.client() as client:
        client.delete(*client.keys("*:window:s"), *client.keys("*:path:s"))
    turn = await begun(store, window_tokens=1000)
    assert texts(turn.past) == ["one", "re: one", "two", "re: two", "three", "re: three"]
    await turn.end(REPLY)
    await history.rewind(turn.turn_id)
    assert [texts(turn.input)[0] for turn in await all_turns(history)] == ["one", "two", "three"]

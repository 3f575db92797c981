"""The tree of a session's turns in Redis: what is done in slices, what an earlier version left, and that all agrees."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage

from histories.base import (
    HistoryError,
    NewTurn,
    OpenTurn,
    Reply,
    SessionBusy,
    SessionHistory,
    Turn,
    TurnNotFound,
    TurnStatus,
    now,
)
from histories.cursors import to_micros
from histories.memory import MemoryStore
from histories.redis.records import begun_record, ended_record
from histories.redis.store import RedisStore
from tests.histories.steps import REPLY
from tests.redis_server import RedisServer
from tests.store_holder import USER
from tests.stores import all_turns, replied, said, talk, texts


async def words_of(history: SessionHistory) -> list[str]:
    return texts([turn.input[0] for turn in await all_turns(history)])


def short_turns(count: int) -> list[Turn]:
    reply = [AIMessage("a")]
    return [
        Turn(
            turn_id=f"t-{n}", status=TurnStatus.COMPLETE, chain="", started_at=now(),
            input=[HumanMessage(str(n))], output=reply, tokens=1,
        )
        for n in range(1, count + 1)
    ]  # fmt: skip


async def test_long_lines_are_hidden_shown_and_forgotten_in_slices(server: RedisServer, store: RedisStore) -> None:
    history = store.history(USER, "s")
    await history.restore(short_turns(5000), title="t", created_at=now())
    with server.client() as client:
        await history.rewind("t-101", keep=True)
        assert (await history.info()).turns == 100
        assert (await history.turn("t-4000")).status is TurnStatus.COMPLETE
        await history.choose("t-101")
        assert (await history.info()).turns == 5000
        turn = await history.begin(said("more"), window_tokens=40)
        assert isinstance(turn, OpenTurn)
        assert texts(turn.past)[-2:] == ["5000", "a"]
        await turn.end(replied())
        await history.rewind("t-101")
        assert (await history.info()).turns == 100
        assert client.hlen(f"recollect:{{{USER}}}:session:s") < 3 * 100 + 40
        slices = client.info("commandstats")["cmdstat_evalsha"]["calls"]
        assert slices > 3 * 5000 / 250  # path, window, sweep
    for gone in ("t-101", "t-3000", "t-5000", turn.turn_id):
        with pytest.raises(TurnNotFound):
            await history.turn(gone)
    assert (await words_of(history))[-1] == "100"


async def test_a_rewind_whose_server_died_halfway_is_finished_by_who_comes_next(
    server: RedisServer, store: RedisStore
) -> None:
    history = store.history(USER, "s")
    await talk(history, "one", "two", "three")
    await history.rewind((await all_turns(history))[2].turn_id)
    key = f"recollect:{{{USER}}}:session:s"
    with server.client() as client:
        two = (await all_turns(history))[1].turn_id
        client.hset(key, mapping={"sweep": "2", "last": "1", "c1": "", "turns": "1"})
        client.zrem(f"recollect:{{{USER}}}:path:s", 2)
        client.zrem(f"recollect:{{{USER}}}:window:s", "000000000002")
        client.hset(key, "shown", 1)
        with pytest.raises(TurnNotFound):
            await history.turn(two)
        assert client.hexists(key, "t2") == 0
    await talk(history, "four")
    assert await words_of(history) == ["one", "four"]


def written_before(server: RedisServer, numbers: list[int]) -> None:
    """A session as the version before this one wrote it, with gaps where retries took turns away."""
    prefix, at = f"recollect:{{{USER}}}", now()
    fields: dict[str, Any] = {
        "title": '"old"', "chain": '"chat"', "created": to_micros(at), "updated": to_micros(at),
        "turns": len(numbers), "tokens": len(numbers) * 5, "last": numbers[-1],
    }  # fmt: skip
    with server.client() as client:
        for before, number in enumerate(numbers):
            new = NewTurn(input=[HumanMessage(str(number))], chain="chat", turn_id=f"t-{number}")
            fields[f'i"t-{number}"'] = number
            fields[f"t{number}"] = begun_record(new, at)
            fields[f"e{number}"] = ended_record(REPLY, 5, "-", at)
            client.zadd(f"{prefix}:window:s", {f"{number:012d}": before * 5})
        client.hset(f"{prefix}:session:s", mapping=fields)
        client.zadd(f"{prefix}:sessions", {"s": to_micros(at)})


async def test_a_session_of_the_version_before_is_read_continued_and_changed(
    server: RedisServer, store: RedisStore
) -> None:
    written_before(server, [2, 3, 6, 7])
    history = store.history(USER, "s")
    assert await words_of(history) == ["2", "3", "6", "7"]
    turn = await history.begin(said("8"), window_tokens=1000)
    assert isinstance(turn, OpenTurn)
    assert texts(turn.past)[::2] == ["2", "3", "6", "7"]
    await turn.end(replied())
    version = await history.begin(said("six", version_of="t-6"), window_tokens=1000)
    assert isinstance(version, OpenTurn)
    assert texts(version.past)[::2] == ["2", "3"]
    await version.end(replied())
    assert await words_of(history) == ["2", "3", "six"]
    await history.choose("t-6")
    await history.delete_turn("t-2")
    assert await words_of(history) == ["3", "6", "7", "8"]
    assert (await history.turn("t-6")).versions == ["t-6", version.turn_id]
    await history.rewind("t-3")
    assert await words_of(history) == []


async def test_a_change_waits_for_no_turn_of_a_session_that_was_never_indexed(store: RedisStore) -> None:
    history = store.history(USER, "s")
    await talk(history, "one")
    turn = await history.begin(said("two", turn_id="t"))
    assert isinstance(turn, OpenTurn)
    with pytest.raises(SessionBusy):
        await history.rewind("t", keep=True)
    await turn.end(replied())
    following = await history.begin(said("three"), window_tokens=1000)
    assert isinstance(following, OpenTurn)
    assert texts(following.past) == ["one", "re: one", "two", "a reply"]
    await following.end(replied())


@dataclass(frozen=True)
class Step:
    """Something that is done to a session, the same on every store."""

    kind: str
    turn_id: str
    words: str
    version_of: str | None
    keep: bool
    reply: Reply

    @staticmethod
    def drawn(dice: random.Random, number: int, *, removes: bool) -> Step:
        status = dice.choice([TurnStatus.COMPLETE] * 4 + [TurnStatus.FAILED, TurnStatus.INTERRUPTED])
        return Step(
            kind=dice.choice(["turn"] * 8 + ["rewind", "delete" if removes else "choose"]),
            turn_id=f"t-{dice.randrange(8 if removes else number + 1)}",
            words=str(number),
            version_of=f"t-{dice.randrange(8 if removes else number + 1)}" if dice.random() < 0.4 else None,
            keep=not removes,
            reply=Reply(status=status, output=[AIMessage("a")] if dice.random() < 0.8 else [], tokens=4),
        )

    async def taken(self, history: SessionHistory) -> object:
        """What came of it."""
        try:
            if self.kind == "turn":
                return await self._turn(history)
            if self.kind == "rewind":
                await history.rewind(self.turn_id, keep=self.keep)
            else:
                await (history.delete_turn if self.kind == "delete" else history.choose)(self.turn_id)
        except HistoryError as error:
            return type(error)
        return "done"

    async def _turn(self, history: SessionHistory) -> object:
        turn_id = self.turn_id if not self.keep else f"t-{self.words}"
        new = said(self.words, turn_id=turn_id, version_of=self.version_of, tokens=3)
        turn = await history.begin(new, window_tokens=40)
        if isinstance(turn, Turn):
            return turn.turn_id, turn.output, list(turn.versions)
        await turn.end(self.reply)
        return turn.past


@pytest.mark.parametrize("seed", range(6))
async def test_trees_are_those_of_the_simplest_store(store: RedisStore, seed: int) -> None:
    dice, model = random.Random(seed), MemoryStore()
    both = [each.history(USER, "s") for each in (store, model)]
    for number in range(40):
        step = Step.drawn(dice, number, removes=bool(seed % 2))
        assert await step.taken(both[0]) == await step.taken(both[1]), step
        shown = [[(t.turn_id, t.status, t.tokens, list(t.versions)) for t in await all_turns(h, 3)] for h in both]
        assert shown[0] == shown[1], step

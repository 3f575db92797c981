"""Versions of turns: whatever is done, what is shown is what the simplest store shows."""

from __future__ import annotations

import random

import pytest

from histories.base import HistoryError, SessionHistory, TurnStatus
from histories.memory import MemoryStore
from histories.postgres.store import PostgresStore
from tests.store_holder import USER
from tests.stores import all_turns, begun, replied, said, texts

ENDS = [replied("x", tokens=3), replied("", TurnStatus.FAILED), replied("half", TurnStatus.INTERRUPTED, tokens=2)]
KEEPING = ["turn", "version", "version", "choose", "choose", "keep"]
"""What forgets nothing: the simplest store forgets, with a turn, what followed others when they were last shown."""
FORGETTING = ["turn", "turn", "version", "delete", "rewind"]


@pytest.mark.parametrize(("seed", "acts"), [(seed, acts) for seed in range(3) for acts in (KEEPING, FORGETTING)])
async def test_versions_agree_with_the_simplest_store(store: PostgresStore, seed: int, acts: list[str]) -> None:
    dice, known = random.Random(seed), ["t0"]
    histories = [each.history(USER, "s") for each in (store, MemoryStore())]
    await (await begun(histories[0], said("t0", turn_id="t0"))).end(ENDS[0])
    await (await begun(histories[1], said("t0", turn_id="t0"))).end(ENDS[0])
    for number in range(1, 50):
        act, target, end = dice.choice(acts), dice.choice(known), dice.randrange(3)
        known.append(f"t{number}")
        done = [await outcome(history, act, target, known[-1], end) for history in histories]
        assert done[0] == done[1], (number, act, target)
        assert await line(histories[0]) == await line(histories[1]), (number, act, target)
        assert (await histories[0].info()).turns == (await histories[1].info()).turns


async def line(history: SessionHistory) -> list[object]:
    return [(t.turn_id, t.status, list(t.versions), t.tokens) for t in await all_turns(history)]


async def outcome(history: SessionHistory, act: str, target: str, new: str, end: int) -> object:
    """What came of it: the window of a turn, or the error."""
    try:
        if act in ("turn", "version"):
            place = target if act == "version" else None
            turn = await begun(history, said(new, turn_id=new, version_of=place, tokens=2), window=12)
            await turn.end(ENDS[end])
            return texts(turn.past)
        if act in ("keep", "rewind"):
            await history.rewind(target, keep=act == "keep")
        else:
            await (history.choose if act == "choose" else history.delete_turn)(target)
    except HistoryError as error:
        return type(error).__name__
    return "done"

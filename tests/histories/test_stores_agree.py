"""All stores at once: whatever is done, each of them gives the same answer, and then shows the same."""

from __future__ import annotations

import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from histories.base import Feedback, HistoryError, HistoryStore, SessionHistory, Summary, Turn, TurnStatus, now
from tests.stores import KINDS, all_sessions, all_turns, replied, said, texts

ENDS = [replied("x", tokens=3), replied("", TurnStatus.FAILED), replied("half", TurnStatus.INTERRUPTED, tokens=2)]
KEEPING = ["turn", "version", "version", "choose", "keep", "again", "feedback", "title", "fork", "copy"]
KEEPING += ["turn if last", "choose if last", "keep if last", "moved", "sum up", "summary", "taken", "twice"]
"""What forgets nothing: the simplest store forgets, with a turn, what followed others when they were last shown."""
FORGETTING = ["turn", "turn", "version", "delete turn", "rewind", "again", "moved", "fork", "delete", "copy", "wrong"]
FORGETTING += ["turn if last", "delete if last", "rewind if last", "sum up", "summary", "nowhere", "unchanged", "twice"]
STEPS = 50


@pytest.fixture
async def all_stores(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[dict[str, HistoryStore]]:
    places = {kind: make(request, tmp_path / kind) for kind, make in KINDS.items()}
    yield {kind: await place.open() for kind, place in places.items()}
    for place in places.values():
        await place.close()


@pytest.mark.parametrize(("seed", "acts"), [(0, KEEPING), (1, FORGETTING)], ids=["keeping", "forgetting"])
async def test_all_stores_give_the_same_answers(
    all_stores: dict[str, HistoryStore], seed: int, acts: list[str]
) -> None:
    dice, known = random.Random(seed), ["t0"]
    for number in range(1, STEPS):
        act, target, end = dice.choice(acts), dice.choice(known[-8:]), dice.randrange(3)
        known.append(f"t{number}")
        answers = {
            kind: [await _answer(store, act, target, known[-1], end), await _shown(store), await _tree(store)]
            for kind, store in all_stores.items()
        }
        for kind, answer in answers.items():
            assert answer == answers["memory"], (kind, number, act, target)


def _acts(history: SessionHistory, target: str, new: str, end: int) -> dict[str, Callable[[], Awaitable[object]]]:
    async def turn(if_last: str | None = None, **more: object) -> object:
        wanted = said(new, **{"turn_id": new, "tokens": 2, **more})
        begun_turn = await history.begin(wanted, wait_s=60, window_tokens=12, if_last=if_last)
        if isinstance(begun_turn, Turn):
            return begun_turn.turn_id, texts(begun_turn.output)
        await begun_turn.end(ENDS[end])
        return texts(begun_turn.past)

    async def copy() -> object:
        tree = await history.tree()
        await history.delete()
        await history.restore(tree, title="a copy", created_at=now())
        return (await history.info()).turns

    async def last() -> str:
        return next((turn.turn_id for turn in (await history.turns(limit=1)).items), "")

    async def again_as(turns: Sequence[Turn]) -> None:
        await history.restore(turns, title="another", created_at=now())

    async def sum_up() -> None:
        at = (await history.turn(target, shown=True)).started_at
        await history.set_summary(Summary(f"summary {new}", target, at, at, "user"))

    async def summary() -> object:
        found = await history.summary()
        return None if found is None else (found.text, found.up_to, found.made_by)

    async def unchanged() -> None:
        await history.delete(if_updated_at=(await history.info()).updated_at - timedelta(seconds=end))

    return {
        "turn": turn,
        "version": lambda: turn(version_of=target),
        "again": lambda: turn(turn_id=target),
        "choose": lambda: history.choose(target),
        "keep": lambda: history.rewind(target, keep=True),
        "rewind": lambda: history.rewind(target),
        "delete turn": lambda: history.delete_turn(target),
        "moved": lambda: history.rewind(target, if_last="t0"),
        "turn if last": lambda: _if_last(last, lambda one: turn(if_last=one)),
        "choose if last": lambda: _if_last(last, lambda one: history.choose(target, if_last=one)),
        "keep if last": lambda: _if_last(last, lambda one: history.rewind(target, keep=True, if_last=one)),
        "rewind if last": lambda: _if_last(last, lambda one: history.rewind(target, if_last=one)),
        "delete if last": lambda: _if_last(last, lambda one: history.delete_turn(target, if_last=one)),
        "sum up": sum_up,
        "summary": summary,
        "taken": lambda: again_as([]),
        "twice": lambda: again_as([Turn(turn_id="t", status=TurnStatus.COMPLETE, chain="", started_at=now())] * 2),
        "unchanged": unchanged,
        "feedback": lambda: history.feedback(target, Feedback(score=end - 1, comment=new)),
        "title": lambda: history.rename(f"title {new}"),
        "fork": lambda: history.fork(f"fork of {target}", target),
        "delete": history.delete,
        "copy": copy,
        "wrong": lambda: history.turns(before="nothing of the sort"),
        "nowhere": lambda: history.turn(f"no {target}"),
    }


async def _if_last(last: Callable[[], Awaitable[str]], change: Callable[[str], Awaitable[object]]) -> object:
    """The change, with the last turn of the shown line named as its caller has seen it."""
    return await change(await last())


async def _answer(store: HistoryStore, act: str, target: str, new: str, end: int) -> object:
    """What came of it: a value, or which error, in which words."""
    try:
        return await _acts(store.history("alice", "s"), target, new, end)[act]()
    except HistoryError as error:
        return type(error).__name__, re.sub(r"\d+", "0", str(error))


async def _shown(store: HistoryStore) -> object:
    found = dict[str, object]()
    for session in await all_sessions(store, "alice"):
        turns = await all_turns(store.history("alice", session.session_id), limit=3)
        line = [(t.turn_id, t.status, list(t.versions), t.tokens, t.feedback, texts(t.output)) for t in turns]
        found[session.session_id] = session.title, session.chain, session.turns, line
    return found


async def _tree(store: HistoryStore) -> object:
    try:
        tree = await store.history("alice", "s").tree()
    except HistoryError as error:
        return type(error).__name__
    return [turn.turn_id for turn in tree.turns], list(tree.after), tree.last

"""What is said again and again of a session does not fill the disk: a log is made anew when half of it is of no use."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from histories.base import Feedback, SessionBusy, SessionHistory
from histories.files.rewrite import SPARE
from histories.files.store import FileStore
from tests.files import log_of
from tests.proofs import proves
from tests.stores import begun, replied, said, talk, texts

_LONG = "\N{GRINNING FACE}" * 2000
"""The longest comment, which takes 24 kB of a log."""


def _opinion(comment: str) -> Feedback:
    return Feedback(score=1, comment=comment)


async def _versions(history: SessionHistory) -> list[list[str]]:
    tree = await history.tree()
    return [texts(turn.input) + texts(turn.output) for turn in tree.turns]


@proves("G13", "G14")
async def test_a_log_stays_small_however_often_a_reply_is_rated_and_a_session_named(tmp_path: Path) -> None:
    store, most = FileStore(tmp_path, fsync=False), 0
    history = store.history("alice", "s1")
    (first,) = await talk(history, "first words")
    turn = await begun(history, said("other words", version_of=first))
    await turn.end(replied())
    before = await _versions(history)
    for number in range(100):
        await history.feedback(turn.turn_id, _opinion(f"{number} {_LONG[:-10]}"))
        await history.rename(f"title {number}")
        most = max(most, log_of(tmp_path).stat().st_size)
    assert most < 1.3 * SPARE
    assert (await history.info()).title == "title 99"
    assert (await history.turn(turn.turn_id)).feedback == _opinion(f"99 {_LONG[:-10]}")
    assert await _versions(history) == before
    await history.choose(first)
    await talk(history, "and on")
    assert [texts(turn.input) for turn in (await history.turns()).items] == [["first words"], ["and on"]]


async def test_a_log_stays_small_however_often_another_version_is_chosen(tmp_path: Path) -> None:
    store, most = FileStore(tmp_path, fsync=False), 0
    history = store.history("alice", "s1")
    (first,) = await talk(history, "first words")
    turn = await begun(history, said("other words", version_of=first))
    await turn.end(replied())
    await history.rename("\N{GRINNING FACE}" * 200)  # each record of a choice has it
    for _ in range(100):
        await history.choose(first)
        await history.choose(turn.turn_id)
        most = max(most, log_of(tmp_path).stat().st_size)
    assert most < 1.1 * SPARE
    assert [one.turn_id for one in (await history.turns()).items] == [turn.turn_id]


async def test_many_who_rate_at_once_are_all_heard(tmp_path: Path) -> None:
    store = FileStore(tmp_path, fsync=False)
    await store.open()
    history = store.history("alice", "s1")
    ids = await talk(history, *(f"q{number}" for number in range(40)))
    for _ in range(3):
        await asyncio.gather(*(history.feedback(turn, _opinion(turn + _LONG[40:])) for turn in ids))
    turns = (await history.turns()).items
    assert [turn.feedback for turn in turns] == [_opinion(turn + _LONG[40:]) for turn in ids]
    assert log_of(tmp_path).stat().st_size < 2 * 40 * 26_000 + SPARE
    await store.close()


async def test_what_is_said_beside_a_turn_that_never_ends_is_bounded_too(tmp_path: Path) -> None:
    store = FileStore(tmp_path, fsync=False)
    history = store.history("alice", "s1")
    (first,) = await talk(history, "first words")
    running = await begun(history, "and on")
    while log_of(tmp_path).stat().st_size < 8 * SPARE:
        await history.feedback(first, _opinion(_LONG))
    with pytest.raises(SessionBusy):
        await _rate_again_and_again(history, first)
    assert log_of(tmp_path).stat().st_size < 10 * SPARE
    await running.end(replied("the end"))
    await history.feedback(first, _opinion("at last"))
    assert log_of(tmp_path).stat().st_size < SPARE
    assert texts((await history.turns()).items[-1].output) == ["the end"]


async def _rate_again_and_again(history: SessionHistory, turn_id: str) -> None:
    for _ in range(100):
        await history.feedback(turn_id, _opinion(_LONG))

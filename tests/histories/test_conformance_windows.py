"""What every store does about windows: which turns a model is shown."""

from __future__ import annotations

from histories.base import (
    SessionHistory,
)
from histories.base import TurnStatus as Is
from tests.proofs import proves
from tests.stores import all_turns, begun, fill, replied, said, shown_past, talk, texts


async def test_no_window_shows_no_past(history: SessionHistory) -> None:
    await talk(history, "hello")
    assert await shown_past(history, 0) == []


@proves("G11")
async def test_a_window_shows_whole_turns_within_its_tokens_and_moves_in_steps(history: SessionHistory) -> None:
    firsts = []
    for number in range(40):
        past = await shown_past(history, 100, tokens=10)
        shown = len(past) // 2
        assert past == [text for n in range(number - shown, number) for text in (f"q{n}", f"a{n}")]
        assert shown * 10 + 10 <= 100
        assert shown == number or shown * 10 + 10 >= 50
        firsts.append(number - shown)
        turn = await begun(history, said(f"q{number}", tokens=5))
        await turn.end(replied(f"a{number}", tokens=5))
    assert firsts == sorted(firsts)
    assert len(set(firsts)) <= 9


async def test_a_turn_that_is_larger_than_the_window_is_not_shown(history: SessionHistory) -> None:
    await fill(history, 2, tokens=1000)
    assert await shown_past(history, 100) == []


@proves("G5")
async def test_a_model_is_shown_what_was_interrupted_but_not_what_failed(history: SessionHistory) -> None:
    for words, reply in {
        "complete": replied("whole"),
        "failed": replied("never shown", Is.FAILED),
        "interrupted": replied("half", Is.INTERRUPTED),
        "stopped at once": replied("", Is.INTERRUPTED),
        "silent": replied(""),
    }.items():
        await talk(history, words, reply=reply)
    shown = ["complete", "whole", "interrupted", "half", "silent"]
    assert await shown_past(history, 1000) == shown
    assert texts(await history.aget_messages()) == shown
    assert len(await all_turns(history)) == 6


async def test_what_is_not_shown_takes_no_room_in_the_window(history: SessionHistory) -> None:
    await fill(history, 2, tokens=10)
    for _ in range(50):
        turn = await begun(history, said("fails", tokens=10))
        await turn.end(replied("", Is.FAILED, tokens=10))
    assert await shown_past(history, 60, tokens=10) == ["q0", "a0", "q1", "a1"]

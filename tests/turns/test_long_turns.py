"""Turns that hold much: how much of it there may be at once, and that nobody else waits for it to be looked at."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from datetime import UTC, datetime
from time import perf_counter

import pytest
from langchain_core.messages import AIMessage, HumanMessage

from histories.base import Recalled, Turn, TurnStatus
from tests.live_server import ROOT
from tests.proofs import proves
from tests.quick import tries
from turns.recall import chosen_aside
from turns.shares import LineFull, ShareRules, Shares
from turns.sizes import size_of


def test_the_texts_of_a_value_are_its_size() -> None:
    text = "x" * 1000
    parts = [{"type": "text", "text": text}, text]
    assert 1000 <= size_of(text) < 1100
    assert 2000 <= size_of(parts) < 2200
    assert 2000 <= size_of({"input": [HumanMessage(parts)], "n": 7}) < 2200  # type: ignore[arg-type]
    again: list[object] = [text]
    again.append(again)
    assert 1000 <= size_of(again) < 1100


@proves("G13")
def test_what_a_users_turns_hold_is_bounded_and_small_ones_are_refused_to_nobody() -> None:
    shares = Shares(ShareRules(line_bytes=1_000_000, line_bytes_of_all=1_500_000))
    leave = shares.admit("a", 900_000)
    with pytest.raises(LineFull, match="You have too many"):
        shares.admit("a", 200_000)
    shares.admit("a", 50_000)
    shares.admit("b", 500_000)
    with pytest.raises(LineFull, match="Too many"):
        shares.admit("c", 200_000)
    leave()
    shares.admit("a", 900_000)


def test_a_turn_that_is_alone_may_hold_more() -> None:
    shares = Shares(ShareRules(line_bytes=1_000_000))
    leave = shares.admit("a", 5_000_000)
    leave()
    shares.admit("a", 5_000_000)


@proves("G13")
async def test_the_event_loop_goes_on_while_long_exchanges_are_looked_at_for_what_bears_on_a_question() -> None:
    at = datetime(2026, 3, 1, tzinfo=UTC)
    half = " ".join(f"word{number} of many" for number in range(30_000))
    said = f"{half} The password is swordfish. {half}"
    turn = Turn(
        turn_id="t", status=TurnStatus.COMPLETE, chain="chat", started_at=at, ended_at=at,
        input=[HumanMessage(said)], output=[AIMessage(said)],
    )  # fmt: skip
    found = [Recalled(session_id="s", turn=turn, score=1.0)]
    for one in tries(1 / 2):  # of the whole time, the longest wait
        begun = last = perf_counter()
        longest = 0.0
        looking = asyncio.create_task(chosen_aside(found, "What is the password?", 10_000))
        while not looking.done():
            await asyncio.sleep(0.001)
            longest, last = max(longest, perf_counter() - last), perf_counter()
        ((_, text),) = await looking
        assert "swordfish" in text
        one.took = longest / (perf_counter() - begun)


@pytest.mark.skipif(sys.platform != "linux", reason="it is the GNU C library that keeps memory")
def test_large_pieces_of_memory_go_back_to_the_system() -> None:
    program = """
import psutil, serving
serving.give_memory_back()
before = psutil.Process().memory_info().rss
kept = []
for _ in range(40):
    large = [bytes(bytearray(b"x") * (4 << 20)) for _ in range(2)]
    kept.append(bytes(bytearray(b"y") * (1 << 16)))
    del large
print((psutil.Process().memory_info().rss - before) >> 20)
"""
    grown = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(grown.stdout) < 8

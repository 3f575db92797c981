"""The watchdog of the event loop."""

from __future__ import annotations

import asyncio
import threading

import pytest

from api import loop_watch
from api.loop_watch import LoopWatch, stack_of


def hold_the_loop(looked: threading.Event) -> None:
    assert looked.wait(60)


async def test_what_holds_the_event_loop_is_logged_and_counted(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = threading.Event()

    def look(thread: int) -> str:
        stack = stack_of(thread)
        looked.set()
        return stack

    monkeypatch.setattr(loop_watch, "stack_of", look)
    watch = LoopWatch()
    watch.start()
    await asyncio.sleep(0)
    hold_the_loop(looked)
    for _ in range(500):
        await asyncio.sleep(0.01)
        if watch.held_count:
            break
    watch.stop()
    assert "hold_the_loop" in caplog.text
    assert watch.held_count == 1
    assert watch.held_s > 0.25
    assert watch.longest_s > 0.25

"""The watchdog of the event loop."""

from __future__ import annotations

import asyncio
import time

import pytest

from api.loop_watch import LoopWatch


def hold_the_loop() -> None:
    time.sleep(0.5)


async def test_what_holds_the_event_loop_is_logged_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    watch = LoopWatch()
    watch.start()
    await asyncio.sleep(0)
    hold_the_loop()
    for _ in range(500):
        await asyncio.sleep(0.01)
        if watch.held_count:
            break
    watch.stop()
    assert "hold_the_loop" in caplog.text
    assert watch.held_count == 1
    assert watch.held_s > 0.25
    assert watch.longest_s > 0.25

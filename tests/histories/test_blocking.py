"""Work that is seen through to its end, whoever is cancelled meanwhile."""

from __future__ import annotations

import asyncio

from histories.blocking import Firm, undisturbed


async def test_who_is_cancelled_hears_of_it_when_the_work_is_done() -> None:
    work: Firm[str] = Firm()
    told = list[tuple[str, bool]]()

    async def wait() -> None:
        told.append(await undisturbed(work))

    waiting = asyncio.create_task(wait())
    for _ in range(3):
        await asyncio.sleep(0)
        waiting.cancel()
    await asyncio.wait([waiting], timeout=0.05)
    assert not waiting.done()
    assert not work.done()
    work.set_result("written")
    await waiting
    assert told == [("written", True)]


async def test_what_comes_of_work_is_heard_in_the_next_round_of_the_event_loop() -> None:
    work: Firm[str] = Firm()
    waiting = asyncio.create_task(undisturbed(work))
    await asyncio.sleep(0)
    work.set_result("written")
    await asyncio.sleep(0)
    assert waiting.done()
    assert waiting.result() == ("written", False)


async def test_what_the_work_raises_is_raised_to_who_is_cancelled_too() -> None:
    work: Firm[str] = Firm()
    waiting = asyncio.create_task(undisturbed(work))
    await asyncio.sleep(0)
    waiting.cancel()
    work.set_exception(OSError(5, "broken"))
    await asyncio.wait([waiting])
    assert isinstance(waiting.exception(), OSError)

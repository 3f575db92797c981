"""The threads that do what may block: one that keeps up, more that help it out, none that is lost or left."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from histories.files.threads import Threads
from tests.stores import until


@pytest.fixture
def threads() -> Iterator[Threads]:
    threads = Threads(4, "few")
    yield threads
    threads.end()
    assert not running()


def running() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("few")]


def failing() -> None:
    raise OSError(5, "broken")


async def test_what_comes_of_work_is_told(threads: Threads) -> None:
    told = await asyncio.gather(threads.start(lambda: 7), threads.start(failing))
    assert told[0] == (7, None)
    assert isinstance(told[1][1], OSError)


async def test_quick_work_is_done_by_one_thread_in_its_order(threads: Threads) -> None:
    done: list[int] = []

    def work(number: int) -> Callable[[], None]:
        return lambda: done.append(number)

    await asyncio.gather(*(threads.start(work(number)) for number in range(500)))
    assert done == list(range(500))
    assert len(running()) == 1


async def test_others_help_out_when_one_is_stuck_and_no_more_than_may_be(threads: Threads) -> None:
    going, stuck = threading.Event(), list[str]()

    def wait() -> None:
        stuck.append(threading.current_thread().name)
        assert going.wait(10)

    waiting = [threads.start(wait) for _ in range(10)]
    await until(lambda: len(stuck) == 4)
    late = threads.start(lambda: "late")
    await asyncio.sleep(0.1)
    assert len(stuck) == len(running()) == 4
    assert not late.done()
    going.set()
    assert await late == ("late", None)
    await asyncio.gather(*waiting)


async def test_slow_work_goes_side_by_side(threads: Threads) -> None:
    began = time.monotonic()
    for _ in range(3):
        await asyncio.gather(*(threads.start(lambda: time.sleep(0.05)) for _ in range(8)))
    assert time.monotonic() - began < 3 * 8 * 0.05 * 0.7


async def test_the_end_waits_for_all_that_was_started() -> None:
    threads, done = Threads(2, "few"), list[int]()

    def work() -> None:
        time.sleep(0.01)
        done.append(1)

    for _ in range(10):
        threads.start_unheard(work)
    waiting = threads.start(work)
    await asyncio.to_thread(threads.end)
    assert len(done) == 11
    assert await waiting == (None, None)
    assert not running()


async def test_threads_that_have_ended_are_watched_no_more() -> None:
    threads = Threads(1, "few")
    await threads.start(lambda: 1)
    await asyncio.to_thread(threads.end)
    await asyncio.sleep(0.1)  # it looks each 0.02 s
    last = threads._watch_at
    await asyncio.sleep(0.1)
    assert threads._watch_at == last


async def test_others_that_helped_out_sleep_again_when_one_keeps_up(threads: Threads) -> None:
    await asyncio.gather(*(threads.start(lambda: time.sleep(0.05)) for _ in range(8)))
    assert len(running()) > 1
    await asyncio.sleep(1.1)  # so long they go on
    done = list[tuple[str, int]]()

    def work(number: int) -> None:
        time.sleep(0.0003)
        done.append((threading.current_thread().name, number))

    async def one_does_it_all() -> bool:
        done.clear()
        await asyncio.gather(*(threads.start(partial(work, number)) for number in range(100)))
        assert sorted(number for _, number in done) == list(range(100))
        return len({name for name, _ in done}) == 1

    for _ in range(8):  # what is started first has it seen that the time is over; a machine may be slow for a moment
        if await one_does_it_all():
            return
        await asyncio.sleep(1.1)
    pytest.fail("they go on for ever")


async def test_what_came_of_quick_work_is_told_while_slow_work_goes_on() -> None:
    threads, begun, going = Threads(1, "few"), threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        assert going.wait(10)

    quick, waiting = threads.start(lambda: "quick"), threads.start(slow)
    try:
        await until(begun.is_set)
        async with asyncio.timeout(5):
            assert await quick == ("quick", None)
    finally:
        going.set()
    await waiting
    await asyncio.to_thread(threads.end)


async def test_who_does_not_wait_any_more_is_not_told(threads: Threads) -> None:
    going = threading.Event()
    waiting, other = threads.start(lambda: going.wait(10)), threads.start(lambda: 1)
    waiting.cancel()
    going.set()
    assert await other == (1, None)


def test_an_event_loop_that_is_gone_disturbs_nobody(threads: Threads) -> None:
    going = threading.Event()

    async def leave() -> None:
        threads.start(lambda: going.wait(10))

    async def stay() -> None:
        waiting = threads.start(lambda: "done")
        await asyncio.sleep(0.05)
        going.set()
        assert await waiting == ("done", None)

    asyncio.run(leave())
    asyncio.run(stay())


def test_the_end_may_come_at_once_or_before_any_work() -> None:
    Threads(1, "few").end()
    for _ in range(50):
        threads = Threads(1, "few")
        for _ in range(5):
            threads.start_unheard(int)
        threads.end()

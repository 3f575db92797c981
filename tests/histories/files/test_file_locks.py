"""How turns wait for each other, in a process and across processes: in order, at no cost for each waiter."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import os
import threading
import time
import tracemalloc
from pathlib import Path

import pytest

from histories.base import OpenTurn
from histories.files.disk import Disk
from histories.files.locks import FileLock, Line, is_held
from histories.files.store import FileStore
from histories.waiting import WaitQueue
from tests.stores import all_turns, begun, replied, said, talk, texts, until


@pytest.fixture
def folder(tmp_path: Path) -> int:
    return os.open(tmp_path, os.O_RDONLY)


# Within a process.


async def test_a_turnstile_keeps_nothing_for_a_key_that_nobody_holds() -> None:
    wait_queue = WaitQueue()
    for key in map(str, range(1000)):
        await wait_queue.enter(key, 0)
        assert key in wait_queue
        wait_queue.leave(key)
    assert len(wait_queue) == 0


async def test_a_turnstile_passes_on_to_who_is_on_another_thread() -> None:
    wait_queue = WaitQueue()
    await wait_queue.enter("key", 0)
    order: list[str] = []

    async def wait(name: str) -> None:
        await wait_queue.enter("key", 10)
        order.append(name)
        wait_queue.leave("key")

    there = asyncio.create_task(asyncio.to_thread(lambda: asyncio.run(wait("there"))))
    await until(lambda: len(wait_queue._waiting["key"]) == 1)
    here = asyncio.create_task(wait("here"))
    await until(lambda: len(wait_queue._waiting["key"]) == 2)
    wait_queue.leave("key")
    await asyncio.gather(here, there)
    assert order == ["there", "here"]
    assert len(wait_queue) == 0


async def test_who_waits_on_an_event_loop_that_is_gone_is_passed_by_for_good() -> None:
    wait_queue = WaitQueue()
    await wait_queue.enter("key", 0)

    def abandon() -> asyncio.Task[None]:
        loop = asyncio.new_event_loop()
        task = loop.create_task(wait_queue.enter("key", 60))
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # it is meant
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        return task

    abandoned = await asyncio.to_thread(abandon)
    waiting = asyncio.create_task(wait_queue.enter("key", 10))
    await asyncio.sleep(0)
    wait_queue.leave("key")
    await waiting
    del abandoned
    gc.collect()  # what is left of it must not give away what is not its own
    with pytest.raises(TimeoutError):
        await wait_queue.enter("key", 0)
    wait_queue.leave("key")
    assert len(wait_queue) == 0


async def test_who_is_called_while_it_gives_up_passes_the_key_on() -> None:
    wait_queue = WaitQueue()
    await wait_queue.enter("key", 0)
    first, second = (asyncio.create_task(wait_queue.enter("key", 10)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    wait_queue.leave("key")
    await second
    assert first.cancelled()
    wait_queue.leave("key")
    assert len(wait_queue) == 0


async def test_a_thousand_waiters_take_no_thread_no_descriptor_and_little_memory(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    history = store.history("alice", "s1")
    held = await begun(history, "held")
    descriptors, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    gc.collect()
    tracemalloc.start()
    tasks = [asyncio.create_task(history.begin(said(str(n)), wait_s=60)) for n in range(1000)]
    await asyncio.sleep(0)
    memory, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert memory / 1000 < 20_000
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert threading.active_count() == threads
    assert len(store.gate.queue) == 1
    for task in tasks[:990]:
        task.cancel()
    await asyncio.gather(*tasks[:990], return_exceptions=True)
    await held.end(replied())
    for task in tasks[990:]:
        turn = await task
        assert isinstance(turn, OpenTurn)
        await turn.end(replied())
    assert [texts(t.input) for t in await all_turns(history)] == [["held"], *([str(n)] for n in range(990, 1000))]
    assert len(store.gate.queue) == 0
    await store.close()


async def test_idle_sessions_leave_nothing_behind_in_the_process(tmp_path: Path) -> None:
    store = FileStore(tmp_path, fsync=False)
    await talk(store.history("alice", "first"), "hello")
    descriptors = len(os.listdir("/proc/self/fd"))
    idle = [store.history("alice", str(n)) for n in range(10_000)]
    for history in idle[:200]:
        await talk(history, "hello")
    assert len(store.gate.queue) == 0
    assert store.gate.running == {}
    assert len(os.listdir("/proc/self/fd")) <= descriptors + 16  # the folder of each thread at work
    assert {p.suffix for p in tmp_path.rglob("*.*")} == {".jsonl"}
    await store.close()


# Between processes.


def test_a_lock_is_one_holders_until_it_is_freed(tmp_path: Path, folder: int) -> None:
    one, two = FileLock(Disk(), "x.turn"), FileLock(Disk(), "x.turn")
    assert not is_held(Disk(), folder, "x.turn")
    assert one.try_acquire(folder)
    assert one.held
    assert is_held(Disk(), folder, "x.turn")
    assert not two.try_acquire(folder)
    one.release(folder)
    one.release(folder)
    assert not list(tmp_path.iterdir())
    assert two.try_acquire(folder)
    two.release(None)  # without the folder, the file stays, and is free
    assert list(tmp_path.iterdir())
    assert not is_held(Disk(), folder, "x.turn")
    assert one.try_acquire(folder)
    one.release(folder)
    os.close(folder)


def test_who_gets_hold_of_a_removed_lock_tries_anew(tmp_path: Path, folder: int) -> None:
    class Slow(Disk):
        def open(self, folder: int, name: str, flags: int) -> int:
            descriptor = super().open(folder, name, flags)
            if (tmp_path / name).exists() and not tries:
                tries.append(name)
                os.unlink(tmp_path / name)
            return descriptor

    tries: list[str] = []
    lock = FileLock(Slow(), "x.turn")
    assert lock.try_acquire(folder)
    assert tries
    assert is_held(Disk(), folder, "x.turn")
    lock.release(folder)
    os.close(folder)


def test_a_lock_that_is_not_its_own_any_more_is_not_removed(tmp_path: Path, folder: int) -> None:
    one, two = FileLock(Disk(), "x.turn"), FileLock(Disk(), "x.turn")
    assert one.try_acquire(folder)
    (tmp_path / "x.turn").unlink()
    assert two.try_acquire(folder)
    one.release(folder)
    assert is_held(Disk(), folder, "x.turn")
    two.release(folder)
    os.close(folder)


def test_a_look_does_not_pass_for_a_holder(tmp_path: Path, folder: int) -> None:
    looks: list[int] = []

    class Watched(Disk):
        def open(self, folder: int, name: str, flags: int) -> int:
            if looks:  # the look is over when this is tried again
                os.close(looks.pop())
            else:
                looks.append(os.open(tmp_path / name, os.O_RDWR | os.O_CREAT))
                fcntl.flock(looks[0], fcntl.LOCK_SH)
            return super().open(folder, name, flags)

    lock = FileLock(Watched(), "x.turn")
    assert lock.try_acquire(folder)
    assert not looks
    lock.release(folder)
    os.close(folder)


def test_a_line_lets_who_came_first_go_first(tmp_path: Path, folder: int) -> None:
    one, two, new = (Line(Disk(), "x.next") for _ in range(3))
    assert not new.is_behind(folder)
    one.join(folder)
    one.join(folder)
    two.join(folder)
    assert (one.is_behind(folder), two.is_behind(folder), new.is_behind(folder)) == (False, True, True)
    one.leave(folder)
    one.leave(folder)
    assert (two.is_behind(folder), new.is_behind(folder)) == (False, True)
    (tmp_path / "x.next" / "0-of-a-dead-process").touch()
    assert not two.is_behind(folder)
    two.leave(folder)
    assert not list(tmp_path.iterdir())
    two.join(folder)
    two.leave(None)
    assert not new.is_behind(folder)
    os.close(folder)


def test_a_line_that_was_removed_in_this_instant_can_be_joined_next_time(tmp_path: Path, folder: int) -> None:
    class Gone(Disk):
        def subfolder(self, parent: int, name: str, *, create: bool, durable: bool = True) -> int:
            line = super().subfolder(parent, name, create=create, durable=durable)
            if not tries:
                tries.append(name)
                os.rmdir(tmp_path / name)
            return line

    tries: list[str] = []
    line = Line(Gone(), "x.next")
    joined = []
    for _ in range(2):
        line.join(folder)
        joined.append(line.joined)
    assert joined == [False, True]
    line.leave(folder)
    os.close(folder)


async def test_who_came_first_goes_first_also_after_the_clock_was_set_back(
    tmp_path: Path, folder: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = (Line(Disk(), "x.next") for _ in range(2))
    one.join(folder)
    an_hour_ago = time.time_ns() - 3600 * 10**9
    monkeypatch.setattr(time, "time_ns", lambda: an_hour_ago)
    two.join(folder)
    assert (one.is_behind(folder), two.is_behind(folder)) == (False, True)
    one.leave(folder)
    two.leave(folder)
    os.close(folder)


async def test_a_waiter_that_was_stopped_is_passed_by_until_it_goes_on(tmp_path: Path, folder: int) -> None:
    stopped, two = (Line(Disk(), "x.next") for _ in range(2))
    stopped.join(folder)
    two.join(folder)
    assert two.is_behind(folder)
    (place, _) = sorted((tmp_path / "x.next").iterdir())
    os.utime(place, (time.time() - 60, time.time() - 60))
    assert not two.is_behind(folder)
    stopped.join(folder)  # as it does each time it looks
    assert two.is_behind(folder)
    stopped.leave(folder)
    two.leave(folder)
    os.close(folder)

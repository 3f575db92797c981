"""The file store's threads: whoever is cancelled, closed or asked to stop, and when."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from shutil import rmtree

import pytest

from histories.base import (
    SessionHistory,
    StoreUnavailable,
    TurnLost,
)
from histories.base import TurnStatus as Is
from histories.files.disk import Disk
from histories.files.names import file_name
from histories.files.store import FileStore
from tests.files import folder_of
from tests.stores import all_turns, begun, replied, said, talk, texts, until

pytestmark = pytest.mark.usefixtures("closes_what_it_opens")


async def test_a_closed_store_can_be_used_again(store: FileStore, history: SessionHistory) -> None:
    others = set(threading.enumerate())  # those of stores that other tests left to be collected may still be ending
    await store.open()
    turn = await begun(history, "hello")
    await store.close()
    await store.close()
    await turn.end(replied("kept"))
    assert [texts(t.output) for t in await all_turns(history)] == [["kept"]]
    await store.open()
    await talk(history, "more")
    await store.close()
    assert not [t for t in set(threading.enumerate()) - others if t.name.startswith("histories")]


def test_a_store_may_be_opened_and_closed_by_two_event_loops(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    asyncio.run(store.open())
    asyncio.run(store.close())


async def test_a_failure_does_not_hide_a_cancellation(store: FileStore) -> None:
    started, going = threading.Event(), threading.Event()

    def fail() -> None:
        started.set()
        assert going.wait(60)
        raise OSError(5, "broken")

    task = asyncio.create_task(store.call(fail))
    await until(started.is_set)
    task.cancel()
    await asyncio.sleep(0)
    going.set()
    with pytest.raises(asyncio.CancelledError) as cancelled:
        await task
    assert isinstance(cancelled.value.__cause__, StoreUnavailable)
    await store.close()


async def test_who_is_cancelled_while_it_leaves_the_line_is_cancelled(tmp_path: Path) -> None:
    leaving, going = threading.Event(), threading.Event()

    class Slow(Disk):
        def rmdir(self, folder: int, name: str) -> None:
            leaving.set()
            assert going.wait(60)
            super().rmdir(folder, name)

    holder, store = FileStore(tmp_path), FileStore(tmp_path, disk=Slow())
    held = await begun(holder.history("alice", "s1"), "held")
    task = asyncio.create_task(store.history("alice", "s1").begin(said("me too"), wait_s=0.05))
    await until(leaving.is_set)
    task.cancel()
    await asyncio.sleep(0)
    going.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    await held.end(replied())
    await talk(store.history("alice", "s1"), "next")
    for each in (holder, store):
        await each.close()


async def test_who_is_cancelled_while_it_looks_is_cancelled(tmp_path: Path) -> None:
    looking, going = threading.Event(), threading.Event()

    class Slow(Disk):
        def open(self, folder: int, name: str, flags: int) -> int:
            if name.endswith(".turn"):
                looking.set()
                assert going.wait(60)
            return super().open(folder, name, flags)

    holder, store = FileStore(tmp_path), FileStore(tmp_path, disk=Slow())
    held = await begun(holder.history("alice", "s1"), "held")
    task = asyncio.create_task(store.history("alice", "s1").begin(said("me too"), wait_s=60))
    await until(looking.is_set)
    task.cancel()
    await asyncio.sleep(0)
    going.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    await held.end(replied())
    assert {p.suffix for p in tmp_path.rglob("*.*")} == {".jsonl"}
    for each in (holder, store):
        await each.close()


async def test_who_waits_for_a_session_whose_folder_is_removed_by_hand_can_give_up(tmp_path: Path) -> None:
    holder, store = FileStore(tmp_path), FileStore(tmp_path)
    held = await begun(holder.history("alice", "s1"), "held")
    task = asyncio.create_task(store.history("alice", "s1").begin(said("me too"), wait_s=60))
    await until(lambda: bool(list(tmp_path.rglob("*.next/*"))))
    rmtree(folder_of(holder))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(TurnLost):
        await held.end(replied())
    await talk(store.history("alice", "s1"), "afresh")
    for each in (holder, store):
        await each.close()


async def test_who_is_cancelled_as_its_turn_begins_on_a_failing_disk_is_cancelled(tmp_path: Path) -> None:
    writing, going = threading.Event(), threading.Event()

    class Slow(Disk):
        writes = 0

        def write(self, descriptor: int, data: bytes) -> None:
            self.writes += 1
            if self.writes == 2:
                raise OSError(5, "broken")
            writing.set()
            assert going.wait(60)
            super().write(descriptor, data)

    store = FileStore(tmp_path, disk=Slow())
    history = store.history("alice", "s1")
    task = asyncio.create_task(history.begin(said("hello")))
    await until(writing.is_set)
    task.cancel()
    await asyncio.sleep(0)
    going.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [t.status for t in await all_turns(history)] == [Is.INTERRUPTED]
    await talk(history, "next")
    await store.close()


async def test_word_to_stop_that_nobody_heeded_expires(tmp_path: Path) -> None:
    asker, store = FileStore(tmp_path), FileStore(tmp_path)
    stopped: list[str] = []

    def stop() -> None:
        stopped.append("mine")
        raise RuntimeError("the event loop is gone")

    history = store.history("alice", "s1")
    turn = await history.begin(said("hello"), on_stop=stop)
    assert not hasattr(turn, "status")
    asker.ask_stop("nobody/nothing", "t")
    asker.ask_stop(f"{file_name('alice')}/{file_name('s1')}", "an earlier turn")
    for old in (tmp_path / ".stops").iterdir():
        os.utime(old, (1, 1))
    asker.ask_stop("nobody/recent", "t")
    await store.open()
    assert await asker.history("alice", "s1").stop()
    await until(lambda: len(list((tmp_path / ".stops").iterdir())) == 1)
    assert stopped == ["mine"]
    (left,) = (tmp_path / ".stops").iterdir()
    assert "recent" in left.name
    for each in (asker, store):
        await each.close()


async def test_word_to_stop_a_turn_that_can_not_be_stopped_is_cleared_away(tmp_path: Path) -> None:
    asker, store = FileStore(tmp_path), FileStore(tmp_path)
    await store.open()
    turn = await begun(store.history("alice", "s1"), "hello")
    assert await asker.history("alice", "s1").stop()
    await until(lambda: not list((tmp_path / ".stops").iterdir()))
    await turn.end(replied())
    for each in (asker, store):
        await each.close()


async def test_stops_are_watched_for_on_a_failing_disk_too(tmp_path: Path) -> None:
    class Failing(Disk):
        failures = 0

        def folder_in(self, path: str, name: str) -> int:
            if name == ".stops" and self.failures < 2:
                self.failures += 1
                raise OSError(5, "broken")
            return super().folder_in(path, name)

    disk, stopped = Failing(), list[int]()
    store = FileStore(tmp_path, disk=disk)
    await store.open()
    await store.history("alice", "s1").begin(said("hello"), on_stop=lambda: stopped.append(1))
    await until(lambda: disk.failures == 2)
    other = FileStore(tmp_path)
    assert await other.history("alice", "s1").stop()
    await until(lambda: bool(stopped))
    for each in (other, store):
        await each.close()

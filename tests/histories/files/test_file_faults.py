"""Disks that fill up, break or refuse: no earlier turn is lost, and the next one works once the disk does."""

from __future__ import annotations

import errno
import os
import subprocess
import traceback
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import CodeType

import pytest
from typing_extensions import override

from histories.base import (
    OpenTurn,
    SessionExists,
    SessionHistory,
    SessionNotFound,
    StoreFull,
    StoreUnavailable,
    Turn,
    now,
)
from histories.base import TurnStatus as Is
from histories.files import store as filesystem
from histories.files.disk import Disk
from histories.files.indices import Indices
from histories.files.store import FileStore
from tests.failing_disk import FailingDisk, SmallDisk, Unsynced
from tests.proofs import proves
from tests.stores import all_sessions, all_turns, begun, replied, said, talk, texts

_Record = list[tuple[str, str, str]]

_EVERY_CALL = os.environ.get("EVERY_FAULT") == "1"


class _Run:
    """One use of everything, on a disk that may fail at any call; each step is held against what it promised.

    Until `checks` is set a step is only done: what it promises where nothing fails, one run has shown for all.
    """

    def __init__(self, folder: Path, disk: FailingDisk) -> None:
        self.failing_disk, self.failing = disk, FileStore(folder, disk=disk)
        self.sound = FileStore(folder, disk=Unsynced())
        for store in (self.failing, self.sound):
            store.indices = Indices(store.path, durable=False)
        self.history = self.failing.history("alice", "s1")
        self.checks = True
        self.steps: list[Callable[[], Awaitable[None]]] = [
            lambda: self.turn("one", 1),
            lambda: self.turn("two", 2),
            self.title,
            lambda: self.turn("two", 2),
            lambda: self.turn("three", 3),
            self.rewind,
            self.copies,
            self.looks,
            self.delete,
        ]

    async def refused(self, step: Awaitable[object]) -> bool:
        """Whether the step failed, in one of the ways in which it may."""
        try:
            await step
        except StoreUnavailable:
            return True
        return False

    async def read(self) -> _Record:
        """What is on the record; nothing while nothing is held against it."""
        if not self.checks:
            return []
        turns = await all_turns(self.sound.history("alice", "s1"))
        return [(t.status.value, " ".join(texts(t.input)), " ".join(texts(t.output))) for t in turns]

    async def shows(self, *records: _Record) -> None:
        assert not self.checks or await self.read() in records

    async def turn(self, words: str, number: int) -> None:
        before = await self.read()
        turn: list[OpenTurn | Turn] = []

        async def begin() -> None:
            turn.append(await self.history.begin(said(words, turn_id=f"{words}-{number}"), window_tokens=100))

        if await self.refused(begin()):
            await self.shows(before, [*before, ("interrupted", words, "")])
            return
        if isinstance(turn[0], Turn):  # it was answered from the record
            await self.shows(before)
            return
        before = [one for one in before if one[:2] != ("interrupted", words)]
        await self.shows([*before, ("running", words, "")])
        done = ("complete", words, f"re: {words}")
        refused = await self.refused(turn[0].end(replied(f"re: {words}")))
        await self.shows(*[[*before, ("interrupted", words, "")]] * refused, [*before, done])

    async def title(self) -> None:
        before = await self.read()
        with suppress(SessionNotFound):
            if not await self.refused(self.history.rename("a title")) and self.checks:
                assert (await self.sound.history("alice", "s1").info()).title == "a title"
        await self.shows(before)

    async def rewind(self) -> None:
        turns, before = await all_turns(self.sound.history("alice", "s1")), await self.read()
        if turns:
            refused = await self.refused(self.history.rewind(turns[-1].turn_id))
            await self.shows(*[before] * refused, before[:-1])

    async def copies(self) -> None:
        before, turns = await self.read(), await all_turns(self.sound.history("alice", "s1"))
        if not turns:
            return
        copy_of = self.failing.history("alice", "copy")
        steps: dict[str, Callable[[], Awaitable[None]]] = {
            "fork": lambda: self.history.fork("fork", turns[-1].turn_id),
            "copy": lambda: copy_of.restore(turns, title="x", created_at=now()),
        }
        for name, step in steps.items():
            copy = self.sound.history("alice", name)
            if await self.refused(step()):
                try:
                    await copy.restore(turns, title="x", created_at=now())
                except SessionExists:
                    assert self.failing_disk.for_good  # it could not be undone either
            if self.checks:
                assert [t.turn_id for t in await all_turns(copy)] == [t.turn_id for t in turns]
        await self.shows(before)

    async def looks(self) -> None:
        before = await self.read()
        await self.refused(self.history.turns())
        await self.refused(self.history.aget_messages())
        await self.refused(self.failing.sessions("alice"))
        await self.refused(self.failing.sessions("alice", query="one"))
        await self.refused(self.failing.recall("alice", "one"))
        await self.refused(self.failing.ping())
        with suppress(SessionNotFound):
            await self.refused(self.history.stop())
            await self.refused(self.history.info())
        await self.shows(before)

    async def delete(self) -> None:
        before = await self.read()
        with suppress(SessionNotFound):
            refused = await self.refused(self.history.delete())
            await self.shows(*[before] * refused, [])
        if not await self.refused(self.failing.forget("alice")) and self.checks:
            assert await all_sessions(self.sound, "alice") == []

    async def afterwards(self) -> None:
        """Nothing is held, and the next turn works: for others, and once the disk is sound for this store, too."""
        assert len(self.failing.gate.queue) == 0
        assert self.failing.gate.running == {}
        before = await self.read()
        self.failing.disk = Unsynced()
        for store in (self.sound, self.failing):
            turn = await begun(store.history("alice", "s1"), "afterwards", wait_s=0)
            await turn.end(replied())
        assert (await self.read())[: len(before)] == before
        await self.failing.close()
        await self.sound.close()


class _Recording(FailingDisk):
    """Fails never, and notes from where in the store each call came."""

    def __init__(self, code: int) -> None:
        super().__init__(-1, code)
        self.places: list[tuple[str, ...]] = []

    @override
    def _fails(self) -> bool:
        frames = [frame for frame, _ in traceback.walk_stack(None)]
        stack = [f"{frame.f_code.co_qualname}:{frame.f_lineno}" for frame in frames if _is_ours(frame.f_code)]
        self.places.append(tuple(stack))
        return super()._fails()


def _is_ours(code: CodeType) -> bool:
    return code.co_filename.startswith(f"{Path(filesystem.__file__).parent}{os.sep}")


async def _faults(folder: Path, code: int, *, keeps_open: bool) -> list[tuple[int, int]]:
    """One call for each place in the store that asks the disk for something, in each step, and which step that is.

    With EVERY_FAULT=1 in the environment, every call: that takes some minutes (see CONTRIBUTING.md).
    Nothing fails meanwhile, and all steps keep their promises.
    """
    run = _Run(folder, disk := _Recording(code))
    if keeps_open:
        await run.failing.open()
    found, ends = dict[tuple[int, tuple[str, ...]], int](), list[int]()
    for number, step in enumerate(run.steps):
        start = disk.calls
        await step()
        ends.append(disk.calls)
        for at in range(start, disk.calls):
            kind = 1 if number == 4 else number  # both are a turn after a turn
            found.setdefault((kind, disk.places[at]), at + 1)
    await run.afterwards()
    calls = range(1, disk.calls + 1) if _EVERY_CALL else found.values()
    return [(at, bisect_left(ends, at)) for at in calls]


@proves("G2")
@pytest.mark.parametrize("keeps_open", [False, True], ids=["opens files each time", "keeps files open"])
@pytest.mark.parametrize(
    ("code", "for_good"),
    [(errno.ENOSPC, False), (errno.EIO, False), (errno.EROFS, True)],
    ids=["full once", "broken once", "read-only from then on"],
)
async def test_no_earlier_turn_is_lost_whichever_call_fails(
    tmp_path: Path, code: int, for_good: bool, keeps_open: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filesystem, "_STOP_POLL_S", 60)  # what it asks of the disk would not come at the same place
    faults = await _faults(tmp_path / "sound", code, keeps_open=keeps_open)
    for at, step in faults:
        folder = tmp_path / str(at)
        run = _Run(folder, disk := FailingDisk(at, code, for_good=for_good))
        before = len(os.listdir("/proc/self/fd"))
        try:
            if keeps_open:
                await run.failing.open()
            for number, one in enumerate(run.steps):
                run.checks = number >= step or _EVERY_CALL
                await one()
                if number > step and not for_good and not _EVERY_CALL:
                    break  # what comes later meets what it meets after a fault in a later step
            assert disk.failed
            run.checks = True
            await run.afterwards()
        except BaseException as error:
            error.add_note(f"the call that failed: {at}")
            raise
        assert len(os.listdir("/proc/self/fd")) <= before
        assert [p.name for p in folder.rglob("*.tmp")] == [] or for_good
    assert len(faults) > 50


async def test_a_full_disk_says_so_and_names_no_path(tmp_path: Path) -> None:
    store = FileStore(tmp_path, disk=FailingDisk(1, errno.ENOSPC, for_good=True))
    for step in (store.history("alice", "s1").begin(said("hello")), store.ping()):
        with pytest.raises(StoreFull) as full:
            await step
        assert str(tmp_path) not in str(full.value)
    broken = FileStore(tmp_path, disk=FailingDisk(1, errno.EIO))
    with pytest.raises(StoreUnavailable, match="EIO") as failed:
        await broken.history("alice", "s1").begin(said("hello"))
    assert not isinstance(failed.value, StoreFull)
    await store.close()
    await broken.close()


@pytest.fixture
def small(tmp_path: Path) -> Iterator[tuple[Path, Disk]]:
    """A folder with room for some 60 KB: a real, tiny file system where one can be mounted."""
    mounted = os.geteuid() == 0 and _mount(tmp_path, "size=64k")
    yield tmp_path, Disk() if mounted else SmallDisk(60_000)
    if mounted:
        subprocess.run(["umount", tmp_path], check=True)


def _mount(folder: Path, options: str) -> bool:
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    with suppress(OSError):
        return subprocess.run(mount, check=False, capture_output=True).returncode == 0
    return False


@proves("G2")
async def test_a_full_disk_keeps_all_earlier_turns_and_works_again_when_there_is_room(small: tuple[Path, Disk]) -> None:
    folder, disk = small
    store = FileStore(folder, disk=disk)
    history = store.history("alice", "s1")
    await talk(store.history("alice", "other"), "x" * 20_000)
    kept: list[str] = []

    async def one(length: int) -> None:
        turn = await begun(history, f"words {len(kept)} " + "x" * length)
        kept.append(turn.turn_id)
        await turn.end(replied("reply " * (length // 3)))

    async def many() -> None:
        while True:
            await one(700)

    for more in (many(), one(6000), one(6000), one(6000)):
        with pytest.raises(StoreFull):
            await more
    with pytest.raises(StoreFull):
        await store.history("alice", "copy").restore(await all_turns(history), title="x", created_at=now())
    turns = await all_turns(history)
    assert [t.turn_id for t in turns] == kept
    assert {t.status for t in turns[:-4]} == {Is.COMPLETE}
    await store.history("alice", "other").delete()
    if isinstance(disk, SmallDisk):
        disk.room += 20_000
    await talk(history, "there is room")
    assert [t.turn_id for t in (await all_turns(history))][:-1] == kept
    await store.close()


async def test_a_read_only_folder_can_be_read_and_refuses_turns(tmp_path: Path) -> None:
    mounted = os.geteuid() == 0 and _mount(tmp_path, "size=1m")
    store = FileStore(tmp_path)
    history = store.history("alice", "s1")
    ids = await talk(history, "hello")
    if mounted:
        subprocess.run(["mount", "-o", "remount,ro", tmp_path], check=True)
    else:
        store.disk = FailingDisk(1, errno.EROFS, for_good=True)
    try:
        steps: list[Callable[[SessionHistory], Awaitable[object]]] = [
            lambda h: h.begin(said("more")),
            lambda h: h.rename("x"),
            lambda h: h.rewind(ids[0]),
            lambda h: h.delete(),
            lambda h: h.fork("s2", ids[0]),
            lambda _: store.ping(),
        ]
        for step in steps:
            with pytest.raises(StoreUnavailable, match="EROFS"):
                await step(history)
        if mounted:
            assert [t.turn_id for t in await all_turns(history)] == ids
            assert [s.session_id for s in await all_sessions(store, "alice")] == ["s1"]
        assert len(store.gate.queue) == 0
    finally:
        await store.close()
        if mounted:
            subprocess.run(["umount", tmp_path], check=True)


async def test_a_name_that_an_empty_file_holds_is_free(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    history = store.history("alice", "s1")
    await talk(history, "hello")
    turns = await all_turns(history)
    (path,) = tmp_path.rglob("*.jsonl")
    for content in (b"", path.read_bytes()[:20], b"\0" * 700):
        path.write_bytes(content)
        assert await all_turns(history) == []
        with pytest.raises(SessionNotFound):
            await history.info()
        assert await all_sessions(store, "alice") == []
        await history.restore(turns, title="back", created_at=now())
        assert await all_turns(history) == turns
        with pytest.raises(SessionExists):
            await history.restore(turns, title="again", created_at=now())
        path.write_bytes(content)
        await talk(history, "afresh")
        assert (await history.info()).turns == 1
    await store.close()

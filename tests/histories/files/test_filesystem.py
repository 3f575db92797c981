"""What is the file store's own: names, permissions, links; pages and lists of files; large histories."""

from __future__ import annotations

import asyncio
import os
import re
import stat
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from histories.base import (
    InvalidCursor,
    SessionHistory,
    SessionNotFound,
    StoreUnavailable,
    now,
)
from histories.base import TurnStatus as Is
from histories.files.disk import Disk
from histories.files.log import Log
from histories.files.names import file_name
from histories.files.records import Sums, turn_line
from histories.files.store import FileStore
from histories.files.tree import Trees
from tests.files import log_of
from tests.proofs import proves
from tests.stores import all_sessions, all_turns, begun, replied, said, talk, texts, until

pytestmark = pytest.mark.usefixtures("closes_what_it_opens")


async def test_files_are_private_in_folders_that_are(tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        store = FileStore(tmp_path / "new" / "data")
        turn = await begun(store.history("alice", "s1"), "hello")
        waiting = asyncio.create_task(begun(FileStore(store.path).history("alice", "s1"), "me too"))
        await until(lambda: bool(list(tmp_path.rglob("*.next/*"))))
        await store.history("alice", "s2").restore([], title="x", created_at=now())
        await store.ping()
        modes = {path: path.lstat().st_mode for path in tmp_path.rglob("*")}
        await turn.end(replied())
        await (await waiting).end(replied())
    finally:
        os.umask(mask)
    assert len(modes) >= 8
    for path, mode in modes.items():
        assert stat.S_IMODE(mode) == (0o700 if stat.S_ISDIR(mode) else 0o600), path


def test_a_file_name_is_readable_short_and_safe() -> None:
    assert file_name("Alice's Größe!").startswith("alice-s-groe-")
    for each in ("", "x" * 5000, "👍", "..", "a/b", "\ud800", "CON"):
        name = file_name(each)
        assert len(name) <= 73
        assert name.isascii()
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert len({file_name(each) for each in ("a", "A", "é", "e\u0301", "a/b", "a-b", "a b")}) == 7


@pytest.mark.parametrize("name", ["", ".jsonl", ".turn", ".next"])
async def test_links_that_were_planted_are_not_followed(tmp_path: Path, store: FileStore, name: str) -> None:
    prey = tmp_path / "prey"
    prey.mkdir()
    (prey / "file").write_text("precious")
    user = Path(store.path) / file_name("alice")
    if name:
        await talk(store.history("alice", "other"), "hello")
        (user / (file_name("s1") + name)).symlink_to(prey / "file" if name != ".next" else prey)
    else:
        user.parent.mkdir()
        user.symlink_to(prey)
    history = store.history("alice", "s1")
    with pytest.raises(StoreUnavailable):
        await history.begin(said("hello"), wait_s=0.01)
    if name in ("", ".jsonl"):
        for ask in (history.turns(), history.info(), history.rename("x"), history.stop()):
            with pytest.raises(StoreUnavailable):
                await ask
    if name:
        assert [s.session_id for s in await all_sessions(store, "alice")] == ["other"]
        await talk(store.history("alice", "other"), "the other session works")
    assert [p.name for p in prey.iterdir()] == ["file"]
    assert (prey / "file").read_text() == "precious"
    assert len(store.gate.queue) == 0
    await store.close()


@pytest.mark.parametrize("kind", ["folder", "pipe"])
async def test_what_is_not_a_file_is_not_taken_for_one(tmp_path: Path, store: FileStore, kind: str) -> None:
    await talk(store.history("alice", "s1"), "hello")
    path = log_of(tmp_path).with_name(f"{file_name('s2')}.jsonl")
    path.mkdir() if kind == "folder" else os.mkfifo(path)
    history = store.history("alice", "s2")
    for ask in (history.begin(said("x")), history.turns(), history.restore([], title="x", created_at=now())):
        with pytest.raises(StoreUnavailable):
            await ask
    assert [s.session_id for s in await all_sessions(store, "alice", query="hello")] == ["s1"]
    await store.close()


@proves("G1")
async def test_a_new_file_and_a_new_folder_are_made_durable_before_the_turn_runs(tmp_path: Path) -> None:
    synced: list[str] = []

    class Watched(Disk):
        def sync(self, descriptor: int) -> None:
            name = os.path.relpath(os.readlink(f"/proc/self/fd/{descriptor}"), tmp_path)
            synced.append(re.sub(r"\.[0-9a-f]{16}\.tmp", ".tmp", name))
            super().sync(descriptor)

    store = FileStore(tmp_path / "a" / "b", disk=Watched())
    turn = await begun(store.history("alice", "s1"), "hello")
    user = f"a/b/{file_name('alice')}"
    log = f"{user}/{file_name('s1')}.jsonl"
    assert synced == [".", "a", "a/b", f"{user}/{file_name('s1')}.tmp", user]
    await turn.end(replied())
    assert synced[5:] == [log]
    await store.close()


async def test_a_folder_that_could_not_be_made_durable_is_tried_again(tmp_path: Path) -> None:
    class Once(Disk):
        failed = False

        def sync(self, descriptor: int) -> None:
            if not self.failed:
                self.failed = True
                raise OSError(5, "broken")
            super().sync(descriptor)

    store = FileStore(tmp_path / "data", disk=Once())
    with pytest.raises(StoreUnavailable):
        await store.history("alice", "s1").begin(said("hello"))
    assert not list(tmp_path.iterdir())
    await talk(store.history("alice", "s1"), "hello")
    await store.close()


async def test_a_cursor_that_points_into_a_record_is_refused(store: FileStore, history: SessionHistory) -> None:
    await talk(history, "one", "two")
    page = await history.turns(limit=1)
    assert page.next is not None
    for cursor in (str(int(page.next) + 1), "999999", f"{page.next}.", f".{page.next}", f"{page.next}.x"):
        with pytest.raises(InvalidCursor):
            await history.turns(before=cursor)
    assert (await history.turns(before="0")).items == []
    await store.close()


async def test_a_folder_that_another_process_makes_in_this_instant_is_used(tmp_path: Path) -> None:
    class Raced(Disk):
        def mkdir(self, folder: int, name: str) -> None:
            super().mkdir(folder, name)
            super().mkdir(folder, name)

    store = FileStore(tmp_path, disk=Raced())
    await talk(store.history("alice", "s1"), "hello")
    await store.close()


async def test_a_session_that_vanishes_while_the_list_is_made_is_passed_by(tmp_path: Path) -> None:
    class Vanishing(Disk):
        def open(self, folder: int, name: str, flags: int) -> int:
            if name == f"{file_name('s2')}.jsonl" and flags == os.O_RDONLY:
                raise FileNotFoundError(2, "gone")
            return super().open(folder, name, flags)

        def unlink(self, folder: int, name: str) -> None:
            super().unlink(folder, name)
            if name.endswith(".jsonl"):
                raise FileNotFoundError(2, "gone")

    store = FileStore(tmp_path, disk=Vanishing())
    for name in ("s1", "s2"):
        await talk(store.history("alice", name), "hello")
    assert [s.session_id for s in await all_sessions(store, "alice")] == ["s1"]
    await store.forget("alice")
    await store.forget("nobody")
    await store.close()


async def test_who_vanishes_while_users_are_listed_is_passed_by(tmp_path: Path) -> None:
    class Vanishing(Disk):
        def open(self, folder: int, name: str, flags: int) -> int:
            if flags == os.O_RDONLY and name == f"{file_name('s2')}.jsonl":
                raise FileNotFoundError(2, "gone")
            return super().open(folder, name, flags)

        def folder_in(self, path: str, name: str) -> int:
            if name == file_name("bob"):
                raise FileNotFoundError(2, "gone")
            return super().folder_in(path, name)

    store, watched = FileStore(tmp_path), FileStore(tmp_path, disk=Vanishing())
    for user, session in (("alice", "s1"), ("alice", "s2"), ("bob", "s1"), ("carol", "s2")):
        await talk(store.history(user, session), "hello")
    log_of(tmp_path / file_name("carol"), "s2").with_name(f"{file_name('s3')}.jsonl").touch()
    assert [user async for user in watched.users()] == ["alice"]
    assert sorted([user async for user in store.users()]) == ["alice", "bob", "carol"]
    await store.close()
    await watched.close()


async def test_a_turn_that_ends_while_it_is_looked_at_is_not_taken_for_interrupted(tmp_path: Path) -> None:
    ending: list[threading.Event] = []

    class Slow(Disk):
        def open(self, folder: int, name: str, flags: int) -> int:
            if name.endswith(".turn") and flags == os.O_RDONLY and ending:
                ending.pop(0).set()
                assert ended.wait(60)
            return super().open(folder, name, flags)

    ended = threading.Event()
    here, there = FileStore(tmp_path), FileStore(tmp_path, disk=Slow())
    turn = await begun(here.history("alice", "s1"), "hello")
    look = threading.Event()
    ending.append(look)
    looking = asyncio.create_task(there.history("alice", "s1").turns())
    await until(look.is_set)
    await turn.end(replied("in time"))
    ended.set()
    assert [t.status for t in (await looking).items] == [Is.COMPLETE]
    await here.close()
    await there.close()


async def test_what_seems_damaged_because_it_is_being_written_is_looked_at_again(tmp_path: Path) -> None:
    class Torn(Disk):
        tears = 1

        def read(self, descriptor: int, size: int, offset: int) -> bytes:
            data = super().read(descriptor, size, offset)
            if self.tears and data.endswith(b"}\n"):
                self.tears -= 1
                return data[:-20] + data[-10:]
            return data

    disk = Torn()
    disk.tears = 0
    store = FileStore(tmp_path, disk=disk)
    await talk(store.history("alice", "s1"), "hello")
    disk.tears = 2  # one look whether there is anything at all, and one at it
    assert len(await all_turns(store.history("alice", "s1"))) == 1
    await store.close()


async def test_the_list_is_by_the_time_of_the_last_record(store: FileStore, tmp_path: Path) -> None:
    await talk(store.history("alice", "s1"), "hello")
    changed = datetime.fromtimestamp(log_of(tmp_path).stat().st_mtime, UTC)
    updated = (await store.history("alice", "s1").info()).updated_at
    assert abs((changed - updated).total_seconds()) < 0.0001
    with pytest.raises(SessionNotFound):
        await store.history("alice", "s2").info()
    await store.close()


async def test_a_turn_after_large_ones_reads_back_to_them(store: FileStore, history: SessionHistory) -> None:
    await talk(history, "small", "x" * 1_000_000, "é" * 200_000, "small too")
    assert [len(t) for t in texts(await history.aget_messages())[::2]] == [5, 1_000_000, 200_000, 9]
    turn = await begun(history, said("again", turn_id="new"), window=10_000_000)
    assert len(turn.past) == 8
    await turn.end(replied())
    assert len(await all_turns(history, limit=1)) == 5
    await store.close()


@proves("G9")
@pytest.mark.parametrize("given", [False, True])
async def test_what_a_turn_reads_does_not_grow_with_the_history(tmp_path: Path, given: bool) -> None:
    class Counting(Disk):
        read_bytes = 0

        def read(self, descriptor: int, size: int, offset: int) -> bytes:
            data = super().read(descriptor, size, offset)
            self.read_bytes += len(data)
            return data

    disk = Counting()
    store = FileStore(tmp_path, fsync=False, disk=disk)
    history = store.history("alice", "s1")
    costs = []
    for number in range(400):
        before = disk.read_bytes
        new = said("a question", tokens=5, **({"turn_id": f"t-{number}"} if given else {}))
        turn = await begun(history, new, window=100)
        await turn.end(replied("answer " * 20, tokens=5))
        costs.append(disk.read_bytes - before)
    assert max(costs[300:]) <= max(costs[100:200])
    assert max(costs) < 200_000
    await store.close()


async def test_known_turn_ids_are_those_of_the_file_as_it_is(tmp_path: Path) -> None:
    trees, disk, path = Trees(most=30), Disk(), tmp_path / "log"

    def mention(turn_id: str, name: str = "log") -> bool:
        log = Log(disk, os.open(tmp_path / name, os.O_RDWR))
        try:
            tree = trees.of(log)
            trees.keep(log, tree)
            return turn_id in tree.ids
        finally:
            log.close()

    def lines(*turn_ids: str, words: str = "x") -> bytes:
        return b"".join(turn_line(said(words, turn_id=each), now(), Sums(), {}) for each in turn_ids)

    path.write_bytes(b"")
    assert not mention("a")
    path.write_bytes(lines("a", "é", words="x" * 700_000) + lines('quo"ted'))
    assert mention("a")
    assert mention("é")
    assert mention('quo"ted')
    assert not mention("b")
    with path.open("ab") as more:
        more.write(lines("b") + lines("torn")[:-1])
    assert mention("b")
    assert not mention("torn")
    with path.open("r+b") as other:  # another session that came by the same number
        other.truncate()
        other.write(lines("c", words="y" * 2_000_000))
    assert mention("c")
    assert not mention("a")
    for name in "123456":
        (tmp_path / name).write_bytes(lines(name))
        assert mention(name, name)
    assert mention("c")


async def test_a_torn_tail_may_be_long(store: FileStore, history: SessionHistory, tmp_path: Path) -> None:
    await talk(history, "hello")
    whole = log_of(tmp_path).read_bytes()
    await begun(history, "x" * 200_000)
    log_of(tmp_path).write_bytes(log_of(tmp_path).read_bytes()[:-100_000])
    assert [texts(t.input) for t in await all_turns(history)] == [["hello"]]
    await history.rename("x")
    assert log_of(tmp_path).read_bytes().startswith(whole)
    assert log_of(tmp_path).stat().st_size < 2 * len(whole)
    log_of(tmp_path).with_suffix(".turn").unlink()
    await store.history("alice", "s2").restore(await all_turns(history), title="x", created_at=now())
    await store.close()


async def test_before_anything_is_kept_there_is_nothing_to_read(tmp_path: Path) -> None:
    store = FileStore(tmp_path / "nowhere")
    assert await all_turns(store.history("alice", "s1")) == []
    assert await all_sessions(store, "alice") == []
    assert not (tmp_path / "nowhere").exists()
    await store.close()

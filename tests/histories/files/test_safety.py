"""What was acknowledged survives what it promises to: kills, power cuts, forks, stopped peers."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import itertools
import multiprocessing
import os
import shutil
import threading
from io import StringIO
from pathlib import Path

import pytest
from typing_extensions import override

from histories.base import OpenTurn, SessionBusy, StoreFull, StoreUnavailable, Turn, now
from histories.base import TurnStatus as Is
from histories.files import history as files_history
from histories.files.check import check_main
from histories.files.disk import Disk
from histories.files.store import FileStore
from tests.files import folder_of, log_of
from tests.proofs import proves
from tests.stores import all_turns, begun, replied, said, talk, texts, until

_SECTOR = 512


pytestmark = pytest.mark.usefixtures("closes_what_it_opens")


class Recording(Disk):
    """Knows which bytes of a file were written and not synced."""

    def __init__(self) -> None:
        self.synced, self.unsynced = 0, list[tuple[int, int]]()
        self.crashes: list[tuple[int, int]] = []
        """What was unsynced each time that something was about to be synced: from where, to where."""

    @override
    def write(self, descriptor: int, data: bytes) -> None:
        start = os.fstat(descriptor).st_size
        super().write(descriptor, data)
        self.unsynced.append((start, start + len(data)))

    @override
    def sync(self, descriptor: int) -> None:
        if self.unsynced:
            self.crashes.append((self.unsynced[0][0], self.unsynced[-1][1]))
        self.synced, self.unsynced = self.synced + 1, []


# Written and not synced.


async def test_a_complete_turn_is_on_the_disk_before_a_retry_is_answered_with_it(tmp_path: Path) -> None:
    killed, disk = FileStore(tmp_path, fsync=False), Recording()
    turn = await begun(killed.history("alice", "s1"), said("hello", turn_id="t"))
    await turn.end(replied())
    store = FileStore(tmp_path, disk=disk)
    answered = await store.history("alice", "s1").begin(said("hello", turn_id="t"))
    assert isinstance(answered, Turn)
    assert disk.synced == 1
    for each in (killed, store):
        await each.close()


@proves("G2")
@pytest.mark.parametrize("opened", [True, False])
async def test_an_end_that_failed_does_not_read_as_complete_even_if_it_can_not_be_taken_back(
    tmp_path: Path, opened: bool
) -> None:
    class Failing(Disk):
        fails = False

        @override
        def sync(self, descriptor: int) -> None:
            if self.fails:
                raise OSError(5, "broken")

        @override
        def truncate(self, descriptor: int, size: int) -> None:
            if self.fails:
                raise OSError(5, "broken")
            super().truncate(descriptor, size)

    disk = Failing()
    store, other = FileStore(tmp_path, disk=disk), FileStore(tmp_path)
    if opened:
        await store.open()
    turn = await begun(store.history("alice", "s1"), said("hello", turn_id="t"))
    disk.fails = True
    with pytest.raises(StoreUnavailable):
        await turn.end(replied())
    assert [t.status for t in await all_turns(other.history("alice", "s1"))] == [Is.INTERRUPTED]
    disk.fails = False
    assert check_main(str(tmp_path), False, StringIO()) == 0
    again = await begun(other.history("alice", "s1"), said("hello", turn_id="t"))
    await again.end(replied("at last"))
    assert [texts(t.output) for t in await all_turns(other.history("alice", "s1"))] == [["at last"]]
    for each in (store, other):
        await each.close()


async def _after_each_power_cut(content: bytes, crash: tuple[int, int], folder: Path) -> None:
    """A turn on the file as it may be after a power cut: of what was not synced, any sectors are there."""
    start, end = crash
    sectors = sorted({start, *range(start - start % _SECTOR + _SECTOR, end, _SECTOR), end})
    parts = list(itertools.pairwise(sectors))
    for lost in itertools.product([False, True], repeat=len(parts)):
        image = bytearray(content[:end])
        for (a, b), gone in zip(parts, lost, strict=True):
            if gone:
                image[a:b] = bytes(b - a)
        log_of(folder).write_bytes(image)
        store = FileStore(folder, fsync=False)
        history = store.history("alice", "s1")
        await talk(history, "the next one")
        turns = await all_turns(history)
        assert texts(turns[0].output) == ["re: one"]
        assert texts(turns[-1].input) == ["the next one"]
        await store.close()


@proves("G6")
@pytest.mark.parametrize("padding", range(0, _SECTOR, 100))
async def test_a_power_cut_while_a_dead_servers_turn_is_settled_leaves_a_session_that_works(
    tmp_path: Path, padding: int
) -> None:
    disk = Recording()
    store = FileStore(tmp_path, disk=disk)
    history = store.history("alice", "s1")
    await talk(history, "one")
    turn = await begun(history, "x" * padding)
    content = log_of(tmp_path).read_bytes()
    await turn.end(replied())
    log_of(tmp_path).write_bytes(content)  # as if it had been killed before its end
    disk.crashes.clear()
    turn = await begun(history, "three " * 30)
    content = log_of(tmp_path).read_bytes()
    await turn.end(replied())
    await store.close()
    for crash in disk.crashes[:2]:
        await _after_each_power_cut(content, crash, tmp_path)


async def test_a_session_appears_with_all_of_its_first_turn(tmp_path: Path) -> None:
    looks: list[bool] = []

    class Watched(Disk):
        @override
        def write(self, descriptor: int, data: bytes) -> None:
            super().write(descriptor, data)
            looks.append(bool(list(tmp_path.rglob("*.jsonl"))))

    store = FileStore(tmp_path, disk=Watched())
    await talk(store.history("alice", "s1"), "hello")
    assert looks == [False, True], "the first turn is all in the file before it has its name"
    await store.close()


# A file that got the number of another one.


async def test_a_session_that_was_imported_anew_is_searched_for_a_given_id(tmp_path: Path) -> None:
    store, other, made = FileStore(tmp_path), FileStore(tmp_path), now()
    history = store.history("alice", "s1")

    def turns(turn_id: str) -> list[Turn]:
        reply, question = replied("re"), said("hello")
        return [
            Turn(turn_id=name, status=Is.COMPLETE, chain="", started_at=made, ended_at=made,
                 input=question.input, output=reply.output) for name in (turn_id, "last")
        ]  # fmt: skip

    for number in range(8):  # numbers of files are soon used again, not always at once
        await history.restore(turns(f"t-{number}"), title="t", created_at=made)
        answered = await history.begin(said("hello", turn_id=f"t-{number}"))
        assert isinstance(answered, Turn), number
        await other.history("alice", "s1").delete()
    for each in (store, other):
        await each.close()


# Other processes: stopped ones, forked ones, and who reads slowly.


async def test_a_peer_that_is_stopped_in_mid_write_costs_others_no_more_than_their_wait(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    await talk(store.history("alice", "s1"), "one")
    with log_of(tmp_path).open("rb") as stopped:
        fcntl.flock(stopped, fcntl.LOCK_EX)
        async with asyncio.timeout(60):
            waiting = [store.history("alice", "s1").begin(said("two"), wait_s=0.5) for _ in range(20)]
            refused = asyncio.gather(*waiting, return_exceptions=True)
            await talk(store.history("bob", "s1"), "in between")
            assert not refused.done()
            assert {type(error) for error in await refused} == {SessionBusy}
    await talk(store.history("alice", "s1"), "two")
    await store.close()


async def test_a_look_that_is_stopped_costs_others_no_more_than_their_wait(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    await store.open()
    await talk(store.history("alice", "s1"), "one")
    (lock,) = tmp_path.rglob("*.turn")
    with lock.open("rb") as stopped:
        fcntl.flock(stopped, fcntl.LOCK_SH)
        async with asyncio.timeout(60):
            with pytest.raises(SessionBusy):
                await store.history("alice", "s1").begin(said("two"), wait_s=0.3)
    await talk(store.history("alice", "s1"), "two")
    await store.close()


async def test_who_reads_slowly_what_a_check_finds_holds_up_no_session(tmp_path: Path) -> None:
    printing, going = threading.Event(), threading.Event()

    class Pager(StringIO):
        @override
        def write(self, text: str) -> int:
            printing.set()
            assert going.wait(60)
            return super().write(text)

    store = FileStore(tmp_path)
    await talk(store.history("alice", "s1"), "one")
    log_of(tmp_path).chmod(0o644)
    checking = asyncio.create_task(asyncio.to_thread(check_main, str(tmp_path), True, Pager()))
    await until(printing.is_set)
    try:
        async with asyncio.timeout(60):
            await store.history("alice", "s1").rename("meanwhile")
            await talk(store.history("alice", "s1"), "two")
    finally:
        going.set()
        await checking
    await store.close()


def _hold_what_was_inherited(ready: int, held: int) -> None:
    os.write(ready, b"x")
    os.read(held, 1)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
async def test_a_child_that_a_chain_forks_keeps_no_session(tmp_path: Path) -> None:
    store, other = FileStore(tmp_path), FileStore(tmp_path)
    turn = await begun(store.history("alice", "s1"), "one")
    (ready, tell), (held, release) = os.pipe(), os.pipe()
    child = multiprocessing.get_context("fork").Process(target=_hold_what_was_inherited, args=(tell, held))
    child.start()
    try:
        assert await asyncio.to_thread(os.read, ready, 1) == b"x"
        links = [Path(f"/proc/{child.pid}/fd/{fd}") for fd in os.listdir(f"/proc/{child.pid}/fd")]
        names = [os.readlink(link) for link in links if link.is_symlink()]
        assert not [name for name in names if name.endswith(".turn")], "after a kill of the server it would be held"
        await turn.end(replied())
        await talk(other.history("alice", "s1"), "two")
    finally:
        os.write(release, b"x")
        child.join()
        for descriptor in (ready, tell, held, release):
            os.close(descriptor)
    for each in (store, other):
        await each.close()


# Large ones.


async def test_a_page_of_large_turns_ends_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_history, "PAGE_BYTES", 200_000)
    store = FileStore(tmp_path, fsync=False)
    history = store.history("alice", "s1")
    for number in range(8):
        turn = await begun(history, f"{number}")
        await turn.end(replied("x" * 60_000))
    page = await history.turns(limit=8)
    assert 1 <= len(page.items) <= 4
    assert [texts(t.input) for t in await all_turns(history)] == [[f"{number}"] for number in range(8)]
    await store.close()


@proves("G14")
async def test_a_session_is_removed_after_what_a_repair_has_kept_of_it(tmp_path: Path) -> None:
    class Failing(Disk):
        fails = True

        @override
        def unlink(self, folder: int, name: str) -> None:
            super().unlink(folder, name)
            if self.fails and not name.endswith(".turn"):
                self.fails = False
                raise OSError(5, "broken")

    store = FileStore(tmp_path, disk=Failing())
    history = store.history("alice", "s1")
    await talk(history, "secret")
    shutil.copy(log_of(tmp_path), log_of(tmp_path).with_suffix(".damaged-x"))
    with pytest.raises(StoreUnavailable):
        await history.delete()
    await history.delete()
    assert not list(folder_of(store).iterdir())
    await store.close()


async def test_a_session_can_be_deleted_where_no_file_can_be_made(tmp_path: Path) -> None:
    class Full(Disk):
        full = False

        @override
        def open(self, folder: int, name: str, flags: int) -> int:
            if self.full and flags & os.O_CREAT:
                raise OSError(errno.ENOSPC, "full")
            return super().open(folder, name, flags)

    disk = Full()
    store = FileStore(tmp_path, disk=disk)
    history = store.history("alice", "s1")
    await talk(history, "one")
    disk.full = True
    with pytest.raises(StoreFull):
        await history.begin(said("two"))
    await history.delete()
    assert (await store.sessions("alice")).items == []
    await store.close()


async def test_word_to_stop_a_turn_does_not_stop_its_retry(tmp_path: Path) -> None:
    asker, store, stopped = FileStore(tmp_path), FileStore(tmp_path), list[str]()
    history = store.history("alice", "s1")
    turn = await begun(history, said("hello", turn_id="t"))
    assert await asker.history("alice", "s1").stop()  # nobody listens yet
    await turn.end(replied("", Is.FAILED))
    retry = await history.begin(said("hello", turn_id="t"), on_stop=lambda: stopped.append("the retry"))
    await store.open()
    fresh = await begun(store.history("alice", "s2"), "stop me")
    assert await asker.history("alice", "s2").stop()
    await until(lambda: not list((tmp_path / ".stops").glob("*s2*")))  # so all words were looked at
    assert stopped == []
    assert isinstance(retry, OpenTurn)
    for each in (retry, fresh):
        await each.end(replied())
    for opened in (asker, store):
        await opened.close()


@proves("G12")
async def test_what_a_dead_owner_had_said_is_on_the_record(tmp_path: Path) -> None:
    dead, store = FileStore(tmp_path), FileStore(tmp_path)
    history = store.history("alice", "s1")
    turn = await begun(dead.history("alice", "s1"), "hello")
    await turn.journal([b'"half "', b'"a reply"'])
    turn._let_go(None)  # type: ignore[attr-defined] # what the kernel does when its process dies
    (looked_at,) = await all_turns(history)
    assert (looked_at.status, texts(looked_at.output)) == (Is.INTERRUPTED, ["half a reply"])
    following = await begun(history, "more", window=1000)
    assert texts(following.past) == ["hello", "half a reply"]
    await following.end(replied())
    assert not list(tmp_path.rglob("*.journal"))
    turn._book.remove(None)  # type: ignore[attr-defined]
    for each in (dead, store):
        await each.close()

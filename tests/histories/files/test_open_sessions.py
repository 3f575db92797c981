"""Sessions whose files stay open between turns: as good as read anew, whoever has changed them meanwhile."""

from __future__ import annotations

import asyncio
import fcntl
import io
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from langchain_core.messages import AIMessage, HumanMessage

from histories.base import NewTurn, OpenTurn, Reply, StoreUnavailable, Turn, TurnLost, TurnStatus, now
from histories.files import open_sessions
from histories.files.check import check_main
from histories.files.locks import FileLock
from histories.files.store import FileStore
from tests.files import WatchedDisk, folder_of, log_of
from tests.stores import all_turns, begun, replied, said, talk, texts, until


@pytest.fixture
def disk() -> WatchedDisk:
    return WatchedDisk()


@pytest.fixture
async def store(tmp_path: Path, disk: WatchedDisk) -> AsyncIterator[FileStore]:
    """A store that is open, with one turn said in the session s1 of alice."""
    before = len(os.listdir("/proc/self/fd"))
    store = FileStore(tmp_path, disk=disk)
    await store.open()
    await talk(store.history("alice", "s1"), "one")
    disk.calls.clear()
    yield store
    await store.close()
    assert len(os.listdir("/proc/self/fd")) <= before
    assert not list(tmp_path.rglob("*.turn"))


@pytest.fixture
async def other(tmp_path: Path) -> AsyncIterator[FileStore]:
    """The same folder, as another process has it, which keeps no files open."""
    other = FileStore(tmp_path)
    yield other
    await other.close()


async def past_of(store: FileStore, words: str = "next", session: str = "s1") -> list[str]:
    """What the model is shown in the next turn."""
    turn = await begun(store.history("alice", session), words, window=1000)
    await turn.end(replied(f"re: {words}"))
    return texts(turn.past)


async def test_the_next_turn_opens_and_reads_nothing(store: FileStore, disk: WatchedDisk) -> None:
    assert await past_of(store) == ["one", "re: one"]
    assert disk.calls == ["write", "write"]
    assert await past_of(store) == ["one", "re: one", "next", "re: next"]


async def test_a_turn_of_a_given_id_opens_and_reads_nothing_once_all_ids_are_known(
    store: FileStore, disk: WatchedDisk
) -> None:
    history = store.history("alice", "s1")
    for number in range(3):
        disk.calls.clear()
        turn = await begun(history, said("x", turn_id=f"t{number}"))
        await turn.end(replied())
    assert disk.calls == ["write", "write"]
    complete = await history.begin(said("x", turn_id="t1"))
    assert isinstance(complete, Turn)
    assert len(await past_of(store)) == 8


async def test_a_store_that_is_not_open_keeps_no_files_open(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    before = len(os.listdir("/proc/self/fd"))
    await talk(store.history("alice", "s1"), "one")
    assert {path.suffix for path in tmp_path.rglob("*.*")} == {".jsonl"}
    await store.close()
    assert len(os.listdir("/proc/self/fd")) <= before


Change = Callable[[FileStore], Awaitable[object]]
CHANGES: dict[str, tuple[Change, list[str]]] = {
    "a turn": (lambda other: talk(other.history("alice", "s1"), "two"), ["one", "re: one", "two", "re: two"]),
    "a title": (lambda other: other.history("alice", "s1").rename("T"), ["one", "re: one"]),
    "deleted": (lambda other: other.history("alice", "s1").delete(), []),
    "all forgotten": (lambda other: other.forget("alice"), []),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("same", [False, True], ids=["elsewhere", "here"])
async def test_what_has_changed_between_turns_is_seen(
    store: FileStore, other: FileStore, change: str, same: bool
) -> None:
    make, seen = CHANGES[change]
    await make(store if same else other)
    assert await past_of(store) == seen
    info = await other.history("alice", "s1").info()
    assert info.title == ("T" if change == "a title" else "one" if seen else "next")
    assert info.turns == len(seen) // 2 + 1


@pytest.mark.parametrize("same", [False, True], ids=["elsewhere", "here"])
async def test_what_was_rewound_between_turns_is_not_shown(store: FileStore, other: FileStore, same: bool) -> None:
    turn_ids = await talk(store.history("alice", "s1"), "two")
    await (store if same else other).history("alice", "s1").rewind(turn_ids[0])
    assert await past_of(store) == ["one", "re: one"]


async def test_what_another_left_running_is_settled(store: FileStore, other: FileStore, tmp_path: Path) -> None:
    turn = await begun(other.history("alice", "s1"), "two")
    content = log_of(tmp_path).read_bytes()
    await turn.end(replied())
    log_of(tmp_path).write_bytes(content)  # as if it had been killed before its end
    assert await past_of(store) == ["one", "re: one"]
    turns = await all_turns(other.history("alice", "s1"))
    assert [t.status for t in turns] == [TurnStatus.COMPLETE, TurnStatus.INTERRUPTED, TurnStatus.COMPLETE]


async def test_a_repaired_session_goes_on_in_its_new_file(store: FileStore, tmp_path: Path) -> None:
    log = log_of(tmp_path)
    content = bytearray(log.read_bytes())
    content[content.index(b"re: one")] ^= 1
    log.write_bytes(content)
    assert await asyncio.to_thread(check_main, str(tmp_path), True, io.StringIO()) == 0
    assert "re: one" not in await past_of(store)
    assert b'"next"' in log.read_bytes()


async def test_a_title_given_while_a_turn_runs_stays(store: FileStore, other: FileStore) -> None:
    turn = await begun(store.history("alice", "s1"), "two", window=1000)
    await other.history("alice", "s1").rename("Better")
    await turn.end(replied("re: two"))
    assert (await other.history("alice", "s1").info()).title == "Better"
    assert await past_of(store) == ["one", "re: one", "two", "re: two"]


async def test_a_turn_whose_session_is_gone_is_lost(store: FileStore, tmp_path: Path) -> None:
    turn = await begun(store.history("alice", "s1"), "two")
    log_of(tmp_path).unlink()
    with pytest.raises(TurnLost):
        await turn.end(replied())
    assert await past_of(store) == []


async def test_a_turn_whose_session_goes_while_its_end_is_written_is_lost(
    store: FileStore, disk: WatchedDisk, tmp_path: Path
) -> None:
    turn = await begun(store.history("alice", "s1"), "two")
    disk.writing.clear()
    disk.going.clear()
    ending = asyncio.create_task(turn.end(replied()))
    await until(disk.writing.is_set)
    log_of(tmp_path).unlink()
    disk.going.set()
    with pytest.raises(TurnLost):
        await ending
    assert await past_of(store) == []


async def test_who_waits_elsewhere_is_not_overtaken(store: FileStore, tmp_path: Path) -> None:
    history, waiting = store.history("alice", "s1"), FileStore(tmp_path)
    held = await begun(history, "held")
    task = asyncio.create_task(waiting.history("alice", "s1").begin(said("patient"), wait_s=60))
    await until(lambda: bool(list(tmp_path.rglob("*.next/*"))))
    hurried = [asyncio.create_task(history.begin(said(f"hurried {n}"), wait_s=60)) for n in range(3)]
    await asyncio.sleep(0)
    await held.end(replied())
    patient = await task
    assert isinstance(patient, OpenTurn)
    await patient.end(replied())
    for each in hurried:
        turn = await each
        assert isinstance(turn, OpenTurn)
        await turn.end(replied())
    order = [texts(turn.input)[0] for turn in await all_turns(history)]
    assert order == ["one", "held", "patient", "hurried 0", "hurried 1", "hurried 2"]
    await waiting.close()
    assert await past_of(store)


async def test_who_waits_at_a_lock_that_was_replaced_is_not_overtaken(
    store: FileStore, other: FileStore, tmp_path: Path
) -> None:
    history, waiting = store.history("alice", "s1"), FileStore(tmp_path)
    held = await begun(other.history("alice", "s1"), "held")
    first = asyncio.create_task(history.begin(said("first"), wait_s=60))
    await until(lambda: len(list(tmp_path.rglob("*.next/*"))) == 1)
    second = asyncio.create_task(waiting.history("alice", "s1").begin(said("second"), wait_s=60))
    await until(lambda: len(list(tmp_path.rglob("*.next/*"))) == 2)
    await asyncio.sleep(0.6)  # they look seldom now
    await held.end(replied())  # removes the lock at which they asked
    turn = await first
    assert isinstance(turn, OpenTurn)
    await turn.end(replied())
    third = asyncio.create_task(history.begin(said("third"), wait_s=60))
    for task in (second, third):
        turn = await task
        assert isinstance(turn, OpenTurn)
        await turn.end(replied())
    order = [texts(turn.input)[0] for turn in await all_turns(history)]
    assert order == ["one", "held", "first", "second", "third"]
    await waiting.close()


async def test_a_session_that_is_in_use_elsewhere_is_refused_where_turns_do_not_wait(
    store: FileStore, other: FileStore
) -> None:
    held = await begun(other.history("alice", "s1"), "held")
    with pytest.raises(Exception, match="running"):
        await store.history("alice", "s1").begin(said("two"), wait_s=0)
    await held.end(replied())
    assert await past_of(store) == ["one", "re: one", "held", "a reply"]


async def test_a_look_at_the_lock_passes_for_nobody(store: FileStore, tmp_path: Path) -> None:
    (lock,) = tmp_path.rglob("*.turn")
    with lock.open("rb") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        task = asyncio.create_task(past_of(store))
        await asyncio.sleep(0.05)
        fcntl.flock(looking, fcntl.LOCK_UN)
    assert await task == ["one", "re: one"]


async def test_a_write_elsewhere_in_this_moment_is_waited_for(store: FileStore, tmp_path: Path) -> None:
    for when in ("begin", "end"):
        turn = await begun(store.history("alice", "s1"), "held") if when == "end" else None
        with log_of(tmp_path).open("rb") as writing:
            fcntl.flock(writing, fcntl.LOCK_EX)
            task = asyncio.create_task(past_of(store) if turn is None else turn.end(replied()))
            await asyncio.sleep(0.05)
            assert not task.done()
            fcntl.flock(writing, fcntl.LOCK_UN)
        await task


async def test_a_disk_that_fails_at_the_begin_leaves_the_session_as_it_was(store: FileStore, disk: WatchedDisk) -> None:
    disk.fails = 1
    with pytest.raises(StoreUnavailable):
        await store.history("alice", "s1").begin(said("two"))
    assert len(store.gate.queue) == 0
    assert await past_of(store) == ["one", "re: one"]


async def test_a_disk_that_fails_at_the_end_leaves_the_turn_without_a_reply(
    store: FileStore, disk: WatchedDisk
) -> None:
    turn = await begun(store.history("alice", "s1"), "two")
    disk.fails = 1
    with pytest.raises(StoreUnavailable):
        await turn.end(replied("re: two"))
    turns = await all_turns(store.history("alice", "s1"))
    assert [t.status for t in turns] == [TurnStatus.COMPLETE, TurnStatus.INTERRUPTED]
    assert await past_of(store) == ["one", "re: one"]


async def test_who_is_cancelled_as_its_turn_begins_leaves_it_interrupted(store: FileStore, disk: WatchedDisk) -> None:
    history = store.history("alice", "s1")
    disk.writing.clear()
    disk.going.clear()
    task = asyncio.create_task(history.begin(said("two")))
    await until(disk.writing.is_set)
    task.cancel()
    await asyncio.sleep(0)
    disk.going.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [t.status for t in await all_turns(history)] == [TurnStatus.COMPLETE, TurnStatus.INTERRUPTED]
    assert await past_of(store) == ["one", "re: one"]


@pytest.mark.parametrize("closes", [False, True])
async def test_who_is_cancelled_as_its_turn_ends_has_ended_it(
    store: FileStore, disk: WatchedDisk, closes: bool
) -> None:
    history = store.history("alice", "s1")
    turn = await begun(history, "two")
    disk.writing.clear()
    disk.going.clear()
    task = asyncio.create_task(turn.end(replied("re: two")))
    await until(disk.writing.is_set)
    closing = asyncio.create_task(store.close()) if closes else None
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    disk.going.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    if closing is not None:
        await closing
        assert not store.open_sessions.take_stale(all_of_them=True)
        await store.open()
    assert await past_of(store) == ["one", "re: one", "two", "re: two"]


async def test_idle_sessions_are_put_away(store: FileStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(tmp_path.rglob("*.turn"))
    monkeypatch.setattr(open_sessions, "_IDLE_S", 0)
    await until(lambda: not list(tmp_path.rglob("*.turn")))
    assert await past_of(store) == ["one", "re: one"]


async def test_the_files_of_a_deleted_session_are_closed_soon(store: FileStore, other: FileStore) -> None:
    def deleted() -> list[str]:
        links = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
        return [link for link in links if os.path.islink(link) and "(deleted)" in os.readlink(link)]

    await other.history("alice", "s1").delete()
    await until(lambda: not [link for link in deleted() if "jsonl" in os.readlink(link)])


async def test_the_disk_is_not_asked_about_open_sessions_on_the_event_loop(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_by = set[int]()

    def gone(lock: FileLock) -> bool:
        asked_by.add(threading.get_ident())
        return False

    monkeypatch.setattr(FileLock, "gone", property(gone))
    await until(lambda: bool(asked_by))
    assert threading.get_ident() not in asked_by


async def test_only_so_many_sessions_stay_open(
    store: FileStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_sessions, "_SESSIONS", 3)
    for number in range(10):
        await talk(store.history("alice", f"more {number}"), "hello")
    await until(lambda: len(list(tmp_path.rglob("*.turn"))) == 3)
    assert await past_of(store) == ["one", "re: one"]


async def test_a_session_is_put_away_also_without_its_folder(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    os.rename(folder_of(store), f"{folder_of(store)}-away")
    monkeypatch.setattr(open_sessions, "_IDLE_S", 0)
    await until(lambda: not store.open_sessions.take("x") and not len(store.open_sessions))
    os.rename(f"{folder_of(store)}-away", folder_of(store))
    assert await past_of(store) == ["one", "re: one"]


async def test_a_wider_window_is_read_from_the_file(store: FileStore, disk: WatchedDisk) -> None:
    history = store.history("alice", "s1")
    for words in ("two", "three"):
        turn = await history.begin(said(words, tokens=50), window_tokens=60)
        assert isinstance(turn, OpenTurn)
        await turn.end(replied(tokens=50))
    disk.calls.clear()
    assert (await past_of(store))[-2:] == ["three", "a reply"]
    assert "read" in disk.calls


async def test_large_turns_are_read_from_the_file(store: FileStore, disk: WatchedDisk) -> None:
    await talk(store.history("alice", "s1"), "x" * 100_000)
    disk.calls.clear()
    turn = await begun(store.history("alice", "s1"), "next", window=1_000_000)
    assert len(texts(turn.past)[2]) == 100_000
    assert "read" in disk.calls
    await turn.end(replied())


async def test_a_past_of_many_messages_is_read_from_the_file_each_time(store: FileStore) -> None:
    at = now()
    turns = [
        Turn(
            turn_id=f"t{number}",
            status=TurnStatus.COMPLETE,
            chain="",
            started_at=at,
            input=[HumanMessage("q")],
            output=[AIMessage("a")],
            tokens=2,
        )
        for number in range(250)
    ]
    history = store.history("alice", "long")
    await history.restore(turns, title="Long", created_at=at)
    for seen in (500, 502):
        turn = await history.begin(NewTurn(input=[HumanMessage("q")], tokens=1), window_tokens=100_000)
        assert isinstance(turn, OpenTurn)
        assert len(turn.past) == seen
        await turn.end(Reply(status=TurnStatus.COMPLETE, output=[AIMessage("a")], tokens=1))

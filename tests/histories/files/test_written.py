"""What a process has written itself comes into the index without being read back, and as if it had been."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from typing_extensions import override

from histories.base import NewTurn, OpenTurn, Reply, SessionHistory, TurnStatus
from histories.files import written
from histories.files.disk import Disk
from histories.files.index_file import INDEX, remove_index
from histories.files.names import file_name
from histories.files.store import FileStore
from tests.files import folder_of, found
from tests.stores import talk

pytestmark = pytest.mark.usefixtures("closes_what_it_opens")


class CountingDisk(Disk):
    """Counts what is read of files."""

    reads = 0

    @override
    def read(self, descriptor: int, size: int, offset: int) -> bytes:
        self.reads += 1
        return super().read(descriptor, size, offset)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[FileStore]:
    """One that is open, with an index that nobody but the test brings up to the logs."""
    store = FileStore(tmp_path / "histories", fsync=False, disk=CountingDisk())
    await store.open()
    assert store._watch is not None
    store._watch.cancel()
    await talk(store.history("alice", "first"), "the very first")
    assert await found(store, "very") == ["first"]
    yield store
    await store.close()


async def follow(store: FileStore) -> int:
    """Brings the index up to what was written; gives how often a file was read for it."""
    assert isinstance(store.disk, CountingDisk)
    before = store.disk.reads
    await store.call(lambda: store.follow_changes(at_once=True))
    return store.disk.reads - before


def content(store: FileStore) -> list[Any]:
    """All that the index has of sessions and turns, but for what time alone changes."""
    with closing(sqlite3.connect(folder_of(store) / INDEX)) as index:
        sessions = index.execute("SELECT name, place, mark, entry, log, read FROM sessions ORDER BY name").fetchall()
        turns = index.execute(
            "SELECT name, start, stop, complete, turn, words FROM turns JOIN said ON said.rowid = turns.id "
            "JOIN sessions ON sessions.id = turns.session ORDER BY name, start"
        ).fetchall()
    return [sessions, turns]


async def read_anew(store: FileStore) -> list[Any]:
    """The same when all logs have been read for it."""
    await store.call(store.indices.close)
    with store.folder(file_name("alice")) as folder:
        remove_index(folder)
    await found(store, "anything")
    return content(store)


async def begin(history: SessionHistory, words: str, **options: Any) -> OpenTurn:
    turn = await history.begin(NewTurn(input=[HumanMessage(words)], chain="chat", tokens=3, **options))
    assert isinstance(turn, OpenTurn)
    return turn


async def end(turn: OpenTurn, words: str = "", status: TurnStatus = TurnStatus.COMPLETE) -> None:
    await turn.end(Reply(status=status, output=[AIMessage(words)] if words else [], tokens=2))


async def test_new_sessions_and_turns_are_not_read_back(store: FileStore) -> None:
    for number in range(3):
        history = store.history("alice", f"s{number} \U0001f642")
        await talk(history, *(f"question {word} \ud800 {number}" for word in ("one", "two")))
        await end(await begin(history, "and a failure"), status=TurnStatus.FAILED)
    assert await follow(store) == 0
    told = content(store)
    assert len(told[0]) == 4
    await talk(store.history("alice", "s1 \U0001f642"), "later")
    assert await follow(store) == 0
    told = content(store)
    assert told == await read_anew(store)
    assert await found(store, "later") == ["s1 \U0001f642"]


async def _renamed(history: SessionHistory) -> None:
    await history.rename("quite another title")


async def _rated(history: SessionHistory) -> None:
    await history.feedback((await history.turns()).items[-1].turn_id, {"score": 1, "comment": "good"})


async def _rewound(history: SessionHistory) -> None:
    await history.rewind((await history.turns()).items[-1].turn_id)


async def _again(history: SessionHistory) -> None:
    await end(await begin(history, "anew", version_of=(await history.turns()).items[-1].turn_id), "another")


async def _elsewhere(history: SessionHistory) -> None:
    other = FileStore(history._store.path, fsync=False)  # type: ignore[attr-defined]
    await talk(other.history("alice", history.session_id), "from elsewhere")
    await other.close()


async def _made_anew(history: SessionHistory) -> None:
    await history.delete()
    await talk(history, "a new one of that name")


@pytest.mark.parametrize("change", [_renamed, _rated, _rewound, _again, _elsewhere, _made_anew])
@pytest.mark.parametrize("followed", [False, True])
async def test_what_is_not_all_known_is_read(
    store: FileStore, change: Callable[[SessionHistory], Any], *, followed: bool
) -> None:
    history = store.history("alice", "s1")
    await talk(history, "question one", "question two")
    if followed:
        await follow(store)
    await change(history)
    await talk(history, "question three")
    assert await follow(store) > 0
    told = content(store)
    assert told == await read_anew(store)


async def test_a_log_that_another_server_has_added_to_since_is_read(store: FileStore) -> None:
    history = store.history("alice", "s1")
    await talk(history, "question one")
    await _elsewhere(history)
    assert await follow(store) > 0
    told = content(store)
    assert told == await read_anew(store)
    assert await found(store, "elsewhere") == ["s1"]


async def test_what_has_been_read_by_a_question_meanwhile_stays_as_it_is(store: FileStore) -> None:
    history = store.history("alice", "s1")
    await talk(history, "question one")
    assert await found(store, "question") == ["s1"]
    await talk(history, "question two")
    assert await follow(store) == 0
    told = content(store)
    assert told == await read_anew(store)


async def test_no_more_than_some_is_kept_in_memory_for_the_index(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(written, "_MOST", 2000)
    await talk(store.history("alice", "s1"), "short")
    await talk(store.history("alice", "s2"), "long " * 1000)
    known = store.indices._changed.of[file_name("alice")]
    assert [known[f"{file_name(name)}.jsonl"] is None for name in ("s1", "s2")] == [False, True]
    assert await follow(store) > 0
    told = content(store)
    assert told == await read_anew(store)

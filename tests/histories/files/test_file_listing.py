"""The file store's lists and searches: what its index says is what the logs say, whatever happens to either."""

from __future__ import annotations

import os
import random
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta, tzinfo
from pathlib import Path

import pytest
from langchain_core.messages import HumanMessage
from typing_extensions import override

from histories import codec, model
from histories.base import HistoryDamaged, NewTurn, Session, SessionHistory, Turn, now
from histories.files.disk import Disk
from histories.files.find import find_sessions
from histories.files.index_file import INDEX, memory_index
from histories.files.names import file_name
from histories.files.store import FileStore
from histories.search import Text, hits
from tests.files import folder_of, found, recalled
from tests.stores import FAILED, all_sessions, all_turns, begun, replied, said, talk

WITHIN_S = 60


class Counting(Disk):
    """Counts how often a log is opened to be read."""

    opened = 0

    @override
    def open(self, folder: int, name: str, flags: int) -> int:
        self.opened += name.endswith(".jsonl")
        return super().open(folder, name, flags)


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return _store(tmp_path)


pytestmark = pytest.mark.usefixtures("closes_what_it_opens")


def _store(tmp_path: Path, disk: Disk | None = None) -> FileStore:
    return FileStore(tmp_path / "histories", fsync=False, disk=disk)


def _index(store: FileStore) -> Path:
    return folder_of(store) / INDEX


def _overwrite(path: Path, content: bytes) -> None:
    """Gives a file other content, with nothing but the time of the change itself to tell it by."""
    before = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(before.st_mtime_ns, before.st_mtime_ns))


WORDS = ["alpha", "beta", "ÜBER", "😀"]


async def step(dice: random.Random, history: SessionHistory) -> None:
    """Something that may happen to a session."""
    turns, word = await all_turns(history), dice.choice(WORDS)
    kinds = ["turn", "turn", "turn", "rename", "rewind", "keep", "choose", "version", "retry", "forget", "delete"]
    kind = dice.choice([*kinds, "again"])
    if kind == "turn" or not turns:
        await talk(history, word, reply=dice.choice([replied(dice.choice(WORDS)), FAILED]))
    elif kind == "rename":
        await history.rename(word)
    elif kind in ("rewind", "keep"):
        await history.rewind(dice.choice(turns).turn_id, keep=kind == "keep")
    elif kind == "choose":
        versions = [one for turn in turns for one in turn.versions]
        if versions:
            await history.choose(dice.choice(versions))
    elif kind == "version":
        await _answer(history, NewTurn(input=[HumanMessage(word)], version_of=dice.choice(turns).turn_id), dice)
    elif kind == "retry":
        await _answer(history, said("once more", turn_id=dice.choice(turns).turn_id), dice)
    elif kind == "forget":
        await history.delete_turn(dice.choice(turns).turn_id)
    else:
        created_at = (await history.info()).created_at
        await history.delete()
        if kind == "again":  # of the same time and length, and often with the same inode
            turn = replace(turns[-1], input=[HumanMessage(dice.choice(["alpha", "gamma"]))])
            await history.restore([turn], title="again", created_at=created_at)


async def _answer(history: SessionHistory, new: NewTurn, dice: random.Random) -> None:
    turn = await history.begin(new)
    if not isinstance(turn, Turn):
        await turn.end(dice.choice([replied(dice.choice(WORDS)), FAILED]))


async def as_the_logs_say(store: FileStore, query: str) -> list[tuple[str, list[str]]]:
    """In which sessions a query is found, and in which turns: by the records alone."""
    found = []
    for session in await list_without_an_index(store):
        try:
            turns = await all_turns(store.history("alice", session.session_id))
        except HistoryDamaged:
            continue
        texts = [Text(turn.turn_id, codec.text_of([*turn.input, *turn.output])) for turn in turns]
        where = hits(query, session.title, texts)
        if where is not None:
            found.append((session.session_id, [hit.turn_id for hit in where]))
    return found


async def list_without_an_index(store: FileStore) -> list[Session]:
    def read() -> list[Session]:
        with store.folder(file_name("alice")) as folder, closing(memory_index()) as index:
            return find_sessions(index, store.disk, folder, limit=1000, before=None, query=None).items

    return await store.call(read)


@pytest.mark.parametrize("seed", range(6))
async def test_what_anybody_does_to_the_files_is_seen_at_once(store: FileStore, tmp_path: Path, seed: int) -> None:
    """An index that follows the logs says, after each step, what the logs do."""
    dice, other = random.Random(seed), _store(tmp_path)
    if seed % 2:
        await other.open()

    async def agree() -> None:
        assert await all_sessions(store, "alice") == await list_without_an_index(store)
        for query in (*WORDS, "gamma", "once", "al be"):
            found = await all_sessions(store, "alice", query=query)
            where = [(session.session_id, [hit.turn_id for hit in session.hits]) for session in found]
            assert where == await as_the_logs_say(store, query)

    for _ in range(20):
        await step(dice, dice.choice([store, other]).history("alice", dice.choice(["s1", "s2", "s3"])))
        await agree()
        for path in [*folder_of(store).glob("*.jsonl")][:1]:
            content, place = path.read_bytes(), dice.randrange(path.stat().st_size - 1)
            _overwrite(path, content[:place] + b"#" + content[place + 1 :])
            assert await all_sessions(store, "alice") == await list_without_an_index(store)
            _overwrite(path, content)
        await agree()
    await other.forget("alice")
    assert await found(store) == []
    assert not _index(store).exists()
    await other.close()
    await store.close()


async def test_a_turn_that_began_before_anybody_looked_is_seen_to_end(store: FileStore, tmp_path: Path) -> None:
    other = _store(tmp_path)
    turn = await begun(other.history("alice", "s1"), "hello")
    assert await found(store, "goodbye") == []
    assert await found(store, "hello") == ["s1"]
    await turn.end(replied("goodbye"))
    assert await found(store, "goodbye") == ["s1"]
    await other.close()
    await store.close()


async def test_nobody_finds_what_another_said(store: FileStore) -> None:
    await talk(store.history("alice", "s1"), "a secret")
    await talk(store.history("bob", "s1"), "hello")
    for _ in range(2):
        assert await found(store, "secret") == ["s1"]
        assert await found(store, "secret", "bob") == []
        assert await found(store, "hello", "bob") == ["s1"]
    await store.close()


async def test_a_search_may_go_over_several_texts_of_a_turn(store: FileStore) -> None:
    history = store.history("alice", "s1")
    await talk(history, "same", reply=replied("same"))
    await talk(history, "one", reply=replied("two"))
    for _ in range(2):
        for query in ("SAME\nsame", "on\nTW", "two same"):
            assert await found(store, query) == ["s1"]
        assert await found(store, "same\nne") == await found(store, "one\nthree") == []
    await store.close()


async def test_what_was_read_once_is_not_read_again_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("histories.files.looks._SETTLED_NS", -1_000_000_000)
    disk = Counting()
    store = _store(tmp_path, disk)
    for place in range(20):
        await talk(store.history("alice", f"s{place}"), f"hello {place}")

    async def opened(query: str | None) -> int:
        disk.opened = 0
        await store.sessions("alice", query=query)
        return disk.opened

    assert await opened(None) == 20
    assert await opened("nothing") == 20
    assert await opened("nothing else") == await opened(None) == 0
    assert await opened("hello 7") == 1  # for what is shown of it: in 17 there is a 7, too, but no word begins with it
    await talk(store.history("alice", "s3"), "more")
    assert await opened("nothing") == 2
    await store.close()
    another = _store(tmp_path, disk)
    assert await opened("nothing") == 0  # another process has no need to, either
    await another.close()
    await store.close()


async def test_of_a_long_log_only_what_was_added_is_read(tmp_path: Path) -> None:
    class Weighing(Disk):
        read_bytes = 0

        @override
        def read(self, descriptor: int, size: int, offset: int) -> bytes:
            data = super().read(descriptor, size, offset)
            self.read_bytes += len(data)
            return data

    disk = Weighing()
    store = _store(tmp_path, disk)
    history = store.history("alice", "s1")
    await history.restore([await _turn(store, f"t{number}") for number in range(60)], title="x", created_at=_AT)
    await recalled(store, "words", "s1")
    await talk(history, "novelty")
    disk.read_bytes = 0
    assert len(await recalled(store, "novelty", "s1")) == 1
    assert disk.read_bytes < 400_000 < (folder_of(store) / f"{file_name('s1')}.jsonl").stat().st_size
    await store.close()


async def _turn(store: FileStore, turn_id: str) -> Turn:
    return Turn(
        turn_id=turn_id, status=replied("").status, chain="chat", started_at=_AT, ended_at=_AT,
        input=[HumanMessage("words " * 3000)], output=replied("re").output,
    )  # fmt: skip


_AT = now()


async def test_a_session_that_vanishes_while_it_is_searched_is_passed_by(tmp_path: Path) -> None:
    class Vanishing(Disk):
        @override
        def open(self, folder: int, name: str, flags: int) -> int:
            if name == f"{file_name('s2')}.jsonl" and flags == os.O_RDONLY:
                raise FileNotFoundError(2, "gone")
            return super().open(folder, name, flags)

    store = _store(tmp_path, Vanishing())
    for name in ("s1", "s2"):
        await talk(store.history("alice", name), "hello")
    assert await found(store, "hello") == ["s1"]
    await store.close()


async def test_a_backup_without_the_times_of_its_files_is_listed_in_order(store: FileStore) -> None:
    for name in ("s1", "s2", "s3", "s1"):
        await talk(store.history("alice", name), "hello")
    before = await all_sessions(store, "alice")
    assert [session.session_id for session in before] == ["s1", "s3", "s2"]
    folder = Path(store.path) / file_name("alice")
    for log in sorted(folder.glob("*.jsonl")):
        os.utime(log)
    store.indices.close()
    (folder / INDEX).unlink()
    assert await all_sessions(store, "alice") == before
    store.indices.close()


async def test_a_clock_that_is_set_back_takes_no_session_down_the_list(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("s1", "s2"):
        await talk(store.history("alice", name), "hello")

    class SetBack(datetime):
        @override
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) - timedelta(hours=1)

    monkeypatch.setattr(model, "datetime", SetBack)
    await talk(store.history("alice", "s1"), "used last")
    assert [session.session_id for session in await all_sessions(store, "alice")] == ["s1", "s2"]
    turns = await all_turns(store.history("alice", "s1"))
    assert turns[0].started_at < turns[1].started_at
    store.indices.close()

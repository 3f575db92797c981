"""The file store's lists and searches: what its index says is what the logs say, whatever happens to either."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta, tzinfo
from functools import partial
from pathlib import Path

import pytest
from langchain_core.messages import HumanMessage
from typing_extensions import override

from histories import codec, model
from histories.base import HistoryDamaged, NewTurn, Session, SessionHistory, Turn, now
from histories.files import index_file
from histories.files.disk import Disk
from histories.files.find import find_sessions
from histories.files.index_file import INDEX, memory_index
from histories.files.names import file_name
from histories.files.store import FileStore
from histories.search import Text, hits
from tests.files import folder_of
from tests.stores import FAILED, all_sessions, all_turns, begun, replied, said, talk

WITHIN_S = 20


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


async def _found(store: FileStore, query: str | None = None, user: str = "alice") -> list[str]:
    return [session.session_id for session in await all_sessions(store, user, limit=2, query=query)]


async def _recalled(store: FileStore, query: str, session: str | None = None) -> list[str]:
    return [one.turn.turn_id for one in await store.recall("alice", query, session_id=session)]


def _index(store: FileStore) -> Path:
    return folder_of(store) / INDEX


def _bytes_of_index(store: FileStore) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder_of(store).glob(f"{INDEX}*")))


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not condition():
            await asyncio.sleep(0.01)


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
    assert await _found(store) == []
    assert not _index(store).exists()
    await other.close()
    await store.close()


async def test_a_turn_that_began_before_anybody_looked_is_seen_to_end(store: FileStore, tmp_path: Path) -> None:
    other = _store(tmp_path)
    turn = await begun(other.history("alice", "s1"), "hello")
    assert await _found(store, "goodbye") == []
    assert await _found(store, "hello") == ["s1"]
    await turn.end(replied("goodbye"))
    assert await _found(store, "goodbye") == ["s1"]
    await other.close()
    await store.close()


async def test_nobody_finds_what_another_said(store: FileStore) -> None:
    await talk(store.history("alice", "s1"), "a secret")
    await talk(store.history("bob", "s1"), "hello")
    for _ in range(2):
        assert await _found(store, "secret") == ["s1"]
        assert await _found(store, "secret", "bob") == []
        assert await _found(store, "hello", "bob") == ["s1"]
    await store.close()


async def test_a_search_may_go_over_several_texts_of_a_turn(store: FileStore) -> None:
    history = store.history("alice", "s1")
    await talk(history, "same", reply=replied("same"))
    await talk(history, "one", reply=replied("two"))
    for _ in range(2):
        for query in ("SAME\nsame", "on\nTW", "two same"):
            assert await _found(store, query) == ["s1"]
        assert await _found(store, "same\nne") == await _found(store, "one\nthree") == []
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
    await _recalled(store, "words", "s1")
    await talk(history, "novelty")
    disk.read_bytes = 0
    assert len(await _recalled(store, "novelty", "s1")) == 1
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
    assert await _found(store, "hello") == ["s1"]
    await store.close()


# The index is derived: whatever becomes of it, lists and searches say what the logs do.


def _garbage(path: Path) -> None:
    path.write_bytes(b"garbage " * 4096)


def _holes(path: Path) -> None:
    """Damages pages in the middle, which SQLite sees only when it comes to them."""
    data = bytearray(path.read_bytes())
    for start in range(4096, len(data), 4096):
        data[start : start + 2048] = b"\xff" * 2048
    path.write_bytes(data)


def _other_version(path: Path) -> None:
    with closing(sqlite3.connect(path)) as index:
        index.execute("PRAGMA user_version = 77")


@pytest.mark.parametrize("spoil", [Path.unlink, _garbage, _holes, _other_version, partial(os.truncate, length=5000)])
async def test_an_index_that_is_lost_or_damaged_is_made_anew(
    tmp_path: Path, store: FileStore, spoil: Callable[[Path], None]
) -> None:
    ids = await talk(store.history("alice", "s1"), "hello", "goodbye")
    assert await _found(store, "hello") == ["s1"]
    await store.close()
    spoil(_index(store))
    store = _store(tmp_path)
    assert await _found(store, "goodbye") == await _found(store) == ["s1"]
    assert await _recalled(store, "goodbye") == ids[1:]
    await store.close()
    assert await _found(store, "goodbye") == ["s1"]
    with closing(sqlite3.connect(_index(store))) as index:
        assert index.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    await store.close()


async def test_an_index_that_others_write_to_for_long_holds_nobody_up(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("histories.files.index_file._BUSY_S", 0.05)
    history = store.history("alice", "s1")
    ids = await talk(history, "hello")
    assert await _found(store, "hello") == ["s1"]
    await store.close()
    with closing(sqlite3.connect(_index(store), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        ids += await talk(history, "goodbye")
        assert await _found(store, "goodbye") == await _found(store) == ["s1"]
        assert await _recalled(store, "goodbye", "s1") == ids[1:]
        await history.rewind(ids[1])
        assert await _found(store, "goodbye") == await _recalled(store, "goodbye") == []
        other.execute("ROLLBACK")
    assert await _found(store, "goodbye") == []
    await store.close()


async def test_where_no_index_can_be_the_logs_are_read(store: FileStore) -> None:
    ids = await talk(store.history("alice", "s1"), "hello")
    _index(store).mkdir()
    assert await _found(store, "hello") == await _found(store) == ["s1"]
    assert await _recalled(store, "hello") == ids
    await store.history("alice", "s1").rewind(ids[0])
    await store.close()


async def test_only_its_owner_may_read_an_index(store: FileStore) -> None:
    await store.open()
    await talk(store.history("alice", "s1"), "hello")
    assert await _found(store, "hello") == ["s1"]
    files = [*folder_of(store).glob(f"{INDEX}*")]
    assert len(files) == 3
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    await store.close()


@pytest.mark.parametrize("watched", [True, False], ids=["of a server", "of a command"])
async def test_what_is_forgotten_is_gone_from_the_index_too(store: FileStore, watched: bool) -> None:
    if watched:
        await store.open()
    history, other = store.history("alice", "s1"), store.history("alice", "s2")
    _, *ids = await talk(history, "the title", "zanzibar", "quokka", "xylophone", "persist")
    await talk(other, "marzipan")
    for query in ("zanzibar", "marzipan"):
        assert len(await _found(store, query)) == 1
    assert b"xylophone" in _bytes_of_index(store)
    await history.delete_turn(ids[0])
    await history.rewind(ids[2])
    await other.delete()
    for word in (b"zanzibar", b"xylophone", b"marzipan"):
        await _until(lambda gone=word: gone not in _bytes_of_index(store))  # type: ignore[misc]
    assert b"quokka" in _bytes_of_index(store)
    await store.close()


async def test_what_ends_comes_into_an_index_that_is_there_without_a_question(store: FileStore) -> None:
    await store.open()
    await talk(store.history("alice", "s1"), "hello")
    assert await _found(store, "hello") == ["s1"]
    await talk(store.history("alice", "s1"), "zanzibar")
    await _until(lambda: b"zanzibar" in _bytes_of_index(store))
    await store.close()


async def test_many_who_ask_and_write_at_once_all_hear_what_is_there(store: FileStore, tmp_path: Path) -> None:
    stores = [store, _store(tmp_path), _store(tmp_path)]
    for one in stores:
        await one.open()

    async def talks(number: int) -> None:
        one = stores[number % 3]
        for turn in range(4):
            word = f"word{number}x{turn}"
            ids = await talk(one.history("alice", f"s{number}"), word)
            assert await _found(stores[(number + turn) % 3], word) == [f"s{number}"]
            assert await _recalled(stores[turn % 3], word, f"s{number}") == ids
        await one.history("alice", f"s{number}").delete()
        assert await _found(stores[(number + 1) % 3], f"word{number}x0") == []

    await asyncio.gather(*(talks(number) for number in range(6)))
    for one in stores:
        await one.close()


async def test_an_sqlite_without_fts5_finds_the_same(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        await talk(store.history("alice", f"s{number}"), f"lanterns and stones {number}", "harbours")
    await talk(store.history("alice", "s4"), "stone by stone 日本")

    async def answers() -> object:
        found = [
            await all_sessions(store, "alice", query=query) for query in ("stone", "STONE lant", "日本", "nowhere")
        ]
        recalled = await store.recall("alice", "which stones?", limit=20)
        of_one = await store.recall("alice", "harbour", session_id="s2")
        return found, [sorted((one.session_id, one.turn.turn_id) for one in some) for some in (recalled, of_one)]

    with_fts5 = await answers()
    monkeypatch.setattr(index_file, "has_fts5", lambda: False)
    store.indices.close()
    assert await answers() == with_fts5
    await store.history("alice", "s4").delete()
    assert await all_sessions(store, "alice", query="日本") == []
    monkeypatch.undo()
    store.indices.close()
    assert len(await _found(store, "stone")) == 4
    store.indices.close()


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

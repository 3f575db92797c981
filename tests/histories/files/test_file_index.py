"""The file store's index is derived: whatever becomes of it, lists and searches say what the logs do."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from histories.files import index_file
from histories.files.index_file import INDEX
from histories.files.store import FileStore
from tests.files import bytes_of_index, folder_of, found, recalled
from tests.stores import all_sessions, talk, until

pytestmark = pytest.mark.usefixtures("closes_what_it_opens")

WITHIN_S = 60


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "histories", fsync=False)


def _index(store: FileStore) -> Path:
    return folder_of(store) / INDEX


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
    assert await found(store, "hello") == ["s1"]
    await store.close()
    spoil(_index(store))
    store = FileStore(tmp_path / "histories", fsync=False)
    assert await found(store, "goodbye") == await found(store) == ["s1"]
    assert await recalled(store, "goodbye") == ids[1:]
    await store.close()
    assert await found(store, "goodbye") == ["s1"]
    with closing(sqlite3.connect(_index(store))) as index:
        assert index.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    await store.close()


async def test_an_index_that_others_write_to_for_long_holds_nobody_up(
    store: FileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("histories.files.index_file._BUSY_S", 0.05)
    history = store.history("alice", "s1")
    ids = await talk(history, "hello")
    assert await found(store, "hello") == ["s1"]
    await store.close()
    with closing(sqlite3.connect(_index(store), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        ids += await talk(history, "goodbye")
        assert await found(store, "goodbye") == await found(store) == ["s1"]
        assert await recalled(store, "goodbye", "s1") == ids[1:]
        await history.rewind(ids[1])
        assert await found(store, "goodbye") == await recalled(store, "goodbye") == []
        other.execute("ROLLBACK")
    assert await found(store, "goodbye") == []
    await store.close()


async def test_where_no_index_can_be_the_logs_are_read(store: FileStore) -> None:
    ids = await talk(store.history("alice", "s1"), "hello")
    _index(store).mkdir()
    assert await found(store, "hello") == await found(store) == ["s1"]
    assert await recalled(store, "hello") == ids
    await store.history("alice", "s1").rewind(ids[0])
    await store.close()


async def test_only_its_owner_may_read_an_index(store: FileStore) -> None:
    await store.open()
    await talk(store.history("alice", "s1"), "hello")
    assert await found(store, "hello") == ["s1"]
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
        assert len(await found(store, query)) == 1
    assert b"xylophone" in bytes_of_index(store)
    await history.delete_turn(ids[0])
    await history.rewind(ids[2])
    await other.delete()
    for word in (b"zanzibar", b"xylophone", b"marzipan"):
        await until(lambda gone=word: gone not in bytes_of_index(store), WITHIN_S)  # type: ignore[misc]
    assert b"quokka" in bytes_of_index(store)
    await store.close()


async def test_what_ends_comes_into_an_index_that_is_there_without_a_question(store: FileStore) -> None:
    await store.open()
    await talk(store.history("alice", "s1"), "hello")
    assert await found(store, "hello") == ["s1"]
    await talk(store.history("alice", "s1"), "zanzibar")
    await until(lambda: b"zanzibar" in bytes_of_index(store), WITHIN_S)
    await store.close()


async def test_many_who_ask_and_write_at_once_all_hear_what_is_there(store: FileStore, tmp_path: Path) -> None:
    stores = [store, FileStore(tmp_path / "histories", fsync=False), FileStore(tmp_path / "histories", fsync=False)]
    for one in stores:
        await one.open()

    async def talks(number: int) -> None:
        one = stores[number % 3]
        for turn in range(4):
            word = f"word{number}x{turn}"
            ids = await talk(one.history("alice", f"s{number}"), word)
            assert await found(stores[(number + turn) % 3], word) == [f"s{number}"]
            assert await recalled(stores[turn % 3], word, f"s{number}") == ids
        await one.history("alice", f"s{number}").delete()
        assert await found(stores[(number + 1) % 3], f"word{number}x0") == []

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
    assert len(await found(store, "stone")) == 4
    store.indices.close()

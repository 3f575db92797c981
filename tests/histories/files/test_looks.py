"""Among many sessions those alone are asked about that may have changed: whatever the store's processes do is seen."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from histories.base import Feedback
from histories.files import catch_up, looks
from histories.files.check import check_main
from histories.files.index_file import INDEX
from histories.files.names import file_name
from histories.files.store import FileStore
from tests.files import folder_of, log_of
from tests.histories.files.test_file_listing import WORDS, as_the_logs_say, list_without_an_index, step
from tests.processes import other
from tests.stores import all_sessions, begun, replied, talk

SETTLED_S = 0.03

pytestmark = pytest.mark.usefixtures("closes_what_it_opens")


@pytest.fixture(autouse=True)
def _sessions_are_many_and_soon_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "_FEW", -1)
    monkeypatch.setattr(looks, "_SETTLED_NS", int(SETTLED_S * 1e9))
    # One look sees all, on a slow machine, too: what is left for later would be asked about again.
    monkeypatch.setattr("histories.files.find._LOOK_S", 60.0)
    monkeypatch.setattr("histories.files.find._SEARCH_S", 60.0)


@pytest.fixture
async def store(tmp_path: Path) -> FileStore:
    """One of a server: those that are not open look at all."""
    store = _store(tmp_path)
    await store.open()
    return store


def _store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "histories", fsync=False)


async def _found(store: FileStore, query: str | None = None) -> list[str]:
    return [session.session_id for session in await all_sessions(store, "alice", query=query)]


async def _settled(store: FileStore) -> None:
    """All is in the index, and nothing in doubt, but for sessions that are open."""
    await asyncio.sleep(2 * SETTLED_S)
    await _found(store, "nothing")


@contextmanager
def _asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The logs that the system is asked about."""
    asked, stat = list[str](), os.stat

    def asking(path: Any, *args: Any, **rest: Any) -> os.stat_result:
        if str(path).endswith(".jsonl"):
            asked.append(str(path))
        return stat(path, *args, **rest)

    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", asking)
        yield asked


async def _put_back(tmp_path: Path, words: str) -> None:
    """Somebody overwrites a log with another one, which says this."""
    elsewhere = FileStore(tmp_path / "backup", fsync=False)
    await talk(elsewhere.history("alice", "s1"), words)
    await elsewhere.close()
    log_of(tmp_path / "histories").write_bytes(log_of(tmp_path / "backup").read_bytes())


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_the_stores_of_several_servers_do_is_seen_at_once(
    store: FileStore, tmp_path: Path, seed: int
) -> None:
    dice, another, command = random.Random(seed), _store(tmp_path), _store(tmp_path)
    await another.open()

    async def agree() -> None:
        assert await all_sessions(store, "alice") == await list_without_an_index(store)
        for query in (*WORDS, "gamma", "once"):
            found = await all_sessions(store, "alice", query=query)
            where = [(session.session_id, [hit.turn_id for hit in session.hits]) for session in found]
            assert where == await as_the_logs_say(store, query)

    for number in range(24):
        by = dice.choice([store, another, command])
        history = by.history("alice", dice.choice(["s1", "s2", "s3"]))
        await step(dice, history)
        if number % 4 == 3:  # its files are put away, as those of sessions that nobody comes back to
            by.put_away_now(by.open_sessions.take_stale(all_of_them=True))
        await agree()
        await _settled(store)
        await agree()
    for one in (store, another, command):
        await one.close()


async def test_only_what_may_have_changed_is_asked_about(
    store: FileStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = _store(tmp_path)
    for number in range(20):
        await talk(command.history("alice", f"s{number}"), f"hello {number}")
    assert len(await _found(store, "hello")) == 20
    await _settled(store)
    with _asked(monkeypatch) as asked:
        assert len(await _found(store, "hello")) == len(await _found(store)) == 20
    assert asked == []
    await talk(command.history("alice", "s3"), "goodbye")
    with _asked(monkeypatch) as asked:
        assert await _found(store, "goodbye") == ["s3"]
    assert {*asked} == {f"{file_name('s3')}.jsonl"}
    await command.close()
    await store.close()


@pytest.mark.parametrize("what", ["hold", "talk"])
async def test_what_a_server_said_before_it_was_killed_is_seen(store: FileStore, tmp_path: Path, what: str) -> None:
    await talk(store.history("alice", "s0"), "hello")
    await _settled(store)
    with other(
        f"file:{tmp_path / 'histories'}", what, *(["s1", "zebra"] if what == "hold" else ["zebra", "s1"])
    ) as one:
        told = [await one.tells()]
        while what == "talk" and told[-1] != ("ended", "zebra-3"):
            told.append(await one.tells())
        one.kill()
    for _ in range(2):
        assert await _found(store, "zebra") == ["s1"]
        await _settled(store)
    await talk(store.history("alice", "s1"), "quagga")
    assert await _found(store, "quagga") == ["s1"]
    await store.close()


async def test_a_title_and_a_thumb_that_are_given_while_a_turn_runs_elsewhere_are_seen(
    store: FileStore, tmp_path: Path
) -> None:
    another = _store(tmp_path)
    (turn_id,) = await talk(another.history("alice", "s1"), "hello")
    await _settled(store)
    turn = await begun(another.history("alice", "s1"), "more")
    await another.history("alice", "s1").rename("zebras")
    assert await _found(store, "zebras") == ["s1"]
    await another.history("alice", "s1").feedback(turn_id, Feedback(score=1, comment=""))
    await turn.end(replied("quagga"))
    assert await _found(store, "quagga") == ["s1"]
    await _settled(store)
    await another.history("alice", "s1").rename("okapis")
    assert await _found(store, "okapis") == ["s1"]
    assert not [*folder_of(store).glob("*.tmp")]
    await another.close()
    await store.close()


async def test_where_the_index_can_not_be_told_the_file_that_tells_stays(
    store: FileStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("histories.files.index_file._BUSY_S", 0.05)
    command = _store(tmp_path)
    history = command.history("alice", "s1")
    await talk(history, "hello")
    await _settled(store)
    with closing(sqlite3.connect(folder_of(store) / INDEX, isolation_level=None)) as busy:
        busy.execute("BEGIN IMMEDIATE")
        await talk(history, "zebra")
        await history.rename("quagga")
        busy.execute("ROLLBACK")
    assert {path.suffix for path in folder_of(store).glob(f"{file_name('s1')}*")} == {".jsonl", ".turn", ".tmp"}
    for query in ("zebra", "quagga"):
        assert await _found(store, query) == ["s1"]
    await talk(history, "okapi")
    assert await _found(store, "okapi") == ["s1"]
    await command.close()
    await store.close()


async def test_a_log_that_changes_while_it_is_read_is_not_taken_for_read(
    store: FileStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its writer is done with it before what was read comes into the index."""
    command, entry_of, loop, words = _store(tmp_path), catch_up._entry_of, asyncio.get_running_loop(), ["zebra"]
    history = command.history("alice", "s1")
    await talk(history, "hello")
    await asyncio.sleep(2 * SETTLED_S)

    def slowly(*args: Any) -> Any:
        row = entry_of(*args)
        if words:
            asyncio.run_coroutine_threadsafe(talk(history, words.pop()), loop).result(60)
        return row

    monkeypatch.setattr(catch_up, "_entry_of", slowly)
    await _found(store)
    for _ in range(2):
        assert [session.turns for session in await all_sessions(store, "alice")] == [2]
        assert await _found(store, "zebra") == ["s1"]
        await _settled(store)
    await command.close()
    await store.close()


async def test_with_another_start_of_the_system_all_logs_are_asked_about(
    store: FileStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power cut takes from an index what it was told last."""
    await talk(store.history("alice", "s1"), "hello")
    await store.close()
    store = _store(tmp_path)
    await store.open()
    await _settled(store)
    await _put_back(tmp_path, "zebra")
    assert await _found(store, "zebra") == []
    monkeypatch.setattr(looks, "_start_of_system", lambda: 77)
    assert await _found(store, "zebra") == ["s1"]
    await store.close()


@pytest.mark.parametrize("seen_by", ["age", "repair"])
async def test_what_somebody_else_does_to_a_log_is_seen_soon(
    store: FileStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen_by: str
) -> None:
    command = _store(tmp_path)
    await talk(command.history("alice", "s1"), "hello")
    await _settled(store)
    await _put_back(tmp_path, "zebra")
    assert await _found(store, "zebra") == []
    if seen_by == "age":
        monkeypatch.setattr(looks, "_LOOK_AGAIN_S", 0.0)
    else:
        check_main(str(tmp_path / "histories"), True, StringIO())
    async with asyncio.timeout(60):
        while await _found(store, "zebra") != ["s1"]:
            await asyncio.sleep(0.01)
    await command.close()
    await store.close()

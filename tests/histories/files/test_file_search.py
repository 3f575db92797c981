"""Thousands of sessions that no index has yet, as after an import: nobody waits until all of them are in it."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from langchain_core.messages import HumanMessage
from typing_extensions import override

from histories.base import Turn, now
from histories.files.disk import Disk
from histories.files.store import FileStore
from tests.files import bytes_of_index, found
from tests.stores import replied, talk, until

pytestmark = pytest.mark.usefixtures("closes_what_it_opens")

WITHIN_S = 60
_AT = now()


def _store(tmp_path: Path, disk: Disk | None = None) -> FileStore:
    return FileStore(tmp_path / "histories", fsync=False, disk=disk)


class Late(Disk):
    """Every log takes a moment to be opened, so that little is read in the time that a search has."""

    opened = 0
    late_s = 0.0

    @override
    def open(self, folder: int, name: str, flags: int) -> int:
        if name.endswith(".jsonl"):
            self.opened += 1
            time.sleep(self.late_s)
        return super().open(folder, name, flags)


async def _imported(store: FileStore, number: int, words: str, at: datetime) -> None:
    turn = Turn(
        turn_id="t1", status=replied("").status, chain="chat", started_at=at, ended_at=at,
        input=[HumanMessage(words)], output=replied("re").output,
    )  # fmt: skip
    await store.history("alice", f"s{number:03}").restore([turn], title=f"Title {number}", created_at=at)


async def _import(store: FileStore, count: int) -> list[str]:
    """Sessions of which each third has an emoji and each fourth the word; gives the names of the latter."""
    for number in range(count):
        words = ("Über 🙂 " if number % 3 == 0 else "plain ") + ("needle" if number % 4 == 0 else "hay")
        await _imported(store, number, words, _AT - timedelta(minutes=count - number))
    return [f"s{number:03}" for number in reversed(range(count)) if number % 4 == 0]


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("histories.files.find._LOOK_S", 0.0)
    monkeypatch.setattr("histories.files.find._SEARCH_S", 0.0)
    monkeypatch.setattr("histories.files.catch_up._PART", 4)


@pytest.mark.usefixtures("hurried")
async def test_a_search_gives_what_it_has_in_its_time_and_goes_on_where_it_ended(tmp_path: Path) -> None:
    store = _store(tmp_path)
    with_needle = await _import(store, 60)
    everything = [f"s{number:03}" for number in reversed(range(60))]
    await store.open()
    store.build_later = lambda user: None  # type: ignore[method-assign]  # nobody helps
    first = await store.sessions("alice", query="needle")
    assert first.next is not None
    assert len(first.items) < 15
    for _ in range(2):  # with an index that has more and more of it
        assert await found(store, "needle") == with_needle
        assert await found(store, "NEED uber") == [name for name in with_needle if int(name[1:]) % 3 == 0]
        assert await found(store, "🙂") == [name for name in everything if int(name[1:]) % 3 == 0]
        assert await found(store, "nowhere") == await found(store, "!?") == []
        assert await found(store) == everything
    await store.close()


@pytest.mark.usefixtures("hurried")
async def test_what_nobody_indexed_is_indexed_in_the_background_and_found_whole_then(tmp_path: Path) -> None:
    store = _store(tmp_path)
    with_needle = await _import(store, 60)
    await store.open()
    assert (await store.sessions("alice", query="needle")).next is not None

    async def all_at_once() -> bool:
        page = await store.sessions("alice", limit=100, query="needle")
        return page.next is None and [one.session_id for one in page.items] == with_needle

    async with asyncio.timeout(WITHIN_S):
        while not await all_at_once():
            await asyncio.sleep(0.01)
    assert len(await store.recall("alice", "needle", limit=100)) == 15
    await store.close()


async def test_an_import_of_many_comes_into_an_index_without_a_question(tmp_path: Path) -> None:
    store = _store(tmp_path)
    await store.open()
    await _import(store, 40)
    await until(lambda: b"needle" in bytes_of_index(store), WITHIN_S)
    await store.close()


async def test_a_search_of_very_many_waits_for_no_log_after_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("histories.files.catch_up._PART", 4)
    disk = Late()
    store = _store(tmp_path, disk)
    await _import(store, 200)
    await store.open()
    store.build_later = lambda user: None  # type: ignore[method-assign]
    disk.opened, disk.late_s = 0, 0.02
    page = await store.sessions("alice", query="nowhere")
    assert page.items == []
    assert page.next is not None
    assert disk.opened < 100
    disk.late_s = 0
    await store.close()


async def test_while_an_index_is_built_others_are_found_and_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One thread builds for all: each user in turn, and a store that closes waits for none of them to end."""
    monkeypatch.setattr("histories.files.catch_up._PART", 4)
    disk = Late()
    store = _store(tmp_path, disk)
    await _import(store, 300)
    await store.open()
    await talk(store.history("bob", "s1"), "hello")
    assert await found(store, "hello", "bob") == ["s1"]
    disk.late_s = 0.02
    await store.sessions("alice", query="needle")
    await talk(store.history("bob", "s1"), "zanzibar")
    await until(lambda: b"zanzibar" in bytes_of_index(store, "bob"), WITHIN_S)
    assert len((await store.sessions("alice", limit=1000, query="needle")).items) < 75
    async with asyncio.timeout(WITHIN_S):
        await store.close()

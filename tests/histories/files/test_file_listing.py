"""The file store's lists and searches: what it remembers of files never makes them wrong, and takes bounded memory."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from typing_extensions import override

from histories import codec
from histories.base import SessionHistory, Turn, TurnStatus, now
from histories.files.disk import Disk
from histories.files.folders import Folder, Folders
from histories.files.names import file_name
from histories.files.session_lines import session_lines
from histories.files.store import FileStore
from histories.files.watch import Watch
from histories.files.words import traces_of, words_of
from tests.files import folder_of, no_descriptor_is_left_open
from tests.histories.test_codec import messages
from tests.stores import FAILED, all_sessions, all_turns, begun, replied, said, talk


class Blind(Watch):
    """As on a file system that can't be watched."""

    @override
    def add(self, folder: int) -> int | None:
        return None


class Counting(Disk):
    """Counts how often a file is opened."""

    opened = 0

    @override
    def open(self, folder: int, name: str, flags: int) -> int:
        self.opened += 1
        return super().open(folder, name, flags)


@pytest.fixture(params=["watched", "looked at each time"])
async def store(tmp_path: Path, request: pytest.FixtureRequest) -> FileStore:
    return _store(tmp_path, None if request.param == "watched" else Folders(Blind(), settled_s=0.02))


@pytest.fixture(autouse=True)
def _no_descriptor_is_left_open() -> Iterator[None]:
    yield from no_descriptor_is_left_open()


def _store(tmp_path: Path, folders: Folders | None = None, disk: Disk | None = None) -> FileStore:
    store = FileStore(tmp_path / "histories", fsync=False, disk=disk)
    if folders is not None:
        store.folders = folders
    return store


async def _found(store: FileStore, query: str | None = None, user: str = "alice") -> list[str]:
    return [session.session_id for session in await all_sessions(store, user, limit=2, query=query)]


@contextmanager
def _open(path: Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    descriptor = os.open(path, flags | os.O_DIRECTORY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _look(folders: Folders, path: Path) -> Folder:
    with _open(path) as descriptor:
        return folders.look(descriptor)


def _names(folder: Folder) -> list[str]:
    return [file.place[1] for file in folder.newest_first(None)]


def _overwrite(path: Path, content: bytes) -> None:
    """Gives a file other content, with nothing but the time of the change itself to tell it by."""
    before = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(before.st_mtime_ns, before.st_mtime_ns))


_WORDS = ["alpha", "beta", "ÜBER", "😀"]


async def _step(dice: random.Random, history: SessionHistory) -> None:
    """Something that may happen to a session."""
    turns, word = await all_turns(history), dice.choice(_WORDS)
    kind = dice.choice(["turn", "turn", "rename", "rewind", "retry", "delete", "again"])
    if kind == "turn" or not turns:
        await talk(history, word, reply=dice.choice([replied(dice.choice(_WORDS)), FAILED]))
    elif kind == "rename":
        await history.rename(word)
    elif kind == "rewind":
        await history.rewind(dice.choice(turns).turn_id)
    elif kind == "retry":
        retried = await history.begin(said("once more", turn_id=dice.choice(turns).turn_id))
        if not isinstance(retried, Turn):
            await retried.end(replied(word))
    else:
        created_at = (await history.info()).created_at
        await history.delete()
        if kind == "again":  # of the same time and length, and often with the same inode
            turn = replace(turns[-1], input=[HumanMessage(dice.choice(["alpha", "gamma"]))])
            await history.restore([turn], title="again", created_at=created_at)


@pytest.mark.parametrize("seed", range(4))
async def test_what_anybody_does_to_the_files_is_seen_at_once(store: FileStore, tmp_path: Path, seed: int) -> None:
    """A store that remembers tells the same, after each step, as one that has never seen the files."""
    dice, other = random.Random(seed), _store(tmp_path)

    async def agree() -> None:
        fresh = _store(tmp_path)
        for query in (None, *_WORDS, "gamma", "once", "re"):
            assert await all_sessions(store, "alice", query=query) == await all_sessions(fresh, "alice", query=query)
        await fresh.close()

    for _ in range(25):
        await _step(dice, dice.choice([store, other]).history("alice", dice.choice(["s1", "s2", "s3"])))
        await agree()
        for path in [*folder_of(store).glob("*.jsonl")][:1]:
            content, place = path.read_bytes(), dice.randrange(path.stat().st_size - 1)
            _overwrite(path, content[:place] + b"#" + content[place + 1 :])
            await agree()
            _overwrite(path, content)
    await other.forget("alice")
    await agree()
    await other.close()
    await store.close()


async def test_a_turn_that_began_before_anybody_looked_is_seen_to_end(store: FileStore, tmp_path: Path) -> None:
    other = _store(tmp_path)
    turn = await begun(other.history("alice", "s1"), "hello")
    assert await _found(store, "goodbye") == []
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
        assert (
            await _found(store, "SAME\nsame")
            == await _found(store, "on\nTW")
            == await _found(store, "two same")
            == ["s1"]
        )
        assert await _found(store, "same\nne") == await _found(store, "one\nthree") == []
    await store.close()


@pytest.mark.parametrize("watched", [True, False])
async def test_what_was_read_once_is_not_read_again_until_it_changes(tmp_path: Path, watched: bool) -> None:
    disk = Counting()
    store = _store(tmp_path, Folders(None if watched else Blind(), settled_s=-1), disk)
    for place in range(20):
        await talk(store.history("alice", f"s{place}"), f"hello {place}")

    async def opened(query: str) -> int:
        disk.opened = 0
        await _found(store, query)
        return disk.opened

    assert await opened("nothing") == 20
    assert await opened("nothing else") == 0
    assert await opened("hello 7") == 2  # in 17 there is a 7, too, if no word begins with it
    await talk(store.history("alice", "s3"), "more")
    assert await opened("nothing") == 1
    await store.close()
    assert len(store.folders) == store.folders.weight == 0
    assert await opened("nothing") == 20  # a store that was closed may be used again
    await store.close()


async def test_what_may_change_again_unseen_is_read_each_time(tmp_path: Path) -> None:
    disk = Counting()
    store = _store(tmp_path, Folders(Blind()), disk)
    await talk(store.history("alice", "s1"), "hello")
    for _ in range(3):
        disk.opened = 0
        assert await _found(store, "nothing") == []
        assert disk.opened == 1
    await store.close()


@pytest.mark.parametrize("watched", [True, False])
async def test_memory_is_bounded_and_what_does_not_fit_is_read(tmp_path: Path, watched: bool) -> None:
    disk, most = Counting(), 20_000
    folders = Folders(None if watched else Blind(), most_bytes=most, settled_s=-1)
    store = _store(tmp_path, folders, disk)
    for user in ("alice", "bob"):
        for place in range(10):
            await talk(store.history(user, f"s{place}"), f"hello {place} " + f"{user} " * 500)
    for _ in range(2):
        for user in ("alice", "bob"):
            disk.opened = 0
            assert await _found(store, f"{user} {user}", user) == [f"s{place}" for place in range(9, -1, -1)]
            assert await _found(store, "hello 1 ", user) == ["s1"]
            assert 0 < folders.weight <= most
            assert len(folders) == 1  # the one that was listed longer ago is forgotten
            disk.opened = 0
            assert await _found(store, "nothing", user) == []
            assert 0 < disk.opened < 10
    await store.history("alice", "s1").delete()
    for place in range(40):
        await store.history("bob", f"t{place}").restore([], title="x", created_at=now())
    assert len(await _found(store, "x", "bob")) == 40  # these alone are too many
    assert len(folders) == folders.weight == 0
    await store.close()


async def test_a_session_that_vanishes_while_it_is_searched_is_passed_by(tmp_path: Path) -> None:
    class Vanishing(Disk):
        @override
        def open(self, folder: int, name: str, flags: int) -> int:
            if name == f"{file_name('s2')}.jsonl" and flags == os.O_RDONLY:
                raise FileNotFoundError(2, "gone")
            return super().open(folder, name, flags)

    store = _store(tmp_path, disk=Vanishing())
    for name in ("s1", "s2"):
        await talk(store.history("alice", name), "hello")
    assert await _found(store, "hello") == ["s1"]
    await store.close()


def test_only_so_many_folders_are_known(tmp_path: Path) -> None:
    folders = Folders(most_folders=2)
    for name in "abcba":
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / f"{name}.jsonl").touch()
        assert _names(_look(folders, tmp_path / name)) == [f"{name}.jsonl"]
        assert len(folders) <= 2
    folders.clear()


def test_changes_in_a_folder_that_nobody_lists_take_bounded_memory(tmp_path: Path) -> None:
    folders, busy, other = Folders(most_bytes=50_000), tmp_path / "busy", tmp_path / "other"
    for path in (busy, other):
        path.mkdir()
        _look(folders, path)
    for number in range(200):
        (busy / f"{number}.jsonl").touch()
        _look(folders, other)
        assert folders.weight <= 50_000
        assert len(folders) == (2 if number < 78 else 1)
    for path in busy.iterdir():
        path.unlink()
    assert _names(_look(folders, busy)) == []
    assert folders.weight == 0
    folders.clear()


def test_a_folder_that_was_removed_is_forgotten(tmp_path: Path) -> None:
    folders, path = Folders(), tmp_path / "a"
    for number in range(3):
        path.mkdir()
        (path / f"{number}.jsonl").touch()
        assert _names(_look(folders, path)) == [f"{number}.jsonl"]
        (path / f"{number}.jsonl").unlink()
        path.rmdir()
    assert _names(_look(folders, tmp_path)) == []
    assert len(folders) == 1
    folders.clear()


def test_each_kind_of_change_is_seen(tmp_path: Path) -> None:
    folders, path = Folders(), tmp_path / "a.jsonl"

    def size_and_time() -> list[tuple[int, int]]:
        return [(file.mark[1], file.place[0]) for file in _look(folders, tmp_path).newest_first(None)]

    assert size_and_time() == []
    with path.open("ab", buffering=0) as file:
        assert [size for size, _ in size_and_time()] == [0]
        file.write(b"words")
        assert [size for size, _ in size_and_time()] == [5]
        file.truncate(3)
        assert [size for size, _ in size_and_time()] == [3]
        os.utime(file.fileno(), ns=(7, 7))
        assert size_and_time() == [(3, 7)]
    path.rename(tmp_path / "a.tmp")
    assert size_and_time() == []
    (tmp_path / "a.tmp").rename(path)
    assert size_and_time() == [(3, 7)]
    (tmp_path / "b.jsonl").hardlink_to(path)
    assert size_and_time() == [(3, 7)] * 2
    path.unlink()
    assert size_and_time() == [(3, 7)]
    folders.clear()


def test_changes_that_are_too_many_to_be_told_are_seen_all_the_same(tmp_path: Path) -> None:
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    folders, paths = Folders(), [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for path in paths:
        path.touch()
    assert _names(_look(folders, tmp_path)) == ["b.jsonl", "a.jsonl"]
    for number in range(most + 2):
        os.utime(paths[number % 2], ns=(number, number))
    (tmp_path / "c.jsonl").touch()
    paths[0].unlink()
    assert _names(_look(folders, tmp_path)) == ["c.jsonl", "b.jsonl"]
    (tmp_path / "d.jsonl").touch()
    assert len(_names(_look(folders, tmp_path))) == 3
    folders.clear()


def test_a_folder_that_could_not_be_read_is_looked_at_anew(tmp_path: Path) -> None:
    folders = Folders()
    (tmp_path / "a.jsonl").touch()
    with _open(tmp_path, os.O_PATH) as unreadable, pytest.raises(OSError, match="Bad file descriptor"):
        folders.look(unreadable)
    assert _names(_look(folders, tmp_path)) == ["a.jsonl"]
    folders.clear()


def test_what_others_can_change_unseen_is_not_watched() -> None:
    watch = Watch()
    with _open(Path("/proc/self")) as foreign:
        assert watch.add(foreign) is None
    assert list(watch.changes()) == []


@pytest.mark.parametrize("watch", [Watch, Blind])
def test_each_of_many_threads_sees_what_was_done_before(tmp_path: Path, watch: type[Watch]) -> None:
    folders, path, wrong = Folders(watch(), most_bytes=50_000), tmp_path / "a", list[str]()
    path.mkdir()

    def write(name: str) -> None:
        for number in range(200):
            file = path / f"{name}-{number}.jsonl"
            file.touch()
            if file.name not in _names(_look(folders, path)):
                wrong.append(f"{file.name} was made")
            file.unlink()
            if file.name in _names(_look(folders, path)):
                wrong.append(f"{file.name} was removed")
            if number % 50 == 0:
                folders.clear()

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert _names(_look(folders, path)) == []
    folders.clear()


def _log(turns: list[list[BaseMessage]], title: str) -> bytes:
    made = [
        Turn(
            turn_id=f"t-{place}",
            status=TurnStatus.COMPLETE,
            chain="chat",
            started_at=now(),
            ended_at=now(),
            input=said_[:1],
            output=said_[1:],
        )
        for place, said_ in enumerate(turns)
    ]
    return session_lines("alice", "s1", made, title=title, created_at=now(), updated_at=now())


@settings(max_examples=300, deadline=None)
@given(st.lists(st.lists(messages, min_size=1, max_size=3), max_size=3), st.text(max_size=20), st.data())
def test_all_that_was_said_leaves_its_trace(turns: list[list[BaseMessage]], title: str, data: st.DataObject) -> None:
    words = words_of(_log(turns, title))
    for text in (title, *(codec.text_of(turn) for turn in turns)):
        folded = text.casefold()
        start = data.draw(st.integers(0, len(folded)))
        needle = folded[start : data.draw(st.integers(start, len(folded)))]
        assert words is None or all(trace in words for trace in traces_of(needle))


def test_words_are_those_of_messages_and_of_the_title() -> None:
    parts: list[str | dict[str, object]] = [
        "Über",
        {"type": "text", "text": 'a "quoted" WORD\\'},
        {"type": "image", "url": "http"},
        {"text": 1},
    ]
    kept = {'x"content': {"content": "no message"}}
    log = _log([[HumanMessage(content=parts), AIMessage("Straße\nÜBER", additional_kwargs=kept)]], "The title")
    words = words_of(log)
    assert words is not None
    assert words.decode().split("\n") == ["the title", "über", 'a "quoted" word\\', "strasse", "über"]
    assert words_of(_log([[HumanMessage("\ud83d")], [HumanMessage("\ud83d")]], "")) == b"\n\xed\xa0\xbd"
    for unsure in (
        b"",
        log[:-1],
        log[:-9] + b"x" + log[-8:],
        log.replace(b"Stra", b"\xff\xff\xff\xff"),
        log.replace(b'"content":"Stra', b'"content":!!Stra'),
        _log([[HumanMessage("\ud83d" + "\ude00")]], ""),
    ):
        assert words_of(unsure) is None

"""Files that are torn or damaged: no earlier turn is lost, and nothing is made worse."""

from __future__ import annotations

import os
from collections.abc import Awaitable
from contextlib import suppress
from pathlib import Path

import pytest
from langchain_core.messages import HumanMessage
from typing_extensions import override

from histories.base import (
    Feedback,
    HistoryDamaged,
    NewTurn,
    SessionBusy,
    SessionHistory,
    now,
)
from histories.base import TurnStatus as Is
from histories.files.disk import Disk
from histories.files.records import Sums, encode
from histories.files.store import FileStore
from tests.failing_disk import Unsynced
from tests.files import folder_of, log_of
from tests.proofs import proves
from tests.stores import FAILED, all_sessions, all_turns, begun, replied, said, talk, texts

pytestmark = pytest.mark.usefixtures("closes_what_it_opens")


async def _file(history: SessionHistory, tmp_path: Path, last: str) -> tuple[bytes, int]:
    """The bytes of a session, and where its last line begins: the end of a turn, its begin, or a title."""
    await talk(history, "one", "two", reply=replied("a reply"))
    turn = await begun(history, said("three", turn_id="t-3"))
    if last == "title":
        await history.rename("a title")
    content = log_of(tmp_path).read_bytes()
    await turn.end(replied("re: three"))
    if last == "end":
        content = log_of(tmp_path).read_bytes()
    return content, content.rindex(b"\n", 0, -1) + 1


@proves("G6")
@pytest.mark.parametrize("last", ["turn", "end", "title"])
async def test_a_tail_that_is_torn_at_any_byte_costs_no_earlier_turn(
    store: FileStore, history: SessionHistory, tmp_path: Path, last: str
) -> None:
    content, start = await _file(history, tmp_path, last)
    whole = 2 if last == "turn" else 3
    some = range(start, len(content), 1 if os.environ.get("EVERY_FAULT") == "1" else 3)  # see CONTRIBUTING.md
    for cut in sorted({*some, start, start + 1, len(content) - 2, len(content) - 1}):
        log_of(tmp_path).write_bytes(content[:cut])
        assert [texts(t.input) for t in await all_turns(history)] == [["one"], ["two"], ["three"]][:whole]
        turn = await begun(history, "next", window=100)
        assert texts(turn.past) == ["one", "a reply", "two", "a reply"]
        await turn.end(replied())
        assert [t.status for t in await all_turns(history)][-2:] == [
            Is.COMPLETE if whole == 2 else Is.INTERRUPTED, Is.COMPLETE
        ]  # fmt: skip
        assert (await history.info()).turns == whole + 1
        assert log_of(tmp_path).read_bytes().startswith(content[:start])
    await store.close()


@pytest.mark.parametrize("change", ["rename", "rewind", "retry"])
async def test_every_writer_cuts_off_a_torn_tail(
    store: FileStore, history: SessionHistory, tmp_path: Path, change: str
) -> None:
    content, start = await _file(history, tmp_path, "turn")
    begins = content[start : start + 3] + b"\0" * 130  # before a sector that was not written
    for tail in (content[start:-9], b"\0" * 5000, b"{", content[start:-40] + b"\0" * 600, begins):
        log_of(tmp_path).write_bytes(content[:start] + tail)
        ids = [t.turn_id for t in await all_turns(history)]
        if change == "retry":
            await (await begun(history, said("x", turn_id="t-3"))).end(replied())
        else:
            await (history.rename("x") if change == "rename" else history.rewind(ids[1]))
        assert [t.turn_id for t in await all_turns(history)][:1] == ids[:1]
        assert log_of(tmp_path).read_bytes().startswith(content[:start])
    await store.close()


@pytest.mark.parametrize("lines", [1, 2])
async def test_blocks_that_were_never_written_are_cut_off_even_with_what_follows_them(
    store: FileStore, history: SessionHistory, tmp_path: Path, lines: int
) -> None:
    """After a power cut, blocks in the midst of the last write may read as zeros; nobody was assured of that write."""
    content, _ = await _file(history, tmp_path, "end")
    turn = await begun(history, NewTurn(input=[HumanMessage("x" * 3000)]))
    await turn.end(replied("y" * 3000))
    torn = bytearray(log_of(tmp_path).read_bytes())
    first = torn.index(b"\n", len(content)) + 1
    hole = (len(content) // 512 + 2) * 512
    end = hole + 1024 if lines == 1 else (first // 512 + 2) * 512
    torn[hole:end] = bytes(end - hole)
    log_of(tmp_path).write_bytes(torn[:first] if lines == 1 else torn)
    await store.close()
    history = (store := FileStore(store.path)).history("alice", "s1")  # as the server starts again
    assert [texts(t.input) for t in await all_turns(history)] == [["one"], ["two"], ["three"]]
    await talk(history, "next")
    assert [texts(t.input) for t in await all_turns(history)] == [["one"], ["two"], ["three"], ["next"]]
    assert log_of(tmp_path).read_bytes().startswith(content)
    await store.close()


async def test_a_byte_that_has_gone_bad_is_seen_and_nothing_is_changed(
    store: FileStore, history: SessionHistory, tmp_path: Path
) -> None:
    content, start = await _file(history, tmp_path, "end")
    seen = 0
    places = [*range(0, start, 3), *range(start, len(content))]
    for place in places:
        garbled = bytearray(content)
        garbled[place] = (garbled[place] ^ 1, 0, 10, 255)[place % 4] if garbled[place] != 10 else 32
        log_of(tmp_path).write_bytes(garbled)
        try:
            turn = await begun(history, "next", window=1000)
        except HistoryDamaged:
            seen += 1
            assert log_of(tmp_path).read_bytes() == garbled
        else:
            assert place < start
            await turn.end(FAILED)
            assert log_of(tmp_path).read_bytes().startswith(bytes(garbled))
        assert len(store.gate.queue) == 0
    assert seen > len(places) * 0.7  # a window does not read the head, and need not
    await store.close()


async def test_a_damaged_session_hides_no_other_and_can_be_forgotten(
    store: FileStore, history: SessionHistory, tmp_path: Path
) -> None:
    content, start = await _file(history, tmp_path, "end")
    for name in ("s2", "s3", "s4"):
        await talk(store.history("alice", name), "hello")
    log_of(tmp_path, "s2").write_bytes(content[:start] + b"x" + content[start + 1 :])
    log_of(tmp_path, "s3").write_bytes(b"rubbish\n")
    log_of(tmp_path, "s4").write_bytes(b"rubbish")
    for name in ("s2", "s3", "s4"):
        damaged = store.history("alice", name)
        for ask in (damaged.turns(), damaged.rename("x"), damaged.begin(said("x")), damaged.stop()):
            with pytest.raises(HistoryDamaged, match=r"admin\.py check"):
                await ask
    assert sorted(s.title for s in await all_sessions(store, "alice")) == ["Damaged record", "one"]
    assert [s.title for s in await all_sessions(store, "alice", query="one")] == ["one"]
    await store.history("alice", "s2").delete()
    await store.history("alice", "s4").delete()
    log_of(tmp_path).with_suffix(".damaged-2026").touch()
    log_of(tmp_path).with_suffix(".0123.tmp").touch()
    await store.forget("alice")
    assert not list(folder_of(store).iterdir())
    await store.close()


async def test_a_session_takes_the_copies_of_its_repairs_along(store: FileStore, tmp_path: Path) -> None:
    for name in ("s1", "s2"):
        await talk(store.history("alice", name), "hello")
        log_of(tmp_path, name).with_suffix(".damaged-2026").touch()
    await store.history("alice", "s1").delete()
    assert {p.name.split("-")[0] for p in folder_of(store).iterdir()} == {"s2"}
    await store.close()


async def test_a_record_that_is_no_turn_of_messages_is_damaged(
    store: FileStore, history: SessionHistory, tmp_path: Path
) -> None:
    await talk(history, "hello")
    path = log_of(tmp_path)
    content = path.read_bytes()
    at = now().isoformat()
    turn = {"r": "turn", "id": "x", "chain": "", "at": at}
    for record, parts in [(turn, {}), (turn | {"at": "never"}, {"in": "[]"}), (turn, {"in": '[{"type":"x"}]'})]:
        path.write_bytes(content + encode(record, Sums(), **parts) + encode({"r": "novel"}, Sums()))
        with pytest.raises(HistoryDamaged):
            await history.turns()
    path.write_bytes(encode(turn, Sums(), **{"in": "[]"}))
    with pytest.raises(HistoryDamaged):
        await history.info()
    await store.close()


async def test_a_long_first_record_is_read_whole(store: FileStore) -> None:
    history = store.history("alice" * 500, "s1")
    await talk(history, "hello")
    assert (await history.info()).turns == 1
    await store.close()


@pytest.mark.parametrize("place", ["last", "first", "last turn", "torn"])
async def test_a_log_of_a_newer_version_is_refused_with_a_sentence_and_never_added_to(
    store: FileStore, history: SessionHistory, tmp_path: Path, place: str
) -> None:
    ids = await talk(history, "one", "two")
    await store.close()
    lines = log_of(tmp_path).read_bytes().splitlines(keepends=True)
    newer = b'{"v":2,"r":"new"}\n'
    new_lines = {
        "last": [*lines, newer],
        "first": [lines[0].replace(b'"v":1', b'"v":2'), *lines[1:]],
        "last turn": [*lines[:-2], lines[-2].replace(b'"v":1', b'"v":2'), lines[-1]],
        "torn": [*lines, newer[:12]],
    }
    log_of(tmp_path).write_bytes(content := b"".join(new_lines[place]))
    acts: list[Awaitable[object]] = [
        history.begin(said("more")),
        history.begin(said("more", turn_id="t-9")),
        history.begin(said("more", version_of=ids[1])),
        history.rename("title"),
        history.feedback(ids[0], Feedback(score=1, comment="")),
        history.rewind(ids[1]),
        history.rewind(ids[1], keep=True),
        history.choose(ids[0]),
        history.delete_turn(ids[0]),
    ]
    for act in acts:
        with pytest.raises(HistoryDamaged, match="newer version"):
            await act
    assert log_of(tmp_path).read_bytes() == content
    await store.close()


class _TakenBack(Disk):
    """At the `at`-th read another process takes back the last line of a file."""

    def __init__(self, path: Path, at: int) -> None:
        self.path, self.at, self.reads = path, at, 0

    @override
    def read(self, descriptor: int, size: int, offset: int) -> bytes:
        self.reads += 1
        assert self.reads < 1000, "reads for ever"
        if self.reads == self.at:
            os.truncate(self.path, self.path.read_bytes()[:-1].rfind(b"\n") + 1)
        return super().read(descriptor, size, offset)


async def test_what_another_process_takes_back_while_it_is_read_is_as_if_it_never_was(tmp_path: Path) -> None:
    one = FileStore(tmp_path, disk=Unsynced())
    for at in range(1, 12):
        history = one.history("alice", f"s{at}")
        first, _ = await talk(history, "one", "two")
        turn = await begun(history, "three")
        log = next(path for path in tmp_path.rglob("*.jsonl") if path.name.startswith(f"s{at}-"))
        await history.rename("a title " + "x" * 100)
        disk = _TakenBack(log, at)
        other = FileStore(tmp_path, disk=disk).history("alice", f"s{at}")
        again = NewTurn(input=[HumanMessage("one")], turn_id=first, given=True)
        for look in (lambda other=other, again=again: other.begin(again, wait_s=0), other.turns, other.info):
            with suppress(SessionBusy):
                await look()
        assert [turn.status for turn in (await other.turns()).items] == [Is.COMPLETE, Is.COMPLETE, Is.RUNNING]
        await turn.end(replied("re: three"))
        assert [turn.status for turn in await all_turns(history)] == [Is.COMPLETE] * 3

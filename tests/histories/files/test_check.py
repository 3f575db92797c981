"""`admin.py check`: it tells what is damaged and what a repair costs, and the repair saves the rest."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path

import pytest

from admin import main
from histories.base import SessionHistory, now
from histories.base import TurnStatus as Is
from histories.files.check import check_main
from histories.files.disk import Disk
from histories.files.locks import FileLock, Line
from histories.files.names import file_name
from histories.files.records import Sums, encode
from histories.files.store import FileStore
from tests.stores import all_sessions, all_turns, begun, replied, said, talk, texts


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path)


@pytest.fixture
def history(store: FileStore) -> SessionHistory:
    return store.history("alice", "s1")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / file_name("alice") / f"{file_name('s1')}.jsonl"


def check(folder: Path, *, repair: bool = False) -> tuple[int, str]:
    out = io.StringIO()
    before = len(os.listdir("/proc/self/fd"))
    status = check_main(str(folder), repair, out)
    assert len(os.listdir("/proc/self/fd")) == before
    return status, out.getvalue()


async def _four(history: SessionHistory) -> list[str]:
    for number in range(4):
        turn = await begun(history, said(f"words {number}", turn_id=f"t-{number}", tokens=2))
        await turn.end(replied(f"reply {number}", tokens=3))
    await history.rename("The title")
    return [f"t-{number}" for number in range(4)]


def _lines(log: Path) -> list[bytes]:
    return log.read_bytes().splitlines(keepends=True)


def _garbled(line: bytes) -> bytes:
    return line.replace(b'"s":', b'"S":')


def test_where_there_is_nothing_all_is_well(tmp_path: Path) -> None:
    assert check(tmp_path / "nowhere")[0] == 0
    assert check(tmp_path) == (0, "0 users, 0 sessions, 0 turns: all is well.\n")


async def test_after_all_kinds_of_use_all_is_well(store: FileStore, history: SessionHistory, tmp_path: Path) -> None:
    ids = await _four(history)
    await (await begun(history, said("fails", turn_id="again"))).end(replied("", Is.FAILED))
    await talk(history, "more", "and more")
    await (await begun(history, said("anew", turn_id="again"))).end(replied("", Is.FAILED))
    await (await begun(history, said("anew", turn_id="again"))).end(replied("at last"))
    await history.fork("fork", ids[2])
    await history.rewind(ids[3])
    await store.history("bob", "s1").restore([], title="x", created_at=now())
    await store.ping()
    assert check(tmp_path) == (0, "2 users, 3 sessions, 6 turns: all is well.\n")
    running = await begun(history, "runs")
    assert check(tmp_path) == check(tmp_path, repair=True) == (0, "2 users, 3 sessions, 7 turns: all is well.\n")
    await running.end(replied())
    await store.close()


@pytest.mark.parametrize(
    ("line", "lost"),
    [
        (3, "the turn t-1"),
        (4, "the reply of the turn t-1"),
        (9, "a title"),
    ],
)
async def test_a_garbled_record_costs_what_it_held(
    store: FileStore, history: SessionHistory, tmp_path: Path, log: Path, line: int, lost: str
) -> None:
    ids = await _four(history)
    lines = _lines(log)
    offset = sum(map(len, lines[:line]))
    lines[line] = _garbled(lines[line])
    log.write_bytes(b"".join(lines))
    damaged = log.read_bytes()
    status, said = check(tmp_path)
    assert status == 1
    assert f"{log.relative_to(tmp_path)}: byte {offset}: a garbled record. To be repaired: " in said
    assert f"lost is {lost}" in said
    assert log.read_bytes() == damaged
    status, said = check(tmp_path, repair=True)
    assert (status, f"lost is {lost}" in said) == (0, True)
    (kept,) = log.parent.glob("*.damaged-*")
    assert kept.read_bytes() == damaged
    assert kept.stat().st_mode & 0o777 == log.stat().st_mode & 0o777 == 0o600
    turns = {t.turn_id: t for t in await all_turns(history)}
    assert list(turns) == (ids if line != 3 else ["t-0", "t-2", "t-3"])
    assert turns["t-0"].tokens == 5
    for turn_id, turn in turns.items():
        whole = not (turn_id == "t-1" and line == 4)
        assert (turn.status, texts(turn.output)) == (
            (Is.COMPLETE, [f"reply {turn_id[2:]}"]) if whole else (Is.INTERRUPTED, [])
        )
    info = await history.info()
    assert (info.turns, info.title) == (len(turns), "words 0" if line == 9 else "The title")
    following = await begun(history, "it goes on", window=100)
    assert len(following.past) == 2 * sum(t.shown for t in turns.values())
    await following.end(replied())
    assert check(tmp_path)[0] == 0
    assert "a damaged original" in check(tmp_path)[1]
    await store.close()


@pytest.mark.parametrize("tail", [b'{"v":1,"r":"tur', b"\0" * 100, b"rubbish"])
async def test_a_torn_tail_costs_what_nobody_was_assured_of(
    store: FileStore, history: SessionHistory, tmp_path: Path, log: Path, tail: bytes
) -> None:
    ids = await _four(history)
    whole = log.read_bytes()
    log.write_bytes(whole + tail)
    status, said = check(tmp_path)
    assert status == 1
    assert f"byte {len(whole)}: {len(tail)} bytes of a torn record" in said
    assert check(tmp_path, repair=True)[0] == 0
    assert log.read_bytes() == whole
    assert [t.turn_id for t in await all_turns(history)] == ids
    await store.close()


async def test_a_file_that_was_cut_short_is_told_from_one_that_ends(
    store: FileStore, history: SessionHistory, tmp_path: Path, log: Path
) -> None:
    await _four(history)
    whole = _lines(log)
    log.write_bytes(b"".join(whole[:6]) + whole[6][:-1])
    assert check(tmp_path)[0] == 1
    assert check(tmp_path, repair=True)[0] == 0
    log.write_bytes(b"".join(whole[:3] + whole[5:]))
    status, told = check(tmp_path)
    assert status == 1
    assert "+1 turns before it by its count" in told
    assert check(tmp_path, repair=True)[0] == 0
    assert [t.turn_id for t in await all_turns(history)] == ["t-0", "t-2", "t-3"]
    assert check(tmp_path)[0] == 0
    await store.close()


async def test_a_head_that_went_bad_is_made_anew_if_it_still_tells_whose_it_is(
    store: FileStore, history: SessionHistory, tmp_path: Path, log: Path
) -> None:
    ids = await _four(history)
    head, *rest = _lines(log)
    log.write_bytes(_garbled(head) + b"".join(rest))
    assert check(tmp_path)[0] == 1
    assert check(tmp_path, repair=True)[0] == 0
    assert (await history.info()).session_id == "s1"
    assert [t.turn_id for t in await all_turns(history)] == ids
    for unreadable in (b"rubbish\n", b"", head.replace(b'"s1"', b'"s2"'), head.replace(b'"s1"', b'"\\u12"')):
        log.write_bytes(unreadable + b"".join(rest))
        for repair in (False, True):
            status, told = check(tmp_path, repair=repair)
            assert status == 1
            assert "whose session it is can't be told" in told
            assert "can't be repaired here" in told
        assert log.read_bytes() == unreadable + b"".join(rest)
    await store.close()


async def test_a_file_that_has_nothing_worth_keeping_is_put_aside(
    store: FileStore, history: SessionHistory, tmp_path: Path, log: Path
) -> None:
    await talk(history, "hello")
    log.write_bytes(b"")
    assert check(tmp_path)[0] == 0
    assert "empty" in check(tmp_path)[1]
    log.write_bytes(b'{"v":1,"r":"session","user":"al')
    assert check(tmp_path)[0] == 1
    assert check(tmp_path, repair=True)[0] == 0
    assert not log.exists()
    assert len(list(log.parent.glob("*.damaged-*"))) == 1
    await store.close()


async def test_a_file_of_a_newer_version_is_not_touched(
    store: FileStore, history: SessionHistory, tmp_path: Path, log: Path
) -> None:
    await talk(history, "hello")
    newer = log.read_bytes() + b'{"v":2,"r":"new"}\n'
    log.write_bytes(newer)
    status, told = check(tmp_path, repair=True)
    assert status == 1
    assert "a newer version" in told
    assert log.read_bytes() == newer
    await store.close()


async def test_a_file_under_another_name_is_not_taken_for_its_sessions(
    store: FileStore, history: SessionHistory, tmp_path: Path, log: Path
) -> None:
    await talk(history, "hello")
    moved = log.with_name(f"{file_name('s2')}.jsonl")
    log.rename(moved)
    status, told = check(tmp_path, repair=True)
    assert status == 1
    assert f"its first record belongs into {log.parent.name}/{log.name}" in told
    assert moved.exists()
    await store.close()


async def test_a_record_that_does_not_go_with_the_others_is_left_out(
    store: FileStore, history: SessionHistory, tmp_path: Path, log: Path
) -> None:
    await _four(history)
    at = now().isoformat()
    sums = Sums(4, 20, "The title")
    strange = [
        encode({"r": "turn", "id": "x", "chain": "", "at": "never"}, sums, **{"in": "[]"}),
        encode({"r": "turn", "id": "x", "chain": "", "at": at}, sums, **{"in": "7"}),
        encode({"r": "turn"}, sums),
        encode({"r": "a novel kind", "at": at}, sums),
    ]
    log.write_bytes(log.read_bytes() + b"".join(strange))
    status, told = check(tmp_path, repair=True)
    assert status == 0
    assert told.count("a garbled record") == 3
    assert len(await all_turns(history)) == 4
    assert check(tmp_path)[0] == 0
    await store.close()


@pytest.mark.parametrize("which", ["a folder", "a file"])
async def test_what_others_may_read_is_closed_to_them(
    store: FileStore, history: SessionHistory, tmp_path: Path, log: Path, which: str
) -> None:
    await talk(history, "hello")
    path = {"a folder": log.parent, "a file": log}[which]
    mode = path.stat().st_mode & 0o777
    path.chmod(0o755)
    status, told = check(tmp_path)
    assert (status, "mode 755" in told, path.stat().st_mode & 0o777) == (1, True, 0o755)
    assert check(tmp_path, repair=True)[0] == 0
    assert path.stat().st_mode & 0o777 == mode
    await store.close()


def test_the_mode_of_the_operators_own_folder_is_theirs_to_decide(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    status, told = check(tmp_path, repair=True)
    assert (status, "may see who has some (mode 755)" in told) == (0, True)
    assert tmp_path.stat().st_mode & 0o777 == 0o755


async def test_what_killed_processes_left_behind_is_cleared_away(
    store: FileStore, history: SessionHistory, tmp_path: Path, log: Path
) -> None:
    turn = await begun(history, said("hello", turn_id="t-1"))
    content = log.read_bytes()
    await turn.end(replied())
    log.write_bytes(content)
    log.with_suffix(".turn").touch()
    log.with_suffix(".0123.tmp").touch()
    log.with_suffix(".next").mkdir()
    (log.with_suffix(".next") / "000-dead").touch()
    log.with_name("notes.txt").touch()
    status, told = check(tmp_path)
    assert status == 0
    assert told.count("left behind by a process that was killed, harmless") == 2
    assert told.count("kept by a server that is running, or left behind by one that was killed") == 1
    assert "nobody runs the turn t-1" in told
    assert "notes.txt: nothing that Recollect has put there" in told
    assert len(list(log.parent.iterdir())) == 5
    assert check(tmp_path, repair=True)[0] == 0
    assert {p.name for p in log.parent.iterdir()} == {log.name, "notes.txt"}
    assert [t.status for t in await all_turns(history)] == [Is.INTERRUPTED]
    await store.close()


async def test_a_session_in_use_is_left_alone(
    store: FileStore, history: SessionHistory, tmp_path: Path, log: Path
) -> None:
    await _four(history)
    turn = await begun(history, "runs")
    waiting = Line(store.disk, log.with_suffix(".next").name)
    folder = os.open(log.parent, os.O_RDONLY)
    waiting.join(folder)
    lines = _lines(log)
    log.write_bytes(b"".join([lines[0], _garbled(lines[1]), *lines[2:]]))
    damaged = log.read_bytes()
    status, told = check(tmp_path, repair=True)
    assert status == 1
    assert "a turn of it runs: it is not repaired now" in told
    assert "left behind" not in told
    assert log.read_bytes() == damaged
    await turn.end(replied())
    assert "left behind" not in check(tmp_path)[1]
    waiting.leave(folder)
    os.close(folder)
    assert check(tmp_path, repair=True)[0] == 0
    assert len(await all_turns(history)) == 4
    await store.close()


async def test_what_is_no_file_or_no_folder_is_told(
    store: FileStore, history: SessionHistory, tmp_path: Path, log: Path
) -> None:
    await talk(history, "hello")
    (tmp_path / "stray").touch()
    log.with_name("link.jsonl").symlink_to(log)
    log.with_name("pipe.jsonl").mkdir()
    status, told = check(tmp_path, repair=True)
    assert status == 1
    assert told.count("This can't be repaired here.") == 3
    assert "1 users, 1 sessions, 1 turns: 3 damaged, 0 repaired." in told
    assert [s.session_id for s in await all_sessions(store, "alice")] == ["s1"]
    await store.close()


async def test_the_check_is_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RECOLLECT_DATA_DIR", str(tmp_path))
    assert main(["check"]) == 0
    store = FileStore(tmp_path / "histories")
    await talk(store.history("alice", "s1"), "hello")
    (log,) = (tmp_path / "histories").rglob("*.jsonl")
    log.write_bytes(log.read_bytes() + b"{")
    assert main(["check"]) == 1
    assert main(["check", "--repair"]) == 0
    assert main(["check"]) == 0
    assert re.search(r"byte \d+: 1 bytes of a torn record", capsys.readouterr().out)
    monkeypatch.setenv("RECOLLECT_HISTORY_URL", f"file:{tmp_path / 'elsewhere'}")
    assert main(["check"]) == 0
    monkeypatch.setenv("RECOLLECT_HISTORY_URL", "memory:")
    assert main(["check"]) == 2
    await store.close()


async def test_a_session_that_is_forgotten_while_it_is_looked_at_is_no_damage(
    store: FileStore, history: SessionHistory, tmp_path: Path, log: Path
) -> None:
    class Vanishing(Disk):
        def open(self, folder: int, name: str, flags: int) -> int:
            if name == log.name:
                raise FileNotFoundError(2, "gone")
            return super().open(folder, name, flags)

    await talk(history, "hello")
    out = io.StringIO()
    assert check_main(str(tmp_path), False, out, disk=Vanishing()) == 0
    assert out.getvalue() == "1 users, 0 sessions, 0 turns: all is well.\n"
    await store.close()


def test_a_lock_that_is_held_is_not_taken_for_left_behind(tmp_path: Path) -> None:
    user = tmp_path / "someone"
    user.mkdir(mode=0o700)
    tmp_path.chmod(0o700)
    folder = os.open(user, os.O_RDONLY)
    lock = FileLock(FileStore(tmp_path).disk, "x.turn")
    assert lock.try_acquire(folder)
    assert check(tmp_path, repair=True) == (0, "1 users, 0 sessions, 0 turns: all is well.\n")
    assert lock.held
    lock.release(folder)
    os.close(folder)

"""Histories move from one store to another: all of them, unchanged, and after a kill -9 in the middle, too."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from typing_extensions import override

from histories.base import (
    Feedback,
    HistoryStore,
    NewTurn,
    Note,
    Reply,
    SessionHistory,
    Summary,
    Turn,
    TurnStatus,
    TurnTree,
    now,
)
from histories.files.names import file_name
from histories.files.store import FileStore
from histories.ledger import Ledger
from histories.memory import MemoryHistory, MemoryStore
from histories.migrate import Migrated, migrate
from tests import postgres_server
from tests.live_server import ROOT, wait_for
from tests.operate.test_admin import admin
from tests.stores import FAILED, KINDS, Stores, all_sessions, all_turns, begun, replied, said, talk

PAIRS = [(one, other) for one in ("file", "postgres", "redis") for other in ("file", "postgres", "redis")]


async def _fill(store: HistoryStore) -> None:
    """Three users, whose sessions have turns of every status, titles, and messages of several kinds."""
    for user in ("alice", "bob 用户", "%:{}"):
        for number in range(3):
            history = store.history(user, f"s{number}")
            await talk(history, "hello", "日本\u2028\\ {} \0")
            await talk(history, "never shown", reply=FAILED)
            await talk(history, "half", reply=replied("the start of", TurnStatus.INTERRUPTED))
            await talk(history, "stopped at once", reply=replied("", TurnStatus.INTERRUPTED))
            call = {"name": "add", "args": {"a": 1, "b": [None, 2.5]}, "id": "c1", "type": "tool_call"}
            turn = await history.begin(NewTurn(input=[HumanMessage([{"type": "text", "text": "hi"}])], tokens=3))
            assert not isinstance(turn, Turn)
            output = [AIMessage("", tool_calls=[call]), ToolMessage("3", tool_call_id="c1"), AIMessage("three")]
            usage = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
            await turn.end(Reply(status=TurnStatus.COMPLETE, output=output, usage=usage, tokens=4, kind="message"))  # type: ignore[arg-type]
        await _make_versions(store.history(user, "s0"))
        await store.set_notes(user, [Note(text="likes \ud800 tea", created_at=now())])
        await store.history(user, "s1").rename("A title\u2028 of its own")
        await store.history(user, "s2").rewind((await all_turns(store.history(user, "s2")))[0].turn_id)


async def _make_versions(history: SessionHistory) -> None:
    """Versions in the midst, one of which is shown with what follows it, feedback, and details."""
    first, second, *_ = [turn.turn_id for turn in await all_turns(history)]
    details = {"finish_reason": "stop", "value": {"a": [1, None]}}
    other = await begun(history, said("another", version_of=second))
    await other.end(Reply(status=TurnStatus.COMPLETE, output=[AIMessage("x")], details=details))  # type: ignore[arg-type]
    await talk(history, "after the other", "and after that")
    await (await begun(history, said("a third", version_of=other.turn_id))).end(replied())
    await talk(history, "after the third")
    await history.choose(other.turn_id)
    await history.feedback(first, Feedback(score=1, comment="good"))
    await history.feedback(second, Feedback(score=-1, comment="bad, and not shown"))


async def _everything(store: HistoryStore) -> object:
    found: dict[object, object] = {}
    async for user in store.users():
        found[user] = await store.notes(user)
        for session in await all_sessions(store, user):
            history = store.history(user, session.session_id)
            turns, tree = await all_turns(history), await history.tree()
            found[user, session.session_id] = session.title, session.created_at, session.chain, turns, _plain(tree)
    return found


def _plain(tree: TurnTree) -> object:
    return list(tree.turns), list(tree.after), tree.last


async def _migrate(
    source: HistoryStore, target: HistoryStore, ledger: Ledger | None = None
) -> tuple[Migrated, list[str]]:
    told: list[str] = []
    return await migrate(source, target, told.append, ledger=ledger), told


@pytest.mark.parametrize(("one", "other"), PAIRS)
async def test_all_histories_arrive_as_they_were_and_once(
    one: str, other: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    places = [KINDS[kind](request, tmp_path / f"{number}") for number, kind in enumerate((one, other))]
    source, target = [await place.open() for place in places]
    await _fill(source)
    migrated, told = await _migrate(source, target)
    assert (migrated.sessions, told) == ({"copied": 9}, [])
    assert await _everything(target) == await _everything(source)
    migrated, told = await _migrate(source, target)
    assert (migrated.sessions, migrated.turns, told) == ({"there": 9}, 51, [])
    turn = await begun(target.history("alice", "s0"), "go on", window=1000)
    assert len(turn.past) > 2
    await turn.end(replied())
    for place in places:
        await place.close()


async def test_what_was_said_after_the_first_run_comes_with_the_second(stores: Stores, tmp_path: Path) -> None:
    source, target = FileStore(tmp_path / "source"), await stores.open()
    await talk(source.history("alice", "grown"), "one")
    await talk(source.history("alice", "as it was"), "one")
    running = await begun(source.history("alice", "busy"), "a turn that runs")
    migrated, _ = await _migrate(source, target)
    assert migrated.sessions == {"copied": 2, "running": 1}
    assert not migrated.complete
    await running.end(replied())
    await talk(source.history("alice", "grown"), "two")
    await source.history("alice", "as it was").rename("But for its title")
    migrated, _ = await _migrate(source, target)
    assert migrated.sessions == {"replaced": 3}
    assert migrated.complete
    assert await _everything(target) == await _everything(source)
    await source.close()


async def test_what_has_changed_in_the_target_is_told_of_and_left_alone(stores: Stores, tmp_path: Path) -> None:
    source, target = FileStore(tmp_path / "source"), await stores.open()
    for session in ("answered", "rewound", "renamed", "other"):
        await talk(source.history("alice", session), "one", "two")
    await talk(target.history("alice", "other"), "somebody else's")
    assert (await _migrate(source, target))[0].sessions == {"copied": 3, "differ": 1}
    await talk(target.history("alice", "answered"), "three")
    last = (await all_turns(target.history("alice", "rewound")))[-1]
    await target.history("alice", "rewound").rewind(last.turn_id)
    await target.history("alice", "renamed").rename("Mine")
    before = await _everything(target)
    migrated, told = await _migrate(source, target)
    assert migrated.sessions == {"differ": 4}
    assert not migrated.complete
    assert sorted(line.partition(":")[0] for line in told) == sorted(
        f"alice, session {session}" for session in ("answered", "rewound", "renamed", "other")
    )
    assert await _everything(target) == before
    await source.close()


async def test_what_was_deleted_or_taken_away_in_the_source_is_so_in_the_target_after_the_next_run(
    stores: Stores, tmp_path: Path
) -> None:
    source, target = MemoryStore(), await stores.open()
    for session in ("stays", "deleted", "rewound", "answered there"):
        await talk(source.history("alice", session), "one", "two")
    await talk(source.history("bob", "only"), "one")
    await talk(target.history("alice", "of the target"), "one")
    for user in ("alice", "bob"):
        await source.set_notes(user, [Note(text="a note", created_at=now())])
    assert (await _migrate(source, target, Ledger(tmp_path / "ledger")))[0].complete
    await talk(target.history("alice", "answered there"), "three")
    for session in ("deleted", "answered there"):
        await source.history("alice", session).delete()
    last = (await all_turns(source.history("alice", "rewound")))[-1].turn_id
    await source.history("alice", "rewound").rewind(last)
    await source.forget("bob")
    migrated, told = await _migrate(source, target, Ledger(tmp_path / "ledger"))
    assert migrated.sessions == {"there": 1, "replaced": 1, "deleted": 2, "differ": 1}
    assert [line.partition(":")[0] for line in told] == ["alice, session answered there"]
    left = {session.session_id: session.turns for session in await all_sessions(target, "alice")}
    assert left == {"stays": 2, "rewound": 1, "answered there": 3, "of the target": 1}
    assert (await target.notes("bob"), await all_sessions(target, "bob")) == ([], [])
    assert len(await target.notes("alice")) == 1


async def test_what_was_deleted_in_the_target_is_not_brought_there_again(tmp_path: Path) -> None:
    source, target = MemoryStore(), MemoryStore()
    await talk(source.history("alice", "s1"), "one")
    await _migrate(source, target, Ledger(tmp_path / "ledger"))
    await target.history("alice", "s1").delete()
    migrated, told = await _migrate(source, target, Ledger(tmp_path / "ledger"))
    assert (migrated.complete, await all_sessions(target, "alice")) == (False, [])
    assert "deleted in the target" in told[0]
    assert "alice" not in (tmp_path / "ledger").read_text()


class _Busy(MemoryStore):
    """Somebody talks in it in the instant in which a session has been read."""

    is_busy = False

    @override
    def history(self, user_id: str, session_id: str) -> SessionHistory:
        return _BusyHistory(self, user_id, session_id)


class _BusyHistory(MemoryHistory):
    @override
    async def tree(self) -> TurnTree:
        tree, store = await super().tree(), self._store
        if isinstance(store, _Busy) and store.is_busy:
            store.is_busy = False
            await talk(self, "said in between")
        return tree


async def test_a_turn_that_comes_to_the_target_while_a_session_is_brought_up_to_date_stays() -> None:
    source, target = MemoryStore(), _Busy()
    await talk(source.history("alice", "s1"), "one")
    await _migrate(source, target)
    await talk(source.history("alice", "s1"), "two")
    target.is_busy = True
    migrated, _ = await _migrate(source, target)
    assert migrated.sessions == {"differ": 1}
    assert [str(turn.input[0].content) for turn in await all_turns(target.history("alice", "s1"))][-1] == (
        "said in between"
    )


async def test_a_source_that_is_written_to_meanwhile_is_told_of() -> None:
    source, target = _Busy(), MemoryStore()
    await talk(source.history("alice", "s1"), "one")
    source.is_busy = True
    migrated, told = await _migrate(source, target)
    assert (migrated.sessions, migrated.complete) == ({"copied": 1}, False)
    assert "stop the servers" in told[0]
    migrated, told = await _migrate(source, target)
    assert (migrated.sessions, migrated.complete, told) == ({"replaced": 1}, True, [])


async def test_a_summary_comes_along_and_a_newer_one_of_the_target_stays(stores: Stores) -> None:
    source, target = MemoryStore(), await stores.open()
    history, there = source.history("alice", "s1"), target.history("alice", "s1")
    (one, _) = await talk(history, "one", "two")
    summary = Summary("They spoke.", one, (await history.turn(one)).started_at, now(), "small")
    await history.set_summary(summary)
    assert (await _migrate(source, target))[0].complete
    assert await there.summary() == summary
    mine = replace(summary, text="mine", made_at=now())
    await there.set_summary(mine)
    assert (await _migrate(source, target))[0].complete
    assert await there.summary() == mine


async def test_notes_that_were_made_in_the_target_are_left_alone(stores: Stores) -> None:
    source, target = MemoryStore(), await stores.open()
    await talk(source.history("alice", "s1"), "one")
    await source.set_notes("alice", [Note(text="of the source", created_at=now())])
    mine = [Note(text="of the target", created_at=now())]
    await target.set_notes("alice", mine)
    migrated, told = await _migrate(source, target)
    assert (migrated.complete, len(told), await target.notes("alice")) == (False, 1, mine)


async def test_a_turn_that_its_dead_owner_left_is_settled_in_the_target_and_again_in_the_source(tmp_path: Path) -> None:
    source, target = FileStore(tmp_path), MemoryStore()
    await talk(source.history("alice", "s1"), "one")
    turn = await begun(source.history("alice", "s1"), said("left"))
    log = tmp_path / file_name("alice") / f"{file_name('s1')}.jsonl"
    as_it_was = log.read_bytes()
    await turn.end(FAILED)
    log.write_bytes(as_it_was)
    assert (await _migrate(source, target))[0].sessions == {"copied": 1}
    await talk(source.history("alice", "s1"), "two")
    assert (await _migrate(source, target))[0].sessions == {"replaced": 1}
    assert [turn.status for turn in await all_turns(target.history("alice", "s1"))] == [
        TurnStatus.COMPLETE, TurnStatus.INTERRUPTED, TurnStatus.COMPLETE,
    ]  # fmt: skip
    await source.close()


async def test_what_is_read_back_otherwise_than_it_was_written_is_no_success() -> None:
    class Lossy(MemoryStore):
        @override
        def history(self, user_id: str, session_id: str) -> SessionHistory:
            return LossyHistory(self, user_id, session_id)

    class LossyHistory(MemoryHistory):
        @override
        async def restore(self, turns: Sequence[Turn] | TurnTree, *, title: str, created_at: datetime) -> None:
            await super().restore(TurnTree.of(turns).line[1:], title=title, created_at=created_at)

    source = MemoryStore()
    await talk(source.history("alice", "s1"), "one", "two")
    migrated, told = await _migrate(source, Lossy())
    assert migrated.sessions == {"failed": 1}
    assert "read back" in told[0]


async def test_a_damaged_history_is_told_of_and_holds_up_no_other(tmp_path: Path) -> None:
    source, target = FileStore(tmp_path), MemoryStore()
    for user, session in (("alice", "s1"), ("alice", "s2"), ("alice", "s3"), ("bob", "s1")):
        await talk(source.history(user, session), "one", "two")
    for session, offset in (("s1", 5), ("s2", 300)):
        log = tmp_path / file_name("alice") / f"{file_name(session)}.jsonl"
        content = bytearray(log.read_bytes())
        content[offset] ^= 1
        log.write_bytes(content)
    migrated, told = await _migrate(source, target)
    assert migrated.sessions == {"copied": 2, "failed": 2}
    assert all("admin.py check" in line for line in told)
    await source.close()


def test_a_migration_that_is_killed_in_the_middle_is_finished_by_the_next(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    target = KINDS["redis"](request, tmp_path)
    assert target.url is not None

    async def fill() -> None:
        source = FileStore(tmp_path / "source", fsync=False)
        for number in range(200):
            await talk(source.history(f"user {number % 40}", f"s{number}"), "one")
        await source.close()

    async def arrived() -> int:
        store = target.make()
        count = sum([len(await all_sessions(store, user)) async for user in store.users()])
        await store.close()
        return count

    asyncio.run(fill())
    command = [sys.executable, "admin.py", "migrate", f"file:{tmp_path / 'source'}", target.url]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    wait_for(lambda: asyncio.run(arrived()) > 0, "the first sessions")
    process.kill()
    process.wait()
    assert asyncio.run(arrived()) < 200
    done = admin(tmp_path / "data", "migrate", f"file:{tmp_path / 'source'}", RECOLLECT_HISTORY_URL=target.url)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].startswith("200 sessions, 200 turns verified: ")
    assert " 0 differ, 0 failed" in done.stdout.splitlines()[-1]
    again = admin(tmp_path / "data", "migrate", f"file:{tmp_path / 'source'}", target.url)
    assert "200 there already" in again.stdout


def test_a_store_that_cannot_be_reached_ends_a_migration_without_its_password(tmp_path: Path) -> None:
    histories = FileStore(tmp_path / "data" / "histories")
    asyncio.run(talk(histories.history("alice", "s1"), "one"))
    for url in ("redis://:pa55word@127.0.0.1:9/0", "postgresql://me:pa55word@127.0.0.1:9/db", "redis://:pa55word:x/0"):
        done = admin(tmp_path / "data", "migrate", "file:", url)
        assert done.returncode == 2
        assert "pa55word" not in done.stdout + done.stderr
        assert done.stderr.splitlines()[-1].startswith("admin.py: ")


def test_a_place_without_histories_is_no_success(tmp_path: Path) -> None:
    done = admin(tmp_path / "data", "migrate", f"file:{tmp_path}/misspelt", f"file:{tmp_path}/target")
    assert (done.returncode, done.stderr) == (1, "admin.py: FROM has no histories: is that its place?\n")
    assert not (tmp_path / "misspelt").exists()


def test_migrate_schema_makes_the_tables_once(tmp_path: Path, postgres_url: str) -> None:
    url = postgres_server.fresh_url(postgres_url)
    first, second = [admin(tmp_path / "data", "migrate-schema", RECOLLECT_HISTORY_URL=url) for _ in range(2)]
    assert (first.returncode, first.stdout.strip(), second.stdout.strip()) == (0, "applied 1, 2, 3, 4", "up to date")
    assert admin(tmp_path / "data", "migrate-schema").returncode == 2
    postgres_server.drop_fresh(url)

"""No coincidence of what is asked of a session stops it, its user or the server; and no thread waits for ever."""

from __future__ import annotations

import ast
import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

import histories.files
from histories.base import SessionHistory
from histories.files.store import FileStore
from tests.stores import all_turns, begun, replied, talk

PRODUCT = sorted(Path(histories.files.__path__[0]).glob("*.py"))


@pytest.fixture(params=[True, False], ids=["fsync", "no fsync"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[FileStore]:
    store = FileStore(tmp_path / "histories", fsync=request.param)
    await store.open()
    yield store
    async with asyncio.timeout(60):
        await store.close()


@pytest.fixture
async def history(store: FileStore) -> SessionHistory:
    history = store.history("alice", "s1")
    await talk(history, "first")
    return history


async def test_a_title_may_change_in_the_instant_in_which_a_turn_ends(history: SessionHistory) -> None:
    async with asyncio.timeout(60):
        for number in range(10):
            turn = await begun(history, f"hello {number}")
            await asyncio.gather(turn.end(replied()), history.rename(f"title {number}"))
            assert (await history.info()).title == f"title {number}"
    assert len(await all_turns(history)) == 11


async def test_a_title_may_change_in_the_instant_in_which_a_turn_begins(history: SessionHistory) -> None:
    async with asyncio.timeout(60):
        for number in range(10):
            turn, _ = await asyncio.gather(begun(history, f"hello {number}"), history.rename(f"title {number}"))
            await turn.end(replied())
    assert len(await all_turns(history)) == 11


async def test_forty_titles_may_be_on_their_way_when_turns_begin_and_end(history: SessionHistory) -> None:
    async with asyncio.timeout(60):
        titles = asyncio.gather(*(history.rename(f"title {number}") for number in range(40)))
        turn = await begun(history, "hello")
        assert not titles.done(), "a turn does not wait for all titles that came before it"
        more = asyncio.gather(*(history.rename(f"more {number}") for number in range(40)))
        await turn.end(replied())
        await asyncio.gather(titles, more)
    assert (await history.info()).title.startswith("more")


# The rule behind it.


def _trees() -> Iterator[tuple[str, ast.Module]]:
    for path in PRODUCT:
        yield path.name, ast.parse(path.read_text(encoding="utf-8"))


def _calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            yield node.func.attr, node


def test_the_kernel_is_never_asked_to_wait_for_a_lock() -> None:
    asked = [(name, ast.unparse(call)) for name, tree in _trees() for what, call in _calls(tree) if what == "flock"]
    assert asked
    for name, call in asked:
        assert name == "flock.py", f"{name} goes by flock.py, which frees locks of forked children"
        assert "LOCK_NB" in call or "LOCK_UN" in call, f"{name} waits in a thread: {call}"


def test_no_lock_of_threads_is_held_while_a_coroutine_waits() -> None:
    for name, tree in _trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.With):
                waits = [
                    n for n in ast.walk(node) if isinstance(n, (ast.Await, ast.AsyncWith, ast.AsyncFor, ast.Yield))
                ]
                held = [ast.unparse(item.context_expr) for item in node.items]
                assert not waits or not any("guard" in lock or "lock" in lock for lock in held), (name, held)


def test_no_thread_waits_but_for_the_end_of_threads() -> None:
    """What waits in a thread has a deadline, or is the end of a store, which all that was started comes before."""
    waiting = ("acquire", "wait", "join", "lockf", "result", "sleep")
    waits = []
    for name, tree in _trees():
        for what, call in _calls(tree):
            is_of_strings = what == "join" and call.args
            if what in waiting and not is_of_strings and not _is_awaited(tree, call):
                waits.append((name, ast.unparse(call)))
    rest = "time.sleep(min(_REST_S, self.rest * (time.monotonic() - started)))"
    assert waits == [("check.py", "time.sleep(0.005)"), ("pace.py", rest), ("threads.py", "thread.join()")]


def _is_awaited(tree: ast.Module, call: ast.Call) -> bool:
    return any(isinstance(node, ast.Await) and node.value is call for node in ast.walk(tree))

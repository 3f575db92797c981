"""What is stuck in a server is logged with where it is, and the server is not ready until it has gone."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from langchain_core.runnables import RunnableLambda
from typing_extensions import override

from api.ops.health import health_router
from api.ops.watchdog import Watchdog
from auth.middleware import current_user
from histories.base import HistoryStore
from histories.files import threads
from histories.files.disk import Disk
from histories.files.store import FileStore
from histories.memory import MemoryStore
from tests.stores import begun, replied, talk
from tests.turns.test_with_history import PROMPT, config, question
from turns.rules import Rules
from turns.run import Turns
from turns.with_history import ChainWithHistory


async def _readiness(store: HistoryStore, watchdog: Watchdog) -> tuple[int, str]:
    app = FastAPI()
    app.include_router(health_router(store, watchdog))
    app.dependency_overrides[current_user] = lambda: "alice"
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        answer = await client.get("/readyz")
        return answer.status_code, answer.text


async def _until_ready_is(status: int, store: HistoryStore, watchdog: Watchdog) -> str:
    async with asyncio.timeout(60):
        while (answer := await _readiness(store, watchdog))[0] != status:
            await asyncio.sleep(0.01)
    return answer[1]


class _Hanging(Disk):
    def __init__(self) -> None:
        self.hangs, self.goes_on = threading.Event(), threading.Event()

    @override
    def sync(self, descriptor: int) -> None:
        if self.hangs.is_set():
            self.goes_on.wait(60)
        super().sync(descriptor)


async def test_a_disk_that_hangs_is_told_of_until_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(threads, "_WORK_S", 0.1)
    store = FileStore(tmp_path, disk=(disk := _Hanging()))
    watchdog = Watchdog(Turns(store))
    await talk(store.history("alice", "s1"), "one")
    assert (await _readiness(store, watchdog))[0] == 200
    disk.hangs.set()
    turn = asyncio.create_task(begun(store.history("alice", "s1"), "two"))
    told = await _until_ready_is(503, store, watchdog)
    assert "work of a thread has lasted" in told
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert "disk.py" in line or "in sync" in line or "test_watchdog.py" in line
    disk.goes_on.set()
    await (await turn).end(replied())
    await _until_ready_is(200, store, watchdog)
    assert any("come to its end" in record.getMessage() for record in caplog.records)
    await store.close()


async def test_a_log_that_is_never_freed_is_told_of(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    watchdog = Watchdog(Turns(store))
    store.writers.try_enter("a log")
    assert (await _readiness(store, watchdog))[0] == 200
    held = store.writers._since
    held["a log"] -= 100.0
    assert "a hold of a log" in (await _readiness(store, watchdog))[1]
    store.writers.leave("a log")
    assert (await _readiness(store, watchdog))[0] == 200


async def test_a_turn_that_goes_on_past_its_limit_is_told_of_with_where_it_is(caplog: pytest.LogCaptureFixture) -> None:
    goes_on = asyncio.Event()

    async def deaf(_: object) -> str:
        while not goes_on.is_set():
            try:
                await goes_on.wait()
            except asyncio.CancelledError:
                continue
        return "at last"

    store = MemoryStore()
    turns = Turns(store, Rules(limit_s=0.05))
    chain = ChainWithHistory(
        PROMPT | RunnableLambda(deaf), turns, chain_name="tutor", input_messages_key="question",
        history_messages_key="history",
    )  # fmt: skip
    watchdog = Watchdog(turns)
    asked = asyncio.create_task(chain.ainvoke(question("hello"), config()))
    told = await _until_ready_is(503, store, watchdog)
    assert "a turn that is generating" in told
    assert any("turn_run.py" in record.getMessage() for record in caplog.records)
    goes_on.set()
    await asyncio.gather(asked, return_exceptions=True)
    await _until_ready_is(200, store, watchdog)


async def test_who_waits_for_a_session_within_their_limit_is_no_trouble(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    first = await begun(store.history("alice", "s1"), "one")
    second = asyncio.create_task(begun(store.history("alice", "s1"), "two", wait_s=60))
    async with asyncio.timeout(60):
        while not store.waits():
            await asyncio.sleep(0.001)
    assert Watchdog(Turns(store)).trouble() is None
    await first.end(replied())
    await (await second).end(replied())
    await store.close()

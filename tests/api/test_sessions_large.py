"""Large turns and sessions on their way out and in: how many at once, and how long one may be."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from langchain_core.messages import AIMessage, HumanMessage

from api.sessions.pages import Spool, page_of_turns
from api.slow_lane import SlowLane
from histories.base import Page, Session, Turn, TurnStatus, now
from histories.memory import MemoryStore
from tests.abuse.calls import conversation, turn
from tests.api.test_door import Caller, calling
from tests.echo_model import EchoModel
from tests.live_server import Here, langserve_warns, serve_here, wait_for
from tests.proofs import proves

pytestmark = langserve_warns


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    folder = tmp_path_factory.mktemp("large")
    with serve_here(folder, model=EchoModel(), history_url="memory:", copied_bytes_per_minute=0) as server:
        yield server


def test_an_import_holds_no_turn_that_is_longer_than_turns_can_be(server: Here) -> None:
    with server.client() as client:
        long = conversation("long", [turn(0, 1, "x"), turn(1, 1, "x" * 7_000_000)])
        refused = client.post("/sessions/import", json=long)
        assert refused.status_code == 422
        assert f"turns: one may have {3 * 4 * 1024 * 1024} characters at most" in refused.text
        long["turns"].pop()
        assert client.post("/sessions/import", json=long).status_code == 201


@proves("G13")
def test_a_user_has_so_many_exports_under_way_until_they_are_read_or_left(server: Here) -> None:
    with server.client("mallory") as client, server.client("bob") as other:
        for one in (client, other):
            large = conversation("large", [turn(number, 1, "x" * 1_000_000) for number in range(5)])
            assert one.post("/sessions/import", json=large).status_code == 201
        with contextlib.ExitStack() as stack:

            def one_more_is_refused() -> bool:
                _ask(stack.enter_context(calling(server)), server)
                return client.get("/sessions/large/export").status_code == 429

            wait_for(one_more_is_refused, "sixteen to be under way")
            assert client.get("/export").status_code == 429
            assert other.get("/sessions/large/export").status_code == 200
        wait_for(lambda: client.get("/sessions/large/export").status_code == 200, "the places of who has left")


class LongSearches(MemoryStore):
    """A search in it takes until it is let go, if it is for a long one; who searches is known."""

    def __init__(self) -> None:
        super().__init__()
        self.searching, self.go = list[str](), threading.Event()

    async def sessions(
        self, user_id: str, *, limit: int = 50, cursor: str | None = None, query: str | None = None
    ) -> Page[Session]:
        if query == "long":
            self.searching.append(user_id)
            await asyncio.to_thread(self.go.wait, 20)
            self.searching.remove(user_id)
        return await super().sessions(user_id, limit=limit, cursor=cursor, query=query)


@proves("G13")
def test_searches_of_one_user_wait_for_one_another_and_others_do_not(tmp_path: Path) -> None:
    store = LongSearches()
    with (
        serve_here(tmp_path, model=EchoModel(), store=store) as server,
        server.client("mallory") as client,
        server.client("bob") as other,
        ThreadPoolExecutor(5) as threads,
    ):
        asked = [threads.submit(client.get, "/sessions?q=long") for _ in range(5)]
        wait_for(lambda: store.searching, "the first of them")
        assert other.get("/sessions?q=short").status_code == 200
        assert store.searching == ["mallory"]
        store.go.set()
        assert [one.result().status_code for one in asked] == [200] * 5


@proves("G13")
def test_who_has_too_many_searches_in_line_is_told_to_come_back(tmp_path: Path) -> None:
    store = LongSearches()
    with (
        serve_here(tmp_path, model=EchoModel(), store=store) as server,
        server.client("mallory") as client,
        server.client("bob") as other,
        ThreadPoolExecutor(38) as threads,
    ):
        asked = [threads.submit(client.get, "/sessions?q=long") for _ in range(38)]
        wait_for(lambda: sum(one.done() for one in asked) == 6, "six to be refused")
        assert other.get("/sessions?q=short").status_code == 200
        store.go.set()
        told = [one.result() for one in asked]
        assert sorted(one.status_code for one in told) == [200] * 32 + [429] * 6
        assert {"Retry-After" in one.headers for one in told if one.status_code == 429} == {True}


def _ask(caller: Caller, server: Here) -> None:
    """For an export, and takes nothing of it."""
    key = server.key("mallory")
    caller.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    caller.send(f"GET /sessions/large/export HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\n\r\n".encode())


@proves("G13")
async def test_pages_that_one_user_asks_for_at_once_are_not_all_in_memory_at_once() -> None:
    history, lane, at = MemoryStore().history("mallory", "s"), SlowLane("pages"), now()
    turns = [
        Turn(
            turn_id=f"t{number}", status=TurnStatus.COMPLETE, chain="chat", started_at=at, ended_at=at,
            input=[HumanMessage("x" * 150_000)], output=[AIMessage("y" * 150_000)],
        )
        for number in range(20)
    ]  # fmt: skip
    await history.restore(turns, title="t", created_at=at)

    async def read() -> int:
        return len(await page_of_turns(history, lane, limit=200, before=None) or b"")

    await read()
    tracemalloc.start()
    try:
        sizes = await asyncio.gather(*(read() for _ in range(100)))
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert min(sizes) > 1_000_000
    assert most < 25_000_000


def test_a_long_turn_is_sent_in_pieces() -> None:
    spool = Spool()
    spool._places.append((0, spool._file.write(b"x" * 1_000_000)))
    pieces = list(spool.pieces(b"[", lambda number: b"", b"]"))
    assert b"".join(pieces) == b"[" + b"x" * 1_000_000 + b"]"
    assert max(map(len, pieces)) < 200_000


@pytest.mark.parametrize("way", ["", "/stream"])
def test_a_large_turn_is_given_as_any_other(server: Here, way: str) -> None:
    with server.client("carol") as client:
        large = conversation(f"one{way[1:]}", [turn(0, 1, "y" * 2_000_000)])
        assert client.post("/sessions/import", json=large).status_code == 201
        answer = client.get(f"/sessions/one{way[1:]}/turns/t0{way}")
        assert answer.status_code == 200
        assert "y" * 2_000_000 in answer.text

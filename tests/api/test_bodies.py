"""Large requests of one caller wait for one another, unread, and nobody else waits for them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator

import pytest

from api.bodies import Bytes
from tests.api.test_door import Caller, calling
from tests.echo_model import EchoModel
from tests.live_server import Here, langserve_warns, serve_here, wait_for
from tests.proofs import proves
from turns.shares import LineFull

pytestmark = langserve_warns
_LARGEST = 128 * 1024


class Holders:
    """Who holds bytes, until they are told to let go."""

    def __init__(self, each: int, in_all: int) -> None:
        self.bytes, self.begun = Bytes(each, in_all), list[str]()
        self._ends: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def ask(self, *names: str, amount: int = 1) -> None:
        """Each name's first letter is its caller."""
        for name in names:
            self._ends[name] = asyncio.Event()
            self.tasks[name] = asyncio.create_task(self._hold(name, amount))
            await self._settle()

    async def _hold(self, name: str, amount: int) -> None:
        async with self.bytes.hold(name[0], amount):
            self.begun.append(name)
            await self._ends[name].wait()

    async def let_go(self, *names: str) -> None:
        for name in names:
            self._ends[name].set()
            await self._settle()

    async def _settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)


async def test_a_caller_waits_for_their_own_and_others_do_not() -> None:
    holders = Holders(2, 100)
    await holders.ask("a1", "a2", "a3", "b1")
    assert holders.begun == ["a1", "a2", "b1"]
    await holders.let_go("a2")
    assert holders.begun[-1] == "a3"


async def test_callers_who_wait_for_room_take_turns() -> None:
    holders = Holders(9, 2)
    await holders.ask("a1", "a2", "a3", "a4", "b1", "b2")
    await holders.let_go("a1", "a2", "a3", "b1")
    assert holders.begun == ["a1", "a2", "a3", "b1", "a4", "b2"]


async def test_more_than_a_caller_may_hold_counts_as_all_of_it() -> None:
    holders = Holders(2, 100)
    await holders.ask("a1", amount=50)
    await holders.ask("a2")
    assert holders.begun == ["a1"]
    await holders.let_go("a1")
    assert holders.begun == ["a1", "a2"]


async def test_who_gives_up_leaves_the_line_and_passes_room_on() -> None:
    holders = Holders(1, 100)
    await holders.ask("a1", "a2", "a3")
    holders.tasks["a2"].cancel()
    await holders.let_go("a1")
    assert holders.begun == ["a1", "a3"]
    await holders.ask("a4", "a5")
    holders._ends["a3"].set()
    await asyncio.sleep(0)
    holders.tasks["a4"].cancel()  # in the instant in which it is called
    await holders.ask("b1")
    assert {"a5", "b1"} <= {*holders.begun}


async def test_a_line_of_large_requests_is_bounded() -> None:
    holders = Holders(1, 100)
    await holders.ask("a", *(f"a{number}" for number in range(64)))
    with pytest.raises(LineFull, match="too many large requests"):
        async with holders.bytes.hold("a", 1):
            pass
    for task in holders.tasks.values():
        task.cancel()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    folder = tmp_path_factory.mktemp("bodies")
    with serve_here(folder, model=EchoModel(), history_url="memory:", max_body_bytes=_LARGEST) as server:
        yield server


def _begin(caller: Caller, server: Here, user: str, session: str) -> bytes:
    """Sends a large request but for its end, which is given."""
    body = {"input": {"input": "x" * (_LARGEST - 1000)}, "config": {"configurable": {"session_id": session}}}
    text = json.dumps(body).encode()
    head = f"POST /chat/invoke HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {server.key(user)}\r\n"
    caller.send(f"{head}Content-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n".encode() + text[:-10])
    return text[-10:]


@proves("G13")
def test_bodies_that_stall_hold_up_their_own_sender_alone(server: Here) -> None:
    with contextlib.ExitStack() as stack:
        callers = [stack.enter_context(calling(server)) for _ in range(4)]
        ends = [_begin(caller, server, "mallory", f"s{place}") for place, caller in enumerate(callers[:3])]
        wait_for(lambda: _is_silent(callers[2], ends[2]), "the third one of them")
        last = _begin(callers[3], server, "bob", "s")
        callers[3].send(last)
        assert callers[3].answer().startswith(b"HTTP/1.1 200")
        callers[0].send(ends[0])
        assert callers[0].answer().startswith(b"HTTP/1.1 200")
        assert callers[2].answer().startswith(b"HTTP/1.1 200")


def _is_silent(caller: Caller, end: bytes) -> bool:
    """Whether a whole request is not answered within a moment."""
    caller.send(end)
    caller.socket.settimeout(0.5)
    with pytest.raises(TimeoutError):
        caller.socket.recv(1)
    caller.socket.settimeout(60)
    return True


def test_chunks_count_as_the_largest_body(server: Here) -> None:
    head = f"POST /chat/invoke HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {server.key('carol')}\r\n"
    with contextlib.ExitStack() as stack:
        callers = [stack.enter_context(calling(server)) for _ in range(3)]
        for caller in callers:
            caller.send(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n")
        assert _is_silent(callers[2], b"0\r\n\r\n")
        callers[0].send(b"0\r\n\r\n")
        assert callers[0].answer().startswith(b"HTTP/1.1 422")
        assert callers[2].answer().startswith(b"HTTP/1.1 422")


def test_a_small_request_waits_for_none_of_them(server: Here) -> None:
    with contextlib.ExitStack() as stack:
        for place in range(3):
            _begin(stack.enter_context(calling(server)), server, "dave", f"s{place}")
        with server.client("dave") as client:
            body = {"input": {"input": "x"}, "config": {"configurable": {"session_id": "small"}}}
            assert client.post("/chat/invoke", json=body).status_code == 200

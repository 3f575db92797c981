"""The door: what a connection may send before anybody has looked at it, and how slowly."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from api.door import DoorRules
from tests.abuse.calls import conversation, turn
from tests.calls import call
from tests.echo_model import EchoModel
from tests.live_server import Here, langserve_warns, serve_here, wait_for
from tests.proofs import proves

pytestmark = langserve_warns

RULES = DoorRules(connections=6, connections_per_address=20)
HASTY = replace(RULES, header_s=1.0, body_s=1.0, unread_s=1.0)
_HEALTHZ = b"GET /healthz HTTP/1.1\r\nHost: here\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    with serve_here(tmp_path_factory.mktemp("door"), model=EchoModel(), history_url="memory:", door=RULES) as server:
        yield server


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    """A server that is soon out of patience."""
    with serve_here(tmp_path_factory.mktemp("hasty"), model=EchoModel(), history_url="memory:", door=HASTY) as server:
        yield server


class Caller:
    """A client that says what it likes."""

    def __init__(self, server: Here) -> None:
        host, port = server.url.removeprefix("http://").split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=60)
        self._unread = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self) -> bytes:
        """The next answer, whole, with its head."""
        while b"\r\n\r\n" not in self._unread and (more := self.socket.recv(65536)):
            self._unread += more
        head, _, body = self._unread.partition(b"\r\n\r\n")
        length = int((re.findall(rb"content-length: (\d+)", head.lower()) or [b"0"])[0])
        while len(body) < length and (more := self.socket.recv(65536)):
            body += more
        self._unread = body[length:]
        return head + b"\r\n\r\n" + body[:length]

    def is_hung_up_on(self) -> bool:
        try:
            return self.socket.recv(65536) == b""
        except ConnectionError:
            return True


@contextlib.contextmanager
def calling(server: Here) -> Iterator[Caller]:
    caller = Caller(server)
    with caller.socket:
        yield caller


def refusal(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"connection: close" in head.lower()
    return int(head[9:12]), json.loads(body)["detail"]


def _never_ends(size: int) -> bytes:
    return _HEALTHZ + b"X: " + b"a" * size


@proves("G13")
@pytest.mark.parametrize(
    "request_",
    [
        _never_ends(100_000),
        _HEALTHZ + b"X: y\r\n" * 10_000,
        _HEALTHZ + b"X: " + b"a" * 33_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 100_000,
        _HEALTHZ + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: " + b"a" * 100_000,
        _HEALTHZ + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"a" * 100_000,
    ],
    ids=["a header", "headers", "whole", "a path", "a trailer", "a chunk's extension"],
)
def test_headers_of_more_than_32_kilobytes_are_refused_before_they_are_whole(server: Here, request_: bytes) -> None:
    with calling(server) as caller:
        with contextlib.suppress(ConnectionError):
            caller.send(request_)
        if b"chunked" in request_:  # such a request is answered when its headers are there: what follows is not read on
            caller.answer()
            assert caller.is_hung_up_on()
        else:
            assert refusal(caller.answer())[0] == 431


def test_headers_of_32_kilobytes_are_taken_in_pieces_and_in_a_row(server: Here) -> None:
    request = _HEALTHZ + b"X: " + b"a" * 32_000 + b"\r\n\r\n"
    with calling(server) as caller:
        for _ in range(3):
            for start in range(0, len(request), 5_000):
                caller.send(request[start : start + 5_000])
            assert caller.answer().startswith(b"HTTP/1.1 200")
        caller.send(request * 3)
        for _ in range(3):
            assert caller.answer().startswith(b"HTTP/1.1 200")


@proves("G13")
def test_a_request_has_so_many_headers_and_no_more(server: Here) -> None:
    with calling(server) as caller:
        caller.send(_HEALTHZ + b"a:b\r\n" * 200 + b"\r\n")
        assert caller.answer().startswith(b"HTTP/1.1 200")
        caller.send(_HEALTHZ + b"a:b\r\n" * 6_000 + b"\r\n")
        status, sentence = refusal(caller.answer())
        assert (status, sentence) == (431, "A request has at most 256 headers.")


@proves("G13")
def test_a_body_in_chunks_of_one_byte_is_refused_unless_it_is_short(server: Here) -> None:
    head = b"POST /render HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
    head += b"Authorization: Bearer " + server.key("alice").encode() + b"\r\n\r\n"

    def chunked(text: bytes) -> bytes:
        return b"".join(b"1\r\n%c\r\n" % byte for byte in text) + b"0\r\n\r\n"

    with calling(server) as caller:
        caller.send(head + chunked(json.dumps({"texts": ["a" * 4000]}).encode()))
        assert caller.answer().startswith(b"HTTP/1.1 200")
        with contextlib.suppress(ConnectionError):
            caller.send(head + chunked(b"a" * 100_000))
        assert refusal(caller.answer())[0] == 431


@pytest.mark.parametrize("hosts", [b"", b"Host: a\r\nHost: b\r\n", b"Host: a\r\nhost: a\r\n"])
def test_a_request_has_one_host(server: Here, hosts: bytes) -> None:
    with calling(server) as caller:
        caller.send(b"GET /healthz HTTP/1.1\r\n" + hosts + b"\r\n")
        assert refusal(caller.answer())[0] == 400


def test_http_1_0_needs_no_host(server: Here) -> None:
    with calling(server) as caller:
        caller.send(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert caller.answer().startswith(b"HTTP/1.1 200")


def test_what_is_not_http_is_told_so(server: Here) -> None:
    with calling(server) as caller:
        caller.send(b"\x16\x03\x01 hello\r\n\r\n")
        assert refusal(caller.answer())[0] == 400


def test_an_upgrade_that_nobody_speaks_is_a_request_like_others(server: Here) -> None:
    with calling(server) as caller:
        caller.send(_HEALTHZ + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        assert caller.answer().startswith(b"HTTP/1.1 200")


def test_headers_have_a_time(hasty: Here) -> None:
    with calling(hasty) as caller, calling(hasty) as silent:
        caller.send(_HEALTHZ)
        assert refusal(caller.answer())[0] == 408
        assert silent.is_hung_up_on()


def test_a_body_may_not_pause_for_long(hasty: Here) -> None:
    key = hasty.key("alice").encode()
    with calling(hasty) as caller:
        caller.send(b"POST /chat/invoke HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\nAuthorization: Bearer " + key)
        caller.send(b"\r\n\r\n{")
        assert refusal(caller.answer())[0] == 408


def test_a_body_that_comes_slowly_but_steadily_is_taken(hasty: Here) -> None:
    key, body = hasty.key("alice").encode(), json.dumps({"texts": ["a" * 4000]}).encode()
    with calling(hasty) as caller:
        caller.send(
            b"POST /render HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nAuthorization: Bearer " + key
        )
        caller.send(b"\r\nContent-Length: %d\r\n\r\n" % len(body))
        for start in range(0, len(body), 500):
            caller.send(body[start : start + 500])
            time.sleep(0.15)  # 1.2 s in all
        assert caller.answer().startswith(b"HTTP/1.1 200")


def test_who_has_a_place_and_no_request_makes_room(server: Here) -> None:
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(calling(server)) for _ in range(RULES.connections)]
        caller = stack.enter_context(calling(server))
        caller.send(_HEALTHZ + b"\r\n")
        assert caller.answer().startswith(b"HTTP/1.1 200")
        assert idle[0].is_hung_up_on()


@proves("G13")
def test_an_address_has_so_many_connections_and_no_more(tmp_path: Path) -> None:
    rules = DoorRules(connections=10, connections_per_address=3)
    with serve_here(tmp_path, model=EchoModel(), history_url="memory:", door=rules) as server:
        with contextlib.ExitStack() as stack:
            for _ in range(3):
                stack.enter_context(calling(server))
            assert refusal(stack.enter_context(calling(server)).answer())[0] == 429

        def is_served() -> bool:
            with calling(server) as caller:
                caller.send(_HEALTHZ + b"\r\n")
                return caller.answer().startswith(b"HTTP/1.1 200")

        wait_for(is_served, "the places of those who left")


def test_an_answer_that_nobody_reads_is_given_up(hasty: Here) -> None:
    key = hasty.key("alice").encode()
    with hasty.client("alice") as client:
        assert call(client, "word " * 400_000, "big").status_code == 200
    with calling(hasty) as caller:
        caller.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        caller.send(b"GET /sessions/big/export HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer " + key + b"\r\n\r\n")

        def hung_up() -> bool:
            try:
                caller.send(b"\r\n")
            except ConnectionError:
                return True
            return False

        wait_for(hung_up, "the server's patience to end")


@proves("G13")
def test_who_takes_nothing_of_much_is_hung_up_on_before_memory_is_full(tmp_path: Path) -> None:
    rules = DoorRules(unread_bytes=8_000_000)
    with serve_here(tmp_path, model=EchoModel(), history_url="memory:", door=rules) as server:
        with server.client("alice") as client:
            long = conversation("long", [turn(0, 1, "x" * 3_000_000)])
            assert client.post("/sessions/import", json=long).status_code == 201
        said = f"GET /sessions/long/turns HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {server.key('alice')}\r\n\r\n"
        with contextlib.ExitStack() as stack:
            lazy = [stack.enter_context(calling(server)) for _ in range(8)]
            for caller in lazy:
                caller.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                caller.send(said.encode())

            def hung_up_on() -> list[Caller]:
                return [caller for caller in lazy if not _is_open(caller)]

            wait_for(hung_up_on, "the server to hang up on somebody")
            assert _is_open(lazy[-1])  # who has had their answer for longest is the first
            with calling(server) as caller:
                caller.send(said.encode())
                assert b'"next"' in caller.answer()


def _is_open(caller: Caller) -> bool:
    try:
        caller.send(b"\r\n")
    except ConnectionError:
        return False
    return True

"""The transport against servers that send what they like, byte by byte."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from ssl import create_default_context

import httpx2
import pytest
import uvloop

from chat_models.http_transport import HttpTransport

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@asynccontextmanager
async def client_of(
    answer: Answer, *, keepalive_s: float = 60, timeout: float = 60
) -> AsyncIterator[httpx2.AsyncClient]:
    """A client, and behind it a server that does so with each connection."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://localhost:{server.sockets[0].getsockname()[1]}"
    transport = HttpTransport(create_default_context(), keepalive_s=keepalive_s, otherwise=httpx2.AsyncHTTPTransport())
    async with (
        server,
        httpx2.AsyncClient(transport=transport, base_url=url, timeout=timeout, trust_env=False) as client,
    ):
        yield client


async def request_of(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return head + await reader.readexactly(size)


def saying(*parts: bytes, ends: bool = True) -> Answer:
    """Answers each request with these bytes; then the connection ends, or is kept."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await request_of(reader)
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0)
            if ends:
                return

    return answer


async def test_the_request_comes_as_it_was_made() -> None:
    seen = list[bytes]()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await request_of(reader))
        writer.write(OK)

    async with client_of(answer) as client:
        response = await client.post("/v1/chat?a=b", content=b"hello", headers={"X-One": "1"})
    assert (response.status_code, response.text, response.http_version) == (200, "ok", "HTTP/1.1")
    assert seen[0].startswith(b"POST /v1/chat?a=b HTTP/1.1\r\nHost: localhost:")
    assert b"\r\nX-One: 1\r\n" in seen[0]
    assert seen[0].endswith(b"\r\n\r\nhello")


@pytest.mark.parametrize(
    "parts",
    [
        [OK],
        [OK[place : place + 1] for place in range(len(OK))],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n", b"1\r\nk\r\n0\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\n\r\no", b"k"],
        [b"HTTP/1.1 100 Continue\r\n\r\n", OK],
        [b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n", OK],
        [OK.replace(b"\r\n", b"\n")],
        [OK.replace(b"Content", b"X: a\r\n b\r\nContent")],
        [OK.replace(b"Content", b"X: a\x01b\r\nContent")],
        [OK.replace(b"Content", b"X: \xc3\xa9\xff\r\nContent")],
        [OK.replace(b"200 OK", b"200")],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2 ;a=b\r\nok\r\n0  \r\nX: 1\r\n\r\n"],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"],
    ],
    ids=[
        "length",
        "bytes",
        "chunks",
        "until the end",
        "continue",
        "hints",
        "newlines",
        "a header over two lines",
        "a control character",
        "no ASCII",
        "no reason",
        "padding",
        "a length beside chunks",
    ],
)
async def test_a_body_is_read_however_it_comes(parts: list[bytes]) -> None:
    async with client_of(saying(*parts)) as client:
        assert (await client.post("/", content=b"x")).text == "ok"


async def test_all_that_one_read_brought_comes_at_once() -> None:
    chunks = b"".join(b"3\r\none\r\n" for _ in range(50))
    answer = saying(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")
    async with client_of(answer) as client, client.stream("POST", "/", content=b"x") as response:
        assert [part async for part in response.aiter_raw()] == [b"one" * 50]


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [b"HTTP/1.1 200 OK\r\nContent-Le"],
        [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok"],
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nok"],
        [b"SSH-2.0-OpenSSH\r\n"],
        [b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000],
    ],
    ids=["nothing", "head", "length", "chunk", "no HTTP", "long head"],
)
async def test_what_is_no_whole_response_is_an_error(parts: list[bytes]) -> None:
    async with client_of(saying(*parts)) as client:
        with pytest.raises((httpx2.RemoteProtocolError, httpx2.ReadError)):
            await client.post("/", content=b"x")


async def test_silence_ends_in_a_timeout_and_words_begin_it_anew() -> None:
    limit_s = 1.0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        for _ in range(4):
            writer.write(b"x")
            await asyncio.sleep(0.4 * limit_s)
        await asyncio.sleep(60)

    async def heard() -> list[bytes]:
        parts = list[bytes]()
        async with client_of(answer, timeout=limit_s) as client, client.stream("POST", "/", content=b"x") as response:
            words = response.aiter_raw()
            try:
                while True:
                    parts.append(await anext(words))
            except httpx2.ReadTimeout:
                pass
        return parts

    while (parts := await heard()) != [b"x"] * 4 and limit_s < 8:  # a machine may be slow for a moment
        limit_s *= 2
    assert parts == [b"x"] * 4


async def test_a_connection_is_used_again_until_it_has_rested_too_long() -> None:
    met, ended, rests_s = list[asyncio.StreamReader](), asyncio.Event(), 0.2

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        met.append(reader)
        try:
            await saying(OK, ends=False)(reader, writer)
        finally:
            ended.set()

    async def asked_often() -> None:
        met.clear()
        ended.clear()
        async with client_of(answer, keepalive_s=rests_s) as client:
            for _ in range(3):
                await client.post("/", content=b"x")
            often = len(met)
            await asyncio.wait_for(ended.wait(), 60)  # the server hears of its end, though nobody asks for anything
            await client.post("/", content=b"x")
            assert len(met) == often + 1

    await asked_often()
    while len(met) > 2 and rests_s < 10:  # a machine may be slow for a moment
        rests_s *= 4
        await asked_often()
    assert len(met) == 2


@pytest.mark.parametrize(
    "response",
    [
        OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmore",
        OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
        OK.replace(b"1.1", b"1.0"),
    ],
    ids=["too much", "close", "old"],
)
async def test_a_connection_that_can_not_be_kept_is_not(response: bytes) -> None:
    met = list[asyncio.StreamReader]()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        met.append(reader)
        await saying(response, ends=False)(reader, writer)

    async with client_of(answer) as client:
        for _ in range(2):
            assert (await client.post("/", content=b"x")).text == "ok"
    assert len(met) == 2


@pytest.mark.parametrize("words", [b"", b"HTTP/1.1 2"], ids=["nothing", "a word"])
async def test_a_connection_that_ends_as_it_is_used_again_is_replaced_if_it_said_nothing(words: bytes) -> None:
    requests = list[bytes]()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await request_of(reader))
        writer.write(OK)
        requests.append(await request_of(reader))  # on the same connection
        writer.write(words)

    async with client_of(answer) as client:
        assert (await client.post("/", content=b"one")).text == "ok"
        if words:
            with pytest.raises(httpx2.RemoteProtocolError):
                await client.post("/", content=b"two")
        else:
            assert (await client.post("/", content=b"two")).text == "ok"
    assert [request[-3:] for request in requests] == [b"one", b"two"] + [b"two"] * (not words)


async def test_connections_that_ended_while_nobody_looked_are_all_replaced() -> None:
    """As by a server that takes resting connections away while this process has no time for its event loop."""
    both, ends = asyncio.Barrier(2), asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        if not ends.is_set():
            await both.wait()
        writer.write(OK)
        await writer.drain()
        await reader.read(1)  # the next request begins, too late

    async with client_of(answer) as client:
        await asyncio.gather(*(client.post("/", content=b"x") for _ in range(2)))
        ends.set()
        assert (await client.post("/", content=b"x")).text == "ok"


async def test_who_stops_reading_stops_the_server() -> None:
    sent = 0
    gone = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await request_of(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            while True:
                writer.write(b"x" * 65536)
                await writer.drain()
                sent += 65536
        finally:
            gone.set()

    async with client_of(answer) as client:
        async with client.stream("POST", "/", content=b"x") as response:
            await anext(response.aiter_raw())
            before = -1
            while before != sent:  # until the server waits
                before = sent
                await asyncio.sleep(0.2)
            assert sent < 64 * 2**20
        await asyncio.wait_for(gone.wait(), 60)  # leaving a body ends the connection


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
async def test_the_connections_of_a_loop_end_with_it(new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """A blocking step of a chain may run a loop of its own, for a single call of the model."""
    open_ones = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal open_ones
        open_ones += 1
        try:
            await saying(OK, ends=False)(reader, writer)
        finally:
            open_ones -= 1

    async with client_of(answer) as client:

        def ask() -> str:
            with asyncio.Runner(loop_factory=new_loop) as runner:
                return runner.run(client.post("/", content=b"x")).text

        assert (await client.post("/", content=b"x")).text == "ok"
        for _ in range(3):
            assert await asyncio.gather(*(asyncio.to_thread(ask) for _ in range(3))) == ["ok"] * 3
        async with asyncio.timeout(5):
            while open_ones != 1:
                await asyncio.sleep(0.01)
        assert (await client.post("/", content=b"x")).text == "ok"


async def test_the_end_of_the_client_ends_the_connections_of_a_loop_that_goes_on() -> None:
    ended = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await saying(OK, ends=False)(reader, writer)
        finally:
            ended.set()

    def go_on() -> None:
        with asyncio.Runner() as runner:
            assert runner.run(client.post("/", content=b"x")).text == "ok"
            has_asked.set()
            runner.run(asyncio.to_thread(may_end.wait, 5))

    has_asked, may_end = threading.Event(), threading.Event()
    async with client_of(answer) as client:
        going = asyncio.create_task(asyncio.to_thread(go_on))
        try:
            assert await asyncio.to_thread(has_asked.wait, 5)
            await client.aclose()
            await asyncio.wait_for(ended.wait(), 5)
        finally:
            may_end.set()
            await going


async def test_a_loop_that_was_closed_without_a_word_is_forgotten() -> None:
    async with client_of(saying(OK, ends=False)) as client:

        def ask() -> None:
            loop = asyncio.new_event_loop()
            try:
                assert loop.run_until_complete(client.post("/", content=b"x")).text == "ok"
            finally:
                loop.close()

        async def ask_again() -> None:
            assert (await client.post("/", content=b"x")).text == "ok"
            gc.collect()

        await asyncio.to_thread(ask)
        with pytest.warns(ResourceWarning):  # asyncio's own, of who closes a loop so: nobody holds the connection
            await ask_again()


async def test_nobody_there_is_a_connect_error() -> None:
    async with client_of(saying(OK)) as client:
        with pytest.raises(httpx2.ConnectError):
            await client.post("http://127.0.0.1:9/", content=b"x")


async def test_what_is_not_a_post_of_known_length_goes_the_usual_way() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)

    async with client_of(answer) as client:
        assert (await client.get("/")).text == "ok"

"""What else an offender might think of. As the other attacks, bounded in time and in number."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
from langserve.lzstring import LZString

from tests.abuse.attack import attack
from tests.abuse.calls import (
    ELSEWHERE,
    Told,
    config,
    connect,
    conversation,
    everything,
    few,
    question,
    raw,
    send,
    turn,
)
from tests.live_server import Live


def head_of(server: Live, method: str, path: str, *more: str) -> bytes:
    """The head of a request of Mallory's, but for what ends it."""
    lines = [f"{method} {path} HTTP/1.1", "Host: a", f"Authorization: Bearer {server.key('mallory')}", *more]
    return "\r\n".join([*lines, ""]).encode()


async def unread(server: Live, request: bytes, wait_s: float) -> str:
    """Asks, takes nothing of the answer, and waits until it is hung up on."""
    where = urlsplit(server.url)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    with contextlib.closing(sock):
        await loop.sock_connect(sock, (str(where.hostname), int(where.port or 0)))
        await loop.sock_sendall(sock, request)
        await asyncio.sleep(wait_s)
        return "unread"


async def _a_long_session(server: Live, scale: float) -> Told:
    async with server.async_client("mallory") as client:
        client.timeout = httpx.Timeout(120)
        large = conversation("large", [turn(number, 1, "x" * few(60_000, scale)) for number in range(60)])
        return await everything([send(client, "POST", "/sessions/import", large)])


@attack("unread", prepare=_a_long_session)
async def answers_that_nobody_reads(server: Live, scale: float) -> Told:
    """100 exports of 7 MB and 200 long streams whose clients take nothing of them."""
    export = head_of(server, "GET", "/sessions/large/export") + b"\r\n"
    said = [export] * few(100, scale)
    for number in range(few(200, scale)):
        body = json.dumps(question("[[n 2000]] [[slow 0.01]] x", f"unread-{number}")).encode()
        said.append(head_of(server, "POST", "/chat/stream", f"Content-Length: {len(body)}") + b"\r\n" + body)
    return await everything(unread(server, one, 20 * scale) for one in said)


@attack("400", "401", "408", "413", "422", "hung up", "still open")
async def lengths_that_lie(server: Live, scale: float) -> Told:
    """Bodies that are shorter or longer than said, lengths that are none, and two ways to say it at once."""
    heads = [
        ("Content-Length: 100000000",), ("Content-Length: 99999999999999999999999",), ("Content-Length: -1",),
        ("Content-Length: 5", "Content-Length: 6"), ("Content-Length: 4", "Transfer-Encoding: chunked"),
        ("Content-Length: 1_0",), ("Transfer-Encoding: gzip, chunked",), ("Transfer-Encoding: chunked, identity",),
    ]  # fmt: skip
    said = [head_of(server, "POST", "/chat/invoke", *more) + b"\r\n{}xxxxxxxx" for more in heads]
    return await everything(raw(server, one, wait_s=5, address=ELSEWHERE) for one in said * few(20, scale))


@attack("200", "413", "422", "431", "hung up")
async def chunks_of_one_byte(server: Live, scale: float) -> Told:
    """Four bodies of 4 MB, each byte a chunk of its own: 24 MB each."""
    text = json.dumps(question("x" * few(4_000_000, scale), "chunks")).encode()
    head = head_of(server, "POST", "/chat/invoke", "Content-Type: application/json", "Transfer-Encoding: chunked")

    def said() -> Iterator[bytes]:
        yield head + b"\r\n"
        for start in range(0, len(text), 50_000):
            yield b"".join(b"1\r\n%c\r\n" % byte for byte in text[start : start + 50_000])
        yield b"0\r\n\r\n"

    return await everything(raw(server, said(), wait_s=60) for _ in range(4))


@attack("400", "413", "422", "429", "200", "201")
async def nesting(server: Live, scale: float) -> Told:
    """JSON that is 2,000,000 brackets deep, or 900, in bodies of turns and imports."""
    async with server.async_client("mallory") as client:
        deep = [b"[" * few(2_000_000, scale), b'{"a":' * few(600_000, scale), b"[" * 900 + b"]" * 900]
        bodies = [one for inner in deep for one in (inner, b'{"input": {"input": %s}}' % inner)]
        bodies += [b'{"version": 1, "session_id": "n", "turns": [%s]}' % inner for inner in deep]
        paths = ("/chat/invoke", "/chat/stream_log", "/sessions/import", "/sessions/import/convert", "/render")
        return await everything(send(client, "POST", path, body) for path in paths for body in bodies)


@attack("200", "400", "413", "422", "429")
async def numbers(server: Live, scale: float) -> Told:
    """Numbers of 4,000,000 digits, thousands of 4,300, and those that are none."""
    long = b"[%s]" % b",".join([b"9" * 4_300] * few(900, scale))
    texts = [b"9" * few(4_000_000, scale), long, b"[%s]" % b",".join([b"1e999999999"] * 9_000), b"NaN", b"-Infinity"]
    async with server.async_client("mallory") as client:
        bodies = [b'{"input": {"input": "x", "more": %s}, "config": {"configurable": {"session_id": "n"}, "metadata": '
                  b'{"a": %s}}}' % (text, text[:1_000_000]) for text in texts]  # fmt: skip
        bodies += [b'{"input": {"input": "x"}, "config": {"tags": %s, "max_concurrency": %s}}' % (one, one)
                   for one in (b"9" * 4000, b"NaN")]  # fmt: skip
        paths = ("/chat/invoke", "/chat/batch", "/sessions/import", "/sessions/import/convert")
        return await everything(send(client, "POST", path, body) for path in paths for body in bodies * few(4, scale))


async def get_all(server: Live, paths: list[str], count: int, timeout: float = 60) -> Told:
    async with server.async_client("mallory") as client:
        client.timeout = httpx.Timeout(timeout)
        return await everything(send(client, "GET", path) for path in paths * count)


async def _many_sessions(server: Live, scale: float) -> Told:
    """10,000 conversations of 5 turns."""
    async with server.async_client("mallory") as client:
        client.timeout = httpx.Timeout(180)
        told = Told()
        for first in range(0, few(10_000, scale), 20):
            bodies = [
                conversation(f"s{n}", [turn(number, 1, f"aaaa {number} word{n} %_ (a+)+$") for number in range(5)])
                for n in range(first, first + 20)
            ]
            told += await everything(send(client, "POST", "/sessions/import", body) for body in bodies)
        return told


_COPIES = {"RECOLLECT_COPIES_PER_MINUTE": "0", "RECOLLECT_COPIED_BYTES_PER_MINUTE": "0"}


_QUERIES = [
    "(a+)+$",
    "%%%%%%%%",
    "_" * 200,
    "a" * 200,
    ".*",
    "word5",
    "'\"; --",
    "\\" * 100,
    "aaaa " * 40,
    "a",
    "\u0001é",
]


@attack("200", "422", "429", prepare=_many_sessions, settings=_COPIES)
async def searches(server: Live, scale: float) -> Told:
    """Of words that are patterns elsewhere, over 10,000 conversations, and lists of them, 20 of each at once."""
    paths = [f"/sessions?limit=200&q={quote(query)}" for query in _QUERIES] + [
        "/sessions?limit=200",
        "/sessions?limit=1",
    ]
    return await get_all(server, paths, few(20, scale))


@attack("200", "ReadTimeout", "429")
async def many_watches(server: Live, scale: float) -> Told:
    """1,000 who watch one turn, and 500 who wait for its end."""
    async with server.async_client("mallory") as client:
        client.timeout = httpx.Timeout(60)
        body = question(f"[[n {few(100, scale, 10)}]] [[slow 0.05]] x", "watched", turn_id="t")
        asking = asyncio.create_task(send(client, "POST", "/chat/stream", body))
        await asyncio.sleep(0.5)
        place = "/sessions/watched/turns/t"
        paths = [f"{place}/stream"] * few(1000, scale) + [f"{place}?wait=20"] * few(500, scale)
        told = await everything(send(client, "GET", path) for path in paths)
        return told + Told([await asking])


@attack("200", "400", "hung up", "still open")
async def pipelines_and_upgrades(server: Live, scale: float) -> Told:
    """10,000 requests in one write, in HTTP/1.1 and 1.0, of nobody and of somebody; and upgrades."""
    count = few(10_000, scale)
    plain, mine = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", head_of(server, "GET", "/sessions") + b"\r\n"
    kept = b"GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
    upgrade = b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n"
    said = [plain * count, mine * count, kept * count, *(upgrade % kind * 100 for kind in (b"websocket", b"h2c"))]
    said.append(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    return await everything(_drained(server, one, 10 * scale) for one in said)


async def _drained(server: Live, said: bytes, wait_s: float) -> str:
    """Says it all, and reads for so long; the first status."""
    try:
        reader, writer = await connect(server, address=ELSEWHERE)
        first = b""
        writing = asyncio.create_task(_written(writer, said))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                while piece := await reader.read(65536):
                    first = first or piece[9:12]
        writing.cancel()
        writer.close()
        return first.decode() or "hung up"
    except ConnectionError:
        return "hung up"


async def _written(writer: asyncio.StreamWriter, said: bytes) -> None:
    with contextlib.suppress(ConnectionError):
        writer.write(said)
        await writer.drain()


@attack("202", "429")
async def turns_that_nobody_waits_for(server: Live, scale: float) -> Told:
    """800 turns at once with `Prefer: respond-async`, each of some seconds."""
    async with server.async_client("mallory") as client:
        client.timeout = httpx.Timeout(60)
        headers, count = {"Prefer": "respond-async"}, few(800, scale)
        told = await everything(
            send(client, "POST", "/chat/invoke", question("[[n 50]] [[slow 0.05]] x", f"a{n}"), headers)
            for n in range(count)
        )
    if count > 700 and not told["429"]:
        told["no limit"] += 1
    return told


@attack("200", "206", "304", "416", "404", prepare=_a_long_session)
async def ranges(server: Live, scale: float) -> Told:
    """Thousands of ranges of one file, and of an export."""
    headers = {"Range": "bytes=" + ",".join(f"{n}-{n + 5}" for n in range(2_500))}
    async with server.async_client("mallory") as client:
        client.timeout = httpx.Timeout(60)
        paths = ("/web/app.js", "/docs", "/sessions/large/export", "/openapi.json")
        return await everything(send(client, "GET", path, headers=headers) for path in paths * few(5, scale))


@attack("200", "413", "422", "429", "502")
async def attachments(server: Live, scale: float) -> Told:
    """Images of 3 MB and of 10 MB in base64, in messages."""
    async with server.async_client("mallory") as client:
        client.timeout = httpx.Timeout(60)

        def body(size: int, session: str) -> dict[str, Any]:
            data = base64.b64encode(b"\xff" * size).decode()
            part = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
            return {"input": {"input": [{"type": "text", "text": "x"}, part]}, "config": config(session)}

        sizes = [few(2_900_000, scale), few(10_000_000, scale)]
        bodies = [body(size, f"att-{place}") for place, size in enumerate(sizes * few(5, scale))]
        return await everything(
            send(client, "POST", f"/chat/{way}", one) for one in bodies for way in ("invoke", "stream")
        )


@attack("200", "204", "404", "409", "412", "413", "422", "429")
async def changes_in_a_loop(server: Live, scale: float) -> Told:
    """A title given 1,000 times, feedback, notes, rewinds and stops, 20 at a time."""
    async with server.async_client("mallory") as client:
        client.timeout = httpx.Timeout(60)
        told = await everything(
            [send(client, "POST", "/chat/invoke", question("x", "loop", turn_id="t")) for _ in range(1)]
        )
        notes = {
            "notes": [{"note_id": f"n{n}", "text": "x" * 1000, "created_at": "2026-03-01T09:30:00Z"} for n in range(50)]
        }
        acts: list[tuple[str, str, Any]] = [
            ("PATCH", "/sessions/loop", {"title": "x" * 200}),
            ("PUT", "/sessions/loop/turns/t/feedback", {"score": 1, "comment": "x" * 1000}),
            ("PUT", "/memory", notes),
            ("POST", "/sessions/loop/stop", None),
            ("GET", "/export", None),
        ]
        for _ in range(few(50, scale)):
            told += await everything(send(client, method, path, body) for method, path, body in acts for _ in range(20))
        return told


@attack("200", "307", "400", "404", "414", "422", "431", "hung up")
async def config_hashes(server: Live, scale: float) -> Told:
    """Configs that are packed small and grow large, and paths of 30 kB."""
    text = json.dumps({"tags": ["x" * few(400_000, scale)]})
    packed = LZString.compressToEncodedURIComponent(text)  # type: ignore[no-untyped-call]  # LangServe's own
    async with server.async_client("mallory") as client:
        client.timeout = httpx.Timeout(60)
        paths = [f"/chat/c/{one}/{way}" for one in (packed[:4000], packed[:30_000], "x" * 4000) for way in
                 ("input_schema", "playground", "config_schema")]  # fmt: skip
        paths += ["/" + "a/" * 15_000, "/sessions/" + "%61" * 10_000, "/web/" + "../" * 5_000]
        told = await everything(send(client, "GET", path) for path in paths * few(10, scale))
        body = {"input": {"input": "x"}}
        return told + await everything(
            send(client, "POST", f"/chat/c/{packed[:4000]}/invoke", body) for _ in range(few(10, scale))
        )


@attack("200", "401", "403", "404", "405", "413", "422", "429")
async def doors_that_are_open(server: Live, scale: float) -> Told:
    """Sign-ins, links and shared pages that are none, by nobody: 200 of each."""
    async with server.async_client(None) as client:
        client.timeout = httpx.Timeout(60)
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        asking = [
            ("POST", "/login", b"key=rk_wrong", form),
            ("POST", "/login", b"a=b&" * 200_000, form),
            ("GET", "/login?token=wrong", None, {}),
            ("GET", "/shared/wrong", None, {}),
            ("GET", "/sessions", None, {"Authorization": "Bearer " + "a.b.c" * 5000}),
            ("GET", "/sessions", None, {"Cookie": ";".join(["recollect=a"] * 2000)}),
        ]
        return await everything(
            send(client, method, path, body, headers)
            for method, path, body, headers in asking
            for _ in range(few(200, scale))
        )


@attack("200", "422", "431", "hung up", "400")
async def many_small_headers(server: Live, scale: float) -> Told:
    """7,000 headers in 32 kB, 200 times."""
    said = head_of(server, "GET", "/sessions") + b"a:b\r\n" * 6_300 + b"\r\n"
    return await everything(raw(server, said, wait_s=30) for _ in range(few(200, scale)))

"""What an offender does. Each attack is bounded in time and in number; `scale` 1 is the whole of it.

An attack gives what it was told: a status, or a word, and how often.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.live_server import Live

Told = Counter[str]
Attack = Callable[[Live, float], Awaitable[Told]]
_AT = "2026-03-01T09:30:00.250000Z"


async def _raw(server: Live, said: bytes, *, wait_s: float) -> str:
    """Says something to the server's socket: the status that comes back, or that it hung up, or that it waits."""
    where = urlsplit(server.url)
    try:
        reader, writer = await asyncio.open_connection(where.hostname, where.port)
    except OSError:
        return "refused"
    try:
        for start in range(0, len(said), 1 << 20):
            writer.write(said[start : start + (1 << 20)])
            await asyncio.wait_for(writer.drain(), wait_s)
        head = await asyncio.wait_for(reader.read(64), wait_s)
        return head[9:12].decode() or "hung up"
    except TimeoutError:
        return "still open"
    except ConnectionError:
        return "hung up"
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def _all(asking: Iterable[Awaitable[str]]) -> Told:
    return Counter(await asyncio.gather(*asking))


async def _send(client: httpx.AsyncClient, method: str, path: str, body: Any = None) -> str:
    try:
        content = None if body is None else json.dumps(body)
        answer = await client.request(method, path, content=content, headers={"Content-Type": "application/json"})
        return str(answer.status_code)
    except httpx.HTTPError as error:
        return type(error).__name__


def _turn(number: int, messages: int, text: str) -> dict[str, Any]:
    said = [{"type": "ai", "data": {"content": text, "type": "ai"}}] * messages
    asked = [{"type": "human", "data": {"content": text, "type": "human"}}]
    return {
        "turn_id": f"t{number}", "status": "complete", "chain": "chat", "started_at": _AT, "ended_at": _AT,
        "input": asked, "output": said,
    }  # fmt: skip


def _conversation(name: str, turns: list[dict[str, Any]]) -> dict[str, Any]:
    return {"version": 1, "session_id": name, "title": "T", "created_at": _AT, "turns": turns}


def _config(session_id: str) -> dict[str, Any]:
    return {"configurable": {"session_id": session_id}}


async def nothing(server: Live, scale: float) -> Told:
    """What others wait when nobody does anything: on a machine that is busy otherwise, the measure of the rest."""
    await asyncio.sleep(3 * scale)
    return Counter()


async def headers_without_end(server: Live, scale: float) -> Told:
    """A header of 128 MB, twice, by nobody."""
    said = b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: " + b"a" * int(128_000_000 * scale)
    return await _all(_raw(server, said, wait_s=15) for _ in range(2))


async def connections_that_dawdle(server: Live, scale: float) -> Told:
    """300 that never end their headers, 300 that never end their body, 300 that say nothing."""
    key, count = server.key("mallory"), int(300 * scale)
    said = (
        b"GET /healthz HTTP/1.1\r\nHost: a\r\n",
        f"POST /chat/invoke HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\nContent-Length: 9\r\n\r\n{{".encode(),
        b"",
    )
    return await _all(_raw(server, one, wait_s=45 * scale) for one in said for _ in range(count))


async def batches(server: Live, scale: float) -> Told:
    """A batch of 3,000, and some that are as large as they may be."""
    async with server.async_client("mallory") as client:
        sizes = [3000, *[100] * max(1, int(10 * scale))]
        bodies = [
            {
                "inputs": [{"input": "x"}] * size,
                "config": [_config(f"b{place}-{number}") for number in range(size)],
            }
            for place, size in enumerate(sizes)
        ]
        return await _all(_send(client, "POST", "/chat/batch", body) for body in bodies)


async def imports(server: Live, scale: float) -> Told:
    """14,000 short turns, 80 turns of 1,000 messages; then pages of them, and five exports at once."""
    short = _conversation("short", [_turn(number, 1, "x") for number in range(int(14_000 * scale))])
    long = _conversation("long", [_turn(number, 999, "") for number in range(max(1, int(80 * scale * 0.5)))])
    async with server.async_client("mallory") as client:
        client.timeout = httpx.Timeout(120)
        told = await _all(_send(client, "POST", "/sessions/import", body) for body in (short, long))
        reads = [f"/sessions/{name}/turns?limit=200" for name in ("short", "long") for _ in range(5)]
        reads += [f"/sessions/{name}/export" for name in ("short", "long") for _ in range(5)]
        told += await _all(_send(client, "GET", path) for path in reads)
        return told


async def texts_to_render(server: Live, scale: float) -> Told:
    """Markdown that takes the square of its length, ten texts to a call, ten calls."""
    bodies = [{"texts": [text * (50_000 // len(text))] * 10} for text in ("*a_ ", "[]", "[x][")]
    async with server.async_client("mallory") as client:
        bodies = (bodies * 3)[: max(1, int(9 * scale))]
        return await _all(_send(client, "POST", "/render", body) for body in bodies)


async def forks(server: Live, scale: float) -> Told:
    """60 forks of a session of 4 MB."""
    large = _conversation("large", [_turn(number, 1, "x" * int(30_000 * scale)) for number in range(60)])
    async with server.async_client("mallory") as client:
        client.timeout = httpx.Timeout(120)
        told = await _all([_send(client, "POST", "/sessions/import", large)])
        bodies = [{"session_id": f"fork-{n}", "turn_id": "t59"} for n in range(int(60 * scale) or 1)]
        return told + await _all(_send(client, "POST", "/sessions/large/fork", body) for body in bodies)


async def streams(server: Live, scale: float) -> Told:
    """1,200 streams at once, each in a session of its own."""
    async with server.async_client("mallory") as client:
        client.timeout = httpx.Timeout(60)
        return await _all(
            _send(client, "POST", "/chat/stream", {"input": {"input": "[[n 20]] x"}, "config": _config(f"s{n}")})
            for n in range(int(1200 * scale))
        )


async def turns_in_one_session(server: Live, scale: float) -> Told:
    """700 turns that wait for one another."""
    async with server.async_client("mallory") as client:
        client.timeout = httpx.Timeout(15)
        return await _all(
            _send(client, "POST", "/chat/invoke", {"input": {"input": "x"}, "config": _config("one")})
            for _ in range(int(700 * scale))
        )


async def wrong_keys(server: Live, scale: float) -> Told:
    """600 keys that are none."""
    async with server.async_client(None) as client:
        client.headers["Authorization"] = "Bearer rk_wrong"
        return await _all(_send(client, "GET", "/sessions") for _ in range(int(600 * scale)))


async def large_bodies(server: Live, scale: float) -> Told:
    """4 MB of JSON made of many values, to an endpoint that checks them all."""
    history = [{"type": "human", "content": "x"}] * int(80_000 * scale)
    body = {"input": {"input": "x", "history": history}, "config": _config("large-body")}
    async with server.async_client("mallory") as client:
        return await _all(_send(client, "POST", f"/chat/{way}", body) for way in ("invoke", "stream_log") * 3)


ATTACKS: dict[str, Attack] = {
    attack.__name__: attack
    for attack in (
        nothing, headers_without_end, connections_that_dawdle, batches, imports, texts_to_render, forks, streams,
        turns_in_one_session, wrong_keys, large_bodies,
    )
}  # fmt: skip

"""What attacks are made of: what is said to a socket, what is asked of the server, and what was told."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Awaitable, Iterable
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.live_server import Live

Told = Counter[str]
"""A status, or a word, and how often."""

ELSEWHERE = "127.0.0.2"
"""Another address of this machine than the bystander's."""

_AT = "2026-03-01T09:30:00.250000Z"


async def connect(
    server: Live, *, address: str | None = None, limit: int = 65536
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to the server, from an address of this machine. Raises `OSError`."""
    where = urlsplit(server.url)
    local = None if address is None else (address, 0)
    return await asyncio.open_connection(where.hostname, where.port, local_addr=local, limit=limit)


async def raw(server: Live, said: bytes | Iterable[bytes], *, wait_s: float, address: str | None = None) -> str:
    """Says something to the server's socket: the status that comes back, or that it hung up, or that it waits."""
    try:
        reader, writer = await connect(server, address=address)
    except OSError:
        return "refused"
    try:
        pieces = (said[at : at + (1 << 20)] for at in range(0, len(said), 1 << 20)) if isinstance(said, bytes) else said
        for piece in pieces:
            writer.write(piece)
            await asyncio.wait_for(writer.drain(), wait_s)
        head = await asyncio.wait_for(reader.read(64), wait_s)
        return head[9:12].decode() or "hung up"
    except TimeoutError:
        return "still open"
    except ConnectionError:
        with contextlib.suppress(Exception):
            head = await asyncio.wait_for(reader.read(64), 1)
            return head[9:12].decode() or "hung up"
        return "hung up"
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def everything(asking: Iterable[Awaitable[str]]) -> Told:
    """All at once."""
    return Counter(await asyncio.gather(*asking))


async def send(
    client: httpx.AsyncClient, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
) -> str:
    """The status, when all of the answer was there; or the error's name. Bytes are sent as they are."""
    try:
        content = body if body is None or isinstance(body, bytes) else json.dumps(body)
        sent = {"Content-Type": "application/json", **(headers or {})}
        async with client.stream(method, path, content=content, headers=sent) as answer:
            async for _ in answer.aiter_raw():
                pass
        return str(answer.status_code)
    except httpx.HTTPError as error:
        return type(error).__name__


def turn(number: int, messages: int, text: str) -> dict[str, Any]:
    """A turn with so many messages in its answer, as `import` takes it."""
    said = [{"type": "ai", "data": {"content": text, "type": "ai"}}] * messages
    asked = [{"type": "human", "data": {"content": text, "type": "human"}}]
    return {
        "turn_id": f"t{number}", "status": "complete", "chain": "chat", "started_at": _AT, "ended_at": _AT,
        "input": asked, "output": said,
    }  # fmt: skip


def conversation(name: str, turns: list[dict[str, Any]]) -> dict[str, Any]:
    """A conversation as `import` takes it."""
    return {"version": 1, "session_id": name, "title": "T", "created_at": _AT, "turns": turns}


def config(session_id: str, **more: str) -> dict[str, Any]:
    return {"configurable": {"session_id": session_id, **more}}


def question(words: str, session_id: str, **more: str) -> dict[str, Any]:
    """The body of a turn."""
    return {"input": {"input": words}, "config": config(session_id, **more)}


def few(count: int, scale: float, least: int = 1) -> int:
    return max(least, int(count * scale))

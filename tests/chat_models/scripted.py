"""Servers that answer each request with bytes that a test wrote, and what servers of OpenAI's protocol write."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

Body = dict[str, Any]

USAGE: Final = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}


def chunk(delta: Any = None, finish: str | None = None, **top: Any) -> Body:
    """An event of a stream."""
    return {
        "id": "c1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m1",
        "choices": [{"index": 0, "delta": {} if delta is None else delta, "finish_reason": finish}],
        **top,
    }


def reply(message: Body, finish: str | None = "stop", **top: Any) -> Body:
    """A whole reply."""
    message = {"role": "assistant", "content": None, **message}
    return {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": "m1",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": USAGE,
        **top,
    }


def events(*said: Body | str, end: str = "\n\n", done: bool = True) -> bytes:
    """A stream of events, as it is written."""
    texts = [one if isinstance(one, str) else json.dumps(one, ensure_ascii=False) for one in said]
    return "".join(f"data: {text}{end}" for text in [*texts, *["[DONE]"] * done]).encode()


def response(body: bytes, kind: str = "application/json", *, status: str = "200 OK", more: str = "") -> bytes:
    """A response with that body."""
    return f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode() + body


Answer = Callable[[Body], bytes]
"""The bytes that answer the request with that body."""


def saying(stream: bytes | None = None, whole: bytes | Body | None = None) -> Answer:
    """Answers a request for a stream so, and any other one so."""

    def answer(body: Body) -> bytes:
        if body.get("stream"):
            assert stream is not None
            return response(stream, "text/event-stream")
        return response(whole if isinstance(whole, bytes) else json.dumps(whole).encode())

    return answer


@dataclass
class Scripted:
    """A server on this machine. All may be changed while it runs."""

    answer: Answer
    size: int = 1 << 30
    """The most bytes that it sends at once."""

    ends: bool = False
    """Whether it ends each connection after a response."""

    url: str = ""
    requests: list[tuple[bytes, Body]] = field(default_factory=list)
    """The head and the body of each request."""

    open: int = 0
    """How many connections there are."""

    met: int = 0
    """How many connections there have been."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open, self.met = self.open + 1, self.met + 1
        try:
            while await self._exchange(reader, writer) and not self.ends:
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client left
        finally:
            self.open -= 1
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        body = json.loads(await reader.readexactly(int(length or 0)) or b"{}")
        self.requests.append((head, body))
        said = self.answer(body)
        for place in range(0, len(said), self.size):
            writer.write(said[place : place + self.size])
            await writer.drain()
            if self.size < len(said):
                await asyncio.sleep(0)
        return True


@asynccontextmanager
async def scripted(answer: Answer, **settings: Any) -> AsyncIterator[Scripted]:
    server = Scripted(answer, **settings)
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listening:
        server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
        yield server

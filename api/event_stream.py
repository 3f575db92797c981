"""A turn as server-sent events: `metadata`, `data` with the number of each as its id, then `end`.

A second `metadata`, `{"restart": true}`, tells that what follows stands in the place of all `data` before it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from histories.base import Event
from turns import voice
from turns.watch import Whole

_HEADERS = {"Cache-Control": "no-cache", "Connection": "keep-alive", "X-Accel-Buffering": "no"}
_GATHER_S: Final = 0.01
"""What LangChain tells of each token is several events: the first is sent at once, then what has come meanwhile."""

_ALIVE = b": still running\r\n\r\n"
_RESTART = b'event: metadata\r\ndata: {"restart": true}\r\n\r\n'


class EventStream(Response):
    """A stream of events: all that came at once in one write, and nothing before the first of them.

    `metadata` is sent as it is when there is something to send. An error is raised: what the client is told of it is
    decided at the edge.
    """

    media_type = "text/event-stream"

    def __init__(self, metadata: Mapping[str, str], events: AsyncGenerator[Sequence[Event], None]) -> None:
        self.status_code, self.background = 200, None
        self.init_headers(_HEADERS)
        self._metadata, self._events = metadata, events

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        told = False
        async with aclosing(self._events) as events:
            async for some in events:
                head, told = b"" if told else self._head(), True
                body = b"".join(b"id: %d\r\nevent: data\r\ndata: %s\r\n\r\n" % (one.seq, one.data) for one in some)
                if isinstance(some, Whole):
                    body = _RESTART + body
                body = head + (body or _ALIVE)
                await send({"type": "http.response.body", "body": body, "more_body": True})
        head = b"" if told else self._head()
        await send({"type": "http.response.body", "body": head + b"event: end\r\n\r\n", "more_body": False})

    def _head(self) -> bytes:
        return b"event: metadata\r\ndata: %s\r\n\r\n" % json.dumps(self._metadata).encode("ascii")


class DataStream(Response):
    """A stream of `data` alone, then `end`, as LangServe sends it; but all that came at once goes in one write.

    An error is raised, as by `EventStream`.
    """

    media_type = "text/event-stream"

    def __init__(self, pieces: AsyncGenerator[bytes, None]) -> None:
        self.status_code, self.background = 200, None
        self.init_headers(_HEADERS)
        self._pieces, self._unsent, self._news = pieces, list[bytes](), asyncio.Event()

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        gathering = asyncio.create_task(self._gather(), name="recollect-data-stream")
        try:
            while self._unsent or not gathering.done():
                with suppress(TimeoutError):
                    async with asyncio.timeout(voice.PULSE_S):
                        await self._news.wait()
                self._news.clear()
                body, self._unsent = b"".join(self._unsent), []
                if body or not gathering.done():
                    await send({"type": "http.response.body", "body": body or _ALIVE, "more_body": True})
                    await asyncio.wait([gathering], timeout=_GATHER_S)
            await gathering  # raises what kept it from its end
        finally:
            gathering.cancel()
            await asyncio.wait([gathering])
        await send({"type": "http.response.body", "body": b"event: end\r\n\r\n", "more_body": False})

    async def _gather(self) -> None:
        """Takes what is there. What is taken before the next one has to be waited for is sent together."""
        try:
            async with aclosing(self._pieces) as pieces:
                async for piece in pieces:
                    self._unsent.append(b"event: data\r\ndata: %s\r\n\r\n" % piece)
                    self._news.set()
        finally:
            self._news.set()

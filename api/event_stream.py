"""A turn as server-sent events: `metadata`, `data` with the number of each as its id, then `end`.

A second `metadata`, `{"restart": true}`, tells that what follows stands in the place of all `data` before it.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing

from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from histories.base import Event
from turns.watch import Whole

_RESTART = b'event: metadata\r\ndata: {"restart": true}\r\n\r\n'


class EventStream(Response):
    """A stream of events: all that came at once in one write, and nothing before the first of them.

    `metadata` is sent as it is when there is something to send. An error is raised: what the client is told of it is
    decided at the edge.
    """

    media_type = "text/event-stream"

    def __init__(self, metadata: Mapping[str, str], events: AsyncGenerator[Sequence[Event], None]) -> None:
        self.status_code, self.background = 200, None
        self.init_headers({"Cache-Control": "no-cache", "Connection": "keep-alive", "X-Accel-Buffering": "no"})
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
                body = head + (body or b": still running\r\n\r\n")
                await send({"type": "http.response.body", "body": body, "more_body": True})
        head = b"" if told else self._head()
        await send({"type": "http.response.body", "body": head + b"event: end\r\n\r\n", "more_body": False})

    def _head(self) -> bytes:
        return b"event: metadata\r\ndata: %s\r\n\r\n" % json.dumps(self._metadata).encode("ascii")

"""A small HTTP server for tests: in a thread of its own, on a free port of this machine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import traceback
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Mapping
from types import TracebackType
from typing import Any, Self

import uvicorn


class ClientGone(Exception):
    """Nobody is left to be answered."""


class Wire:
    """One HTTP exchange, over ASGI."""

    def __init__(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        self.method, self.path = str(scope["method"]), str(scope["path"])
        self.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        self._receive, self._send = receive, send

    async def body(self) -> bytes:
        """The whole body of the request. Raises `ClientGone` when the client was killed in the middle of it."""
        parts = []
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            parts.append(message.get("body", b""))
            if not message.get("more_body"):
                return b"".join(parts)

    async def until_gone(self, answering: Coroutine[Any, Any, None]) -> bool:
        """Answers, or stops when the client leaves, and returns whether it did."""
        answer, gone = asyncio.create_task(answering), asyncio.create_task(self._receive())
        await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            gone.cancel()
            await answer
            return False
        answer.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await answer
        return True

    async def start(self, status: int, content_type: str, headers: Mapping[str, str] | None = None) -> None:
        """Sends the head of the answer."""
        pairs = {"content-type": content_type, **(headers or {})}
        encoded = [(name.lower().encode(), value.encode("latin-1")) for name, value in pairs.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": encoded})

    async def write(self, text: str, *, more: bool) -> None:
        """Sends a part of the body, the last one unless there is `more`."""
        await self._send({"type": "http.response.body", "body": text.encode(), "more_body": more})

    async def text(self, status: int, text: str, headers: Mapping[str, str] | None = None) -> None:
        """Answers with a text that is JSON, or says so."""
        length = {"content-length": str(len(text.encode()))}
        await self.start(status, "application/json", {**length, **(headers or {})})
        await self.write(text, more=False)

    async def json(self, status: int, value: Any) -> None:
        """Answers with a value as JSON."""
        await self.text(status, json.dumps(value))


class StubServer(ABC):
    """The server, as a context manager."""

    def __init__(self, *, port: int = 0) -> None:
        self._socket = socket.create_server(("127.0.0.1", port), backlog=2048)
        # Its log is off: connections that break here are meant to.
        config = uvicorn.Config(self._app, interface="asgi3", log_level="critical", lifespan="off", proxy_headers=False)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True)

    @abstractmethod
    async def exchange(self, wire: Wire) -> None:
        """Answers one request. `ConnectionError` breaks the connection."""

    @property
    def url(self) -> str:
        """Where it listens, without a path."""
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._thread.start()  # who connects before it has come up waits in the backlog
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(10)
        self._socket.close()

    def run(self) -> None:
        """Serves in this thread until SIGTERM or SIGINT."""
        self._server.run([self._socket])

    async def _app(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        try:
            await self.exchange(Wire(scope, receive, send))
        except ClientGone:
            return
        except ConnectionError:
            raise
        except Exception:
            traceback.print_exc()
            raise

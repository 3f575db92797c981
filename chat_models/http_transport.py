"""HTTP/1.1 for the model's client: asyncio's own transports, read by httptools.

httpx's own transport takes a third of a model call's processor time, and gives each chunk of a chunked body alone: this
one gives all that one read brought at once. It sends what OpenAI's client sends; anything else goes to httpx's.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Final, cast

import httptools
import httpx2
from typing_extensions import override

_HIGH_WATER: Final = 256 * 1024
"""So many bytes wait to be read before the server may send no more: a reader that stalls must not fill memory."""

_MAX_HEAD: Final = 100 * 1024
"""The longest head of a response, as httpx has it: one without an end must not fill memory."""

_FORGIVEN: Final = {
    "lenient_headers": True,
    "lenient_chunked_length": True,
    "lenient_optional_cr_before_lf": True,
    "lenient_spaces_after_chunk_size": True,
}
"""What httpx reads, and this parser only if told to: a header over two lines, a length beside chunks, lines that end
in newlines alone, and padded sizes of chunks."""

_MAX_IDLE: Final = 100
"""So many connections to one server are kept: a crowd that is gone must not hold its sockets."""

_Origin = tuple[asyncio.AbstractEventLoop, str, str, int]


class HttpTransport(httpx2.AsyncBaseTransport):
    """Connections that are kept for `keepalive_s` after their last response.

    What comes of trouble are httpx's errors: `ConnectTimeout`, `ConnectError`, `ReadTimeout`, `ReadError` and
    `RemoteProtocolError`.
    """

    def __init__(self, tls: ssl.SSLContext, *, keepalive_s: float, otherwise: httpx2.AsyncBaseTransport) -> None:
        self._tls, self._keepalive_s, self._otherwise = tls, keepalive_s, otherwise
        self._idle: dict[_Origin, list[_Connection]] = {}
        self._loops: dict[asyncio.AbstractEventLoop, AsyncGenerator[None, None]] = {}
        tls.set_alpn_protocols(["http/1.1"])

    @override
    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if request.method != "POST" or "content-length" not in request.headers:
            return await self._otherwise.handle_async_request(request)
        head, body = _head_of(request), b"".join([part async for part in cast(AsyncIterator[bytes], request.stream)])
        connection = await self._answered(request, head + body)
        extensions = {"http_version": b"HTTP/1.1"}
        stream = _Body(connection, self._keep)
        return httpx2.Response(connection.status, headers=connection.headers, stream=stream, extensions=extensions)

    async def _answered(self, request: httpx2.Request, text: bytes) -> _Connection:
        """The connection on which the head of the answer came.

        A server may end a connection that rests in the moment in which it is used again: then another one is taken.
        """
        limits = request.extensions.get("timeout") or {}
        while True:
            connection = await self._connection(request.url, limits.get("connect"))
            try:
                connection.send(text, limits.get("read"))
                await connection.head()
            except BaseException as error:
                connection.close()
                if not (isinstance(error, httpx2.HTTPError) and connection.ended_at_rest):
                    raise
            else:
                return connection

    @override
    async def aclose(self) -> None:
        for loop, ending in list(self._loops.items()):
            if loop is asyncio.get_running_loop():
                await ending.aclose()
            elif not loop.is_closed():
                loop.call_soon_threadsafe(self._leave, loop)
        await self._otherwise.aclose()

    async def _enter(self, loop: asyncio.AbstractEventLoop) -> None:
        """From now on there are connections of this loop: of one that a chain runs in a thread, for a single call.

        They end with it: a loop closes the generators that it began before it ends.
        """
        for other in [one for one in list(self._loops) if one.is_closed()]:  # without a word, as by `loop.close`
            self._leave(other)
        self._loops[loop] = ending = self._until_left(loop)
        await anext(ending)

    async def _until_left(self, loop: asyncio.AbstractEventLoop) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            self._leave(loop)

    def _leave(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loops.pop(loop, None)
        for origin in [one for one in list(self._idle) if one[0] is loop]:
            for connection in [*self._idle.pop(origin)]:
                connection.close()

    async def _connection(self, url: httpx2.URL, timeout: float | None) -> _Connection:
        loop, port = asyncio.get_running_loop(), url.port or (443 if url.scheme == "https" else 80)
        origin = (loop, url.scheme, url.raw_host.decode("ascii"), port)
        if loop not in self._loops:
            await self._enter(loop)
        idle = self._idle.setdefault(origin, [])
        while idle:
            connection = idle.pop()
            if connection.reused():
                return connection
        try:
            async with asyncio.timeout(timeout):
                return await self._connect(loop, origin, idle)
        except TimeoutError as error:
            raise httpx2.ConnectTimeout("The server could not be reached in time.") from error
        except OSError as error:
            raise httpx2.ConnectError(str(error)) from error

    async def _connect(self, loop: asyncio.AbstractEventLoop, origin: _Origin, idle: list[_Connection]) -> _Connection:
        _, scheme, host, port = origin
        tls, name = (self._tls, host) if scheme == "https" else (None, None)
        # IPv4 first: a network that has no way to IPv6 addresses often says nothing, and that would be waited for.
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = [str(info[4][0]) for info in sorted(found, key=lambda info: info[0] != socket.AF_INET)]
        for place, address in enumerate(addresses, 1):
            try:
                _, connection = await loop.create_connection(
                    lambda: _Connection(loop, idle), address, port, ssl=tls, server_hostname=name
                )
            except OSError:
                if place == len(addresses):
                    raise
            else:
                return connection
        raise OSError(f"{host} has no address")

    def _keep(self, connection: _Connection) -> None:
        """The response has been read, or given up."""
        if connection.may_be_kept():
            connection.rest(self._keepalive_s)
        else:
            connection.close()


class _Connection(asyncio.Protocol):
    """One connection, which carries one exchange at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop, idle: list[_Connection]) -> None:
        self._loop, self._idle = loop, idle
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._lost: Exception | None = None
        self._was_used, self.ended_at_rest = False, False
        self._begin(None)

    def _begin(self, read_s: float | None) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._parser.set_dangerous_leniencies(**_FORGIVEN)
        self._read_s, self._size = read_s, 0
        self._parts = list[bytes]()
        self._heard = self._has_head = self._complete = self._keep_alive = self._paused = False
        self.status, self.headers = 0, list[tuple[bytes, bytes]]()

    # For the transport.

    def send(self, request: bytes, read_s: float | None) -> None:
        """Sends a request; each wait for the next bytes of its response takes `read_s` at the most."""
        self._begin(read_s)
        if self._transport is not None:  # else `head` tells of it
            self._transport.write(request)

    async def head(self) -> None:
        """Returns when `status` and `headers` are there."""
        while not self._has_head:
            await self._more()

    async def read(self) -> bytes:
        """All that has come of the body since the last look, at least one byte; nothing at its end."""
        while not self._parts:
            if self._complete:
                return b""
            await self._more()
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts, self._size = [], 0
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return data

    def may_be_kept(self) -> bool:
        return self._complete and self._keep_alive and self._lost is None and len(self._idle) < _MAX_IDLE

    def rest(self, seconds: float) -> None:
        """It waits for the next request, so long."""
        self._idle.append(self)
        self._set_timer(seconds, self.close)

    def reused(self) -> bool:
        """Ends its rest; whether it is still there."""
        self._was_used = True
        self._set_timer(None, self.close)
        return self._lost is None

    def close(self) -> None:
        self._set_timer(None, self.close)
        if self in self._idle:
            self._idle.remove(self)
        if self._transport is not None and not self._loop.is_closed():
            self._transport.abort()

    async def _more(self) -> None:
        """Returns when something has come. One timer serves many waits: it is set anew if it goes off too early."""
        if self._lost is not None:
            raise self._lost
        self._waiter = waiter = self._loop.create_future()
        self._since = self._loop.time()
        if self._timer is None and self._read_s is not None:
            self._set_timer(self._read_s, self._look_at_clock)
        await waiter

    def _look_at_clock(self) -> None:
        self._timer = None
        if self._waiter is None or self._read_s is None:
            return
        left = self._since + self._read_s - self._loop.time()
        if left > 0:
            self._set_timer(left, self._look_at_clock)
        else:
            self._fail(httpx2.ReadTimeout("The server said nothing for too long."))

    def _set_timer(self, seconds: float | None, act: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self._loop.call_later(seconds, act)

    def _fail(self, error: Exception) -> None:
        self._lost = self._lost or error
        self._wake()
        if self._transport is not None:
            self._transport.abort()

    def _wake(self) -> None:
        if self._waiter is not None:
            if not self._waiter.done():
                self._waiter.set_result(None)
            self._waiter = None

    # For asyncio.

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are not of asyncio's classes

    @override
    def data_received(self, data: bytes) -> None:
        self._heard = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(httpx2.RemoteProtocolError(str(error)))
            return
        if self._size > _HIGH_WATER and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.ended_at_rest = self._was_used and not self._heard and self._lost is None
        if self._has_head and not self._complete and self._ends_with_connection():
            self._complete = True
        elif exc is not None:
            self._lost = self._lost or httpx2.ReadError(str(exc))
        self._lost = self._lost or httpx2.RemoteProtocolError("The server closed the connection.")
        self._transport = None
        self.close()
        self._wake()

    def _ends_with_connection(self) -> bool:
        names = {name.lower() for name, _ in self.headers}
        return not names & {b"content-length", b"transfer-encoding"}

    # For httptools.

    def on_message_begin(self) -> None:
        if self._complete:
            self._fail(httpx2.RemoteProtocolError("The server said more than was asked."))

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._complete:
            return
        self.headers.append((name, value))
        self._size += len(name) + len(value)
        if not self._has_head and self._size > _MAX_HEAD:
            self._fail(httpx2.RemoteProtocolError("The head of the response is too long."))

    def on_headers_complete(self) -> None:
        if self._complete:
            return
        self.status = self._parser.get_status_code()
        self._has_head, self._size = self.status >= 200, 0
        if not self._has_head:  # the server goes on, with the response itself to come
            self.headers = []

    def on_body(self, data: bytes) -> None:
        if not self._complete:
            self._parts.append(data)
            self._size += len(data)

    def on_message_complete(self) -> None:
        self._complete, self._keep_alive = self._has_head, self._parser.should_keep_alive()


class _Body(httpx2.AsyncByteStream):
    """A response's body, whose end gives the connection back."""

    def __init__(self, connection: _Connection, keep: Callable[[_Connection], None]) -> None:
        self._connection, self._keep = connection, keep

    @override
    async def __aiter__(self) -> AsyncGenerator[bytes, None]:
        while data := await self._connection.read():
            yield data

    @override
    async def aclose(self) -> None:
        self._keep(self._connection)


def _head_of(request: httpx2.Request) -> bytes:
    lines: list[bytes] = [b"%s %s HTTP/1.1" % (request.method.encode("ascii"), request.url.raw_path)]
    lines += [b"%s: %s" % pair for pair in request.headers.raw]
    return b"\r\n".join([*lines, b"", b""])

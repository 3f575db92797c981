"""The door: uvicorn's HTTP protocol, with bounds on what a connection may send, how slowly, and how many there are.

httptools keeps a header until it is whole, however long it is, and adds to it byte string by byte string: a header of
100 MB would hold the event loop for seconds. So what a request sends besides its body is counted here, before it is
parsed. Times are looked after by one sweep a second over all connections: no request sets a timer.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

import httptools
from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

_SLICE: Final = 16 * 1024
"""What is parsed at once while a request's headers are open."""

_FRAME_BYTES: Final = 1
"""What a chunked body may spend on the frame of each of its bytes, beside what headers may take. The smallest frame
takes five: megabytes in chunks of one byte would keep the event loop busy for seconds."""

_LINGER_S: Final = 2.0
_LINGER_BYTES: Final = 16 * 1024 * 1024
"""How long, and for how much, one who was answered in the middle of sending is listened to: or the answer is lost."""

_SWEEP_S: Final = 1.0

log = logging.getLogger("recollect.door")


def _nobody(what: str, value: int) -> None:
    """Hears nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DoorRules:
    """What one process admits. Times are in seconds."""

    header_bytes: int = 32 * 1024
    headers: int = 256
    header_s: float = 10.0
    body_s: float = 30.0
    """The longest silence in a body. In all, it may take as long again for each `body_rate` bytes times seconds."""

    body_rate: int = 500
    unread_s: float = 60.0
    """How long a client may take nothing of an answer."""

    unread_bytes: int = 64 * 1024 * 1024
    """How much of all answers may be ready and not taken. More, and who has left most of it longest is hung up on."""

    connections: int = 10_000
    connections_per_address: int = 5_000


class Doorkeeper:
    """All connections of one process. It makes their protocols for uvicorn: `uvicorn.Config(http=keeper.protocol)`.

    `told` hears of `connections`, by how many there are more, and of each `refusal`, by its status.
    """

    def __init__(self, rules: DoorRules | None = None, told: Callable[[str, int], None] | None = None) -> None:
        self.rules, self._told = rules or DoorRules(), told or _nobody
        self._open: set[Door] = set()
        self._idle: dict[Door, None] = {}  # with no request, those that are so for longest first
        self._by_address: Counter[str] = Counter()
        self._unread: dict[Door, int] = {}  # bytes, as they were when they became too many; the oldest first
        self._sweeper: asyncio.TimerHandle | None = None
        self.refused = 0
        """Connections and requests that were turned away here, since the start."""
        self._refusals: Counter[int] = Counter()  # that the log has not been told of

    def __len__(self) -> int:
        return len(self._open)

    def protocol(self, *args: Any, **kwargs: Any) -> Door:
        """A protocol for one connection."""
        return Door(self, *args, **kwargs)

    def enter(self, door: Door) -> tuple[int, str] | None:
        """Admits a connection, or says why not. Where all places are taken, one that asks for nothing loses its own."""
        address = door.address
        if self._by_address[address] >= self.rules.connections_per_address:
            return 429, "There are too many connections from this address: close some, and try again."
        if len(self._open) >= self.rules.connections and not self._make_room():
            return 503, "The server has too many connections: try again."
        self._by_address[address] += 1
        self._open.add(door)
        self._told("connections", 1)
        self._idle[door] = None
        if self._sweeper is None:
            self._sweeper = door.loop.call_later(_SWEEP_S, self._sweep, door.loop)
        return None

    def leave(self, door: Door) -> None:
        if door in self._open:
            self._open.remove(door)
            self._told("connections", -1)
            self._idle.pop(door, None)
            self._unread.pop(door, None)
            self._by_address[door.address] -= 1
            if not self._by_address[door.address]:
                del self._by_address[door.address]

    def refuse(self, status: int) -> None:
        """Counts somebody who was turned away: no request comes of it that would have its line in the log."""
        self.refused += 1
        self._refusals[status] += 1
        self._told("refusal", status)

    def busy(self, door: Door) -> None:
        self._idle.pop(door, None)

    def idle(self, door: Door) -> None:
        if door in self._open:
            self._idle[door] = None

    def unread(self, door: Door, size: int) -> None:
        """So much of its answer is not taken. What it is of all, nobody has to count who takes their answers."""
        self._unread[door] = size
        if sum(self._unread.values()) <= self.rules.unread_bytes:
            return
        self._unread = {one: one.transport.get_write_buffer_size() for one in self._unread}
        while sum(self._unread.values()) > self.rules.unread_bytes:
            self._hang_up_on_the_laziest()

    def taken(self, door: Door) -> None:
        self._unread.pop(door, None)

    def _hang_up_on_the_laziest(self) -> None:
        of_address = Counter[str]()
        for one, size in self._unread.items():
            of_address[one.address] += size
        ((address, _),) = of_address.most_common(1)
        laziest = next(one for one in self._unread if one.address == address)
        self.leave(laziest)
        self._unread.pop(laziest, None)
        laziest.loop.call_soon(laziest.transport.abort)  # it may be the one that is being written to

    def _make_room(self) -> bool:
        if not self._idle:
            return False
        oldest = next(iter(self._idle))
        self.leave(oldest)
        oldest.transport.abort()
        return True

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        if self._refusals:  # one line a second: whoever floods the door does not flood the log
            told = ", ".join(f"{status}: {count}" for status, count in sorted(self._refusals.items()))
            log.warning("requests were refused at the door (status: how many): %s", told)
            self._refusals.clear()
        for door in list(self._open):
            door.look_at_the_clock(now)
        self._sweeper = loop.call_later(_SWEEP_S, self._sweep, loop) if self._open or self._refusals else None


class _Stage(Enum):
    """What is awaited of the client."""

    HEADERS = 1
    BODY = 2
    NOTHING = 3
    FAREWELL = 4
    """It was refused: what it still sends is thrown away."""


class Door(HttpToolsProtocol):
    """One connection."""

    def __init__(self, keeper: Doorkeeper, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._keeper, self._rules = keeper, keeper.rules
        self.address = ""
        self._stage, self._begun, self._messages = _Stage.HEADERS, False, 0
        self._since = self._heard = 0.0
        self._header_bytes = self._frame_bytes = self._body_bytes = self._thrown_away = 0
        self._unread_since: float | None = None

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._since = self._heard = self.loop.time()
        self.address = _network_of(self.client[0]) if self.client else ""
        refusal = self._keeper.enter(self)
        if refusal is not None:
            self._refuse(*refusal)
            transport.close()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._keeper.leave(self)
        super().connection_lost(exc)

    # What comes in.

    @override
    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        self._heard = self.loop.time()
        if self._stage is _Stage.NOTHING and not self._is_answering:
            self._await(_Stage.HEADERS)
        if len(data) <= _SLICE:
            self._feed(data)
            return
        view = memoryview(data)
        for start in range(0, len(data), _SLICE):
            self._feed(bytes(view[start : start + _SLICE]))

    def _feed(self, data: bytes) -> None:
        if self._stage is _Stage.FAREWELL:
            self._throw_away(len(data))
            return
        before = (self._stage, self._messages) if self._begun else None
        body_before = self._body_bytes
        if not self._is_parsed(data):
            return
        if before != (self._stage, self._messages):
            return  # not all of these bytes were of the part that is open now
        if self._stage is _Stage.HEADERS:
            self._header_bytes += len(data)
            if self._header_bytes > self._rules.header_bytes:
                self._refuse_long_headers()
        elif self._stage is _Stage.BODY:
            # Chunks have extensions, and trailers come after them, which httptools keeps as it keeps headers.
            self._frame_bytes += len(data) - (self._body_bytes - body_before)
            if self._frame_bytes > self._rules.header_bytes + _FRAME_BYTES * self._body_bytes:
                self._refuse_long_headers()

    def _is_parsed(self, data: bytes) -> bool:
        """Whether the parser has taken it; if not, it was refused."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            if self.cycle is not None:  # nothing here speaks anything but HTTP: it is answered as a plain request
                self.cycle.keep_alive = False
        except httptools.HttpParserError:
            if self._stage is not _Stage.FAREWELL:  # else it was refused within the parser
                self._refuse(400, "This is not a request in HTTP/1.1.")
            return False
        return True

    def _refuse_long_headers(self) -> None:
        self._refuse(431, f"The headers of a request have at most {self._rules.header_bytes} bytes.")

    def _throw_away(self, count: int) -> None:
        self._thrown_away += count
        if self._thrown_away > _LINGER_BYTES:
            self.transport.abort()

    @property
    def _is_answering(self) -> bool:
        cycle: RequestResponseCycle | None = getattr(self, "cycle", None)  # uvicorn's types know no None
        return cycle is not None and not cycle.response_complete

    def _await(self, stage: _Stage) -> None:
        self._stage, self._since = stage, self._heard

    # What the parser finds.

    @override
    def on_message_begin(self) -> None:
        if self._stage is _Stage.FAREWELL:
            return
        super().on_message_begin()
        self._await(_Stage.HEADERS)
        self._begun, self._messages = True, self._messages + 1
        self._header_bytes = self._frame_bytes = self._body_bytes = self._thrown_away = 0

    @override
    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        if len(self.headers) > self._rules.headers:  # of two bytes each, 32 kB hold the event loop for milliseconds
            if self._stage is not _Stage.FAREWELL:
                self._refuse(431, f"A request has at most {self._rules.headers} headers.")
            raise ValueError  # the parser goes no further

    @override
    def on_headers_complete(self) -> None:
        if self._stage is _Stage.FAREWELL:
            return
        if self._header_bytes and self._size_of_headers() > self._rules.header_bytes:
            self._refuse_long_headers()
            return
        hosts = [name for name, _ in self.headers].count(b"host")
        if hosts > 1 or (not hosts and self.parser.get_http_version() != "1.0"):
            self._refuse(400, "A request has one Host header.")
            return
        self._await(_Stage.BODY)
        self._keeper.busy(self)
        super().on_headers_complete()

    def _size_of_headers(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    @override
    def on_body(self, body: bytes) -> None:
        if self._stage is _Stage.FAREWELL:
            return
        self._body_bytes += len(body)
        if self.cycle.response_complete:  # it was answered before it had sent all
            self._throw_away(len(body))
        super().on_body(body)

    @override
    def on_message_complete(self) -> None:
        if self._stage is not _Stage.FAREWELL:
            self._await(_Stage.NOTHING)
            self._begun = False
            super().on_message_complete()

    @override
    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete:  # and no other request was waiting for that
            self._keeper.idle(self)

    # What is too slow.

    @override
    def pause_writing(self) -> None:
        self._unread_since = self.loop.time()
        super().pause_writing()
        self._keeper.unread(self, self.transport.get_write_buffer_size())

    @override
    def resume_writing(self) -> None:
        self._unread_since = None
        self._keeper.taken(self)
        super().resume_writing()

    def look_at_the_clock(self, now: float) -> None:
        """Called once a second: ends a connection whose time is over."""
        rules = self._rules
        if self.flow.read_paused:  # by us
            self._heard = self._since = now
        if self._unread_since is not None and now - self._unread_since > rules.unread_s:
            self.transport.abort()
        elif self._stage is _Stage.HEADERS and now - self._since > rules.header_s:
            if self._begun:
                self._refuse(408, f"The headers of a request have to come within {rules.header_s:g} seconds.")
            else:
                self._end()
        elif self._stage is _Stage.BODY:
            allowed = rules.body_s + self._body_bytes / rules.body_rate
            if now - self._heard > rules.body_s or now - self._since > allowed:
                self._refuse(408, f"The body of a request may not pause for {rules.body_s:g} seconds.")
        elif self._stage is _Stage.FAREWELL and now - self._since > _LINGER_S:
            self.transport.abort()

    # How it ends.

    def _refuse(self, status: int, message: str) -> None:
        """Answers, unless an answer is under way already, and ends the connection."""
        self._keeper.refuse(status)
        answering = self._is_answering
        if self.pipeline or (answering and (self._stage is _Stage.HEADERS or self.cycle.response_started)):
            self._end()  # an earlier request's answer is under way
            return
        if self._stage is _Stage.BODY:
            if not answering:
                self._end()
                return
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        body = json.dumps({"detail": message}).encode("ascii")
        retry = b"retry-after: 5\r\n" if status in (429, 503) else b""
        head = b"content-type: application/json\r\ncontent-length: %d\r\n%sconnection: close\r\n\r\n"
        self.transport.write(STATUS_LINE[status] + head % (len(body), retry) + body)
        self._say_farewell()

    def _say_farewell(self) -> None:
        self._heard = self.loop.time()
        self._await(_Stage.FAREWELL)
        with contextlib.suppress(OSError, RuntimeError):  # the client has hung up
            self.transport.write_eof()

    def _end(self) -> None:
        self._await(_Stage.FAREWELL)
        if not self.transport.is_closing():
            self.transport.close()


def _network_of(address: str) -> str:
    """The address, or, of IPv6, the network of 2**64 addresses that one client is usually given."""
    address = address.partition("%")[0]
    return str(ipaddress.ip_network((address, 64), strict=False)) if ":" in address else address

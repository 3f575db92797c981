"""How much of what callers send is in memory at once: the bodies of one caller wait for one another, not for others'.

A body is there from its first byte until its request is answered, and what is made of it takes several times as much.
One caller with some hundred connections could fill all memory with bodies that never end, or that wait in line. What
waits here is not read: it stays with who sends it.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from turns.shares import ShareRules, Shares

SMALL: Final = 16 * 1024
"""Bytes that do not count: the longest line of a caller's has 8 MB of them."""

_EACH, _ALL = 2, 64
"""How many of the largest bodies are there at once: of one caller, and in all."""

_LINE, _LINE_OF_ALL = 64, 1024
"""How many may wait. Of each that does, some has come, and is in memory, too: what fits the socket's buffers."""


class Bytes:
    """What is held, and who waits for some, in turn between the callers. For one event loop."""

    def __init__(self, each: int, in_all: int) -> None:
        self._each, self._in_all = each, in_all
        self._line = Shares(ShareRules(line=_LINE, line_of_all=_LINE_OF_ALL), "large requests")
        self._held: Counter[str] = Counter()
        self._waiting: dict[str, deque[_Place]] = {}

    @asynccontextmanager
    async def hold(self, who: str, amount: int) -> AsyncIterator[None]:
        """Waits until there is room, and holds so much for the time of the block, or all that one may hold.

        Raises `LineFull`.
        """
        amount = min(amount, self._each)
        if who in self._waiting or not self._has_room(who, amount):
            with self._line.place(who):
                await self._wait(who, amount)
        else:
            self._held[who] += amount
        try:
            yield
        finally:
            self._give_back(who, amount)

    def _has_room(self, who: str, amount: int) -> bool:
        return self._held[who] + amount <= self._each and self._held.total() + amount <= self._in_all

    async def _wait(self, who: str, amount: int) -> None:
        place = _Place(amount)
        self._waiting.setdefault(who, deque()).append(place)
        self._call()
        try:
            await place.called
        except BaseException:
            if place.has_room:  # it was called in the same instant in which it gave up
                self._give_back(who, amount)
            else:
                self._leave(who, place)
                self._call()
            raise

    def _leave(self, who: str, place: _Place) -> None:
        line = self._waiting[who]
        line.remove(place)
        if not line:
            del self._waiting[who]

    def _give_back(self, who: str, amount: int) -> None:
        self._held[who] -= amount
        if not self._held[who]:
            del self._held[who]
        self._call()

    def _call(self) -> None:
        """Lets in who may, one of each caller before a second one of any."""
        while (who := next(filter(self._may_go, self._waiting), None)) is not None:
            line = self._waiting.pop(who)
            place = line.popleft()
            if line:
                self._waiting[who] = line  # behind all others
            self._held[who] += place.amount
            place.call()

    def _may_go(self, who: str) -> bool:
        return self._has_room(who, self._waiting[who][0].amount)


class _Place:
    """Of one who waits."""

    def __init__(self, amount: int) -> None:
        self.amount, self.has_room = amount, False
        self.called: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def call(self) -> None:
        self.has_room = True
        if not self.called.done():
            self.called.set_result(None)


class BodiesInTurn:
    """The middleware, behind the sign-in. `largest` is the most bytes that a body may have, but for an import."""

    def __init__(self, app: ASGIApp, largest: int) -> None:
        self._app, self._largest = app, largest
        self._bytes = Bytes(_EACH * largest, _ALL * largest)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        user = scope.get("state", {}).get("user_id") if scope["type"] == "http" else None
        size = 0 if user is None else self._size_of(scope)
        if user is None or size <= SMALL:
            await self._app(scope, receive, send)
            return
        async with self._bytes.hold(user, size):
            await self._app(scope, receive, send)

    def _size_of(self, scope: Scope) -> int:
        """How many bytes the body may take."""
        for name, value in scope["headers"]:
            if name == b"content-length":
                return int(value[:20]) if value.isdigit() else 0
            if name == b"transfer-encoding":
                return self._largest
        return 0

"""How many requests of one caller begin at once: the others wait for the next round of the event loop.

What begins a request (its line in the log, who calls, its body, what is asked of the model) takes about a millisecond.
A thousand that come in one moment would all begin before the loop looks at its sockets again: everybody else would
wait for them for a second, also where every one of them is refused.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

_AT_ONCE: Final = 2
"""With eight, others waited twice as long for a thousand streams to begin. A round without them takes microseconds."""

Place = asyncio.Future[None]


class Turnstile:
    """The middleware. A caller is who shows the same credential, or, without one, who comes from the same address."""

    def __init__(self, app: ASGIApp, at_once: int = _AT_ONCE) -> None:
        self._app, self._at_once = app, at_once
        self._passed: dict[bytes, int] = {}  # in this round
        self._waiting: dict[bytes, deque[Place]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            caller = _caller_of(scope)
            passed = self._passed.get(caller, 0)
            if not self._passed and not self._waiting:
                asyncio.get_running_loop().call_soon(self._next_round)
            if passed < self._at_once and caller not in self._waiting:
                self._passed[caller] = passed + 1
            else:
                await self._place(caller)
        await self._app(scope, receive, send)

    def _place(self, caller: bytes) -> Place:
        place: Place = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(caller, deque()).append(place)
        return place

    def _next_round(self) -> None:
        self._passed.clear()
        for caller in list(self._waiting):
            self._let_in(caller, self._waiting[caller])
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._next_round)

    def _let_in(self, caller: bytes, line: deque[Place]) -> None:
        passed = 0
        while line and passed < self._at_once:
            place = line.popleft()
            if not place.done():  # its request was cancelled
                place.set_result(None)
                passed += 1
        if line:
            self._passed[caller] = passed
        else:
            del self._waiting[caller]


def _caller_of(scope: Scope) -> bytes:
    """What tells callers apart before it is known who they are."""
    cookie = b""
    for name, value in scope["headers"]:
        if name == b"authorization":
            return bytes(value)
        if name == b"cookie":
            cookie = value
    return cookie or (scope.get("client") or ("",))[0].encode()

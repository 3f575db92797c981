"""Where what takes long is done: on a thread beside the event loop, one thing at a time, in turn between users.

One thread shares Python's lock with the event loop, which then waits some milliseconds at most; more of them would only
take it from one another. What comes in steps holds its place in the lane from the first to the last, so that no more
than one such thing is in memory.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

from fastapi import Request, Response
from fastapi.routing import APIRoute
from typing_extensions import override

from turns.shares import ShareRules, Shares

T = TypeVar("T")

SMALL_BYTES: Final = 64 * 1024
"""JSON up to this size is read where it is: that takes a millisecond."""

_LINE, _LINE_OF_ALL = 32, 1024


class SlowLane:
    """One thread, and who waits for it."""

    def __init__(self, what: str) -> None:
        self._shares = Shares(ShareRules(at_once=1, each=1, line=_LINE, line_of_all=_LINE_OF_ALL), what)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="recollect-slow")

    @asynccontextmanager
    async def job(self, user: str) -> AsyncIterator[None]:
        """Has the lane for the time of the block. Raises `LineFull`."""
        with self._shares.place(user):
            async with self._shares.share(user):
                yield

    async def run(self, work: Callable[[], T]) -> T:
        """One step of a job: what `work` gives, off the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def do(self, user: str, work: Callable[[], T]) -> T:
        """A job of one step."""
        async with self.job(user):
            return await self.run(work)


_reading = ThreadPoolExecutor(1, thread_name_prefix="recollect-json")


class LargeBodyRoute(APIRoute):
    """A route whose body's JSON is read off the event loop, if it is large."""

    @override
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_after_reading(request: Request) -> Response:
            await read_large_json(request)
            return await handle(request)

        return handle_after_reading


async def read_large_json(request: Request) -> None:
    """Makes `request.json()` give what a large body holds at once. One that holds no JSON is left to it."""
    body = await request.body()
    if len(body) > SMALL_BYTES:
        try:
            request._json = await asyncio.get_running_loop().run_in_executor(_reading, json.loads, body)
        except (ValueError, RecursionError):
            return

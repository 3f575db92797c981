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
from typing import Any, ClassVar, Final, TypeVar

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from typing_extensions import override

from turns.shares import ShareRules, Shares

T = TypeVar("T")

SMALL_BYTES: Final = 64 * 1024
"""JSON up to this size is read where it is: that takes a millisecond."""

MOST_VALUES: Final = 20_000
"""Values in a body, inner ones too. What checks them holds the event loop for a tenth of a second with so many."""

_FEW: Final = 10 * 1024
"""So many values are no trouble."""

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


class TooManyValues(Exception):
    """A body holds more values than are read at once."""

    def __init__(self) -> None:
        super().__init__(f"The body holds more than {MOST_VALUES} values: send less at once.")


class LargeBodyRoute(APIRoute):
    """A route whose body's JSON is read off the event loop, if it is large."""

    most_values: ClassVar[int | None] = MOST_VALUES

    @override
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_after_reading(request: Request) -> Response:
            try:
                await read_large_json(request, self.most_values)
            except TooManyValues as refused:
                raise RequestValidationError([str(refused)]) from None
            return await handle(request)

        return handle_after_reading


class ManyValuesRoute(LargeBodyRoute):
    """One whose body may well hold many values."""

    most_values = None


async def read_large_json(request: Request, most_values: int | None = None) -> None:
    """Makes `request.json()` give what a large body holds at once. One that holds no JSON is left to it.

    Raises `TooManyValues` for a body that has more than `most_values` by far, without having made them.
    """
    body = await request.body()
    if len(body) > SMALL_BYTES:
        try:
            request._json = await asyncio.get_running_loop().run_in_executor(_reading, _loaded, body, most_values)
        except (ValueError, RecursionError):
            return


def _loaded(body: bytes, most_values: int | None) -> Any:
    if most_values is not None and least_values(body) > most_values:
        raise TooManyValues
    return json.loads(body)  # this holds Python's lock from its first value to its last


def least_values(body: bytes) -> int:
    """No more values than there are in JSON, inner ones too; of many, not much less than half of them.

    Twenty times as fast as to make them. 0 for what is not in UTF-8.
    """
    if max(_separators(body), _openings(body)) <= _FEW or b"\0" in body:
        return 0
    quotes = body.count(b'"') - body.count(b'\\"')
    if quotes > 16 * _FEW:  # the strings are two quotes each, and at most one in two of them is a name
        return quotes // 4
    outside = body.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2]
    return max(sum(map(_separators, outside)), sum(map(_openings, outside)))


def _separators(text: bytes) -> int:
    return text.count(b",")


def _openings(text: bytes) -> int:
    return text.count(b"[") + text.count(b"{")

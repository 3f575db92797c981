"""Where async work meets what it can't control: callers without an event loop, and cancellation."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None


def _background_loop() -> asyncio.AbstractEventLoop:
    global _loop
    with _lock:
        if _loop is None or _loop.is_closed():
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, name="recollect-blocking", daemon=True).start()
        return _loop


def run_blocking(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Runs `work()` on an event loop of its own, in a thread that all such calls share, and gives its result."""
    return asyncio.run_coroutine_threadsafe(work(), _background_loop()).result()


async def undisturbed(work: Awaitable[T]) -> tuple[T, bool]:
    """Sees `work` through to its end even if the caller is cancelled meanwhile; gives its result, and whether it was.

    The caller that was cancelled has to undo what was done, if need be, and to raise `CancelledError` itself.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task), False
    except asyncio.CancelledError:
        if task.cancelled():
            raise
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([task])
    return task.result(), True


async def see_through(work: Awaitable[T], *, undo: Callable[[T], Awaitable[object]] | None = None) -> T:
    """The result of work that must not be cut off: if the caller is cancelled, it is first seen through to its end.

    Then, if it was cancelled, `undo` gets the result, is seen through too, and `CancelledError` is raised.
    """
    result, cancelled = await undisturbed(work)
    if cancelled:
        if undo is not None:
            await undisturbed(undo(result))
        raise asyncio.CancelledError
    return result

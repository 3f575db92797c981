"""Waiting within a process: one holder of a key at a time, in order of arrival.

Waiting costs a future, not a thread or a descriptor; nothing is kept for a key that nobody holds.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque


class WaitQueue:
    """A lock for each key, passed on in order of arrival; its users may be on any thread and any event loop."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._waiting: dict[str, deque[_Waiter]] = {}

    def __len__(self) -> int:
        """How many keys are held."""
        return len(self._waiting)

    def __contains__(self, key: str) -> bool:
        return key in self._waiting

    def try_enter(self, key: str) -> bool:
        """Whether nobody held the key, which is the caller's now."""
        with self._guard:
            if key in self._waiting:
                return False
            self._waiting[key] = deque()
            return True

    async def enter(self, key: str, wait_s: float, *, first: bool = False) -> None:
        """Returns when the key is the caller's, who must `leave` it; `TimeoutError` after `wait_s` seconds.

        Who is to be `first` goes before all who wait already.
        """
        with self._guard:
            queue = self._waiting.get(key)
            if queue is None:
                self._waiting[key] = deque()
                return
            if wait_s <= 0:
                raise TimeoutError
            waiter = _Waiter()
            queue.insert(0 if first else len(queue), waiter)
        try:
            async with asyncio.timeout(wait_s):
                await waiter.called
        except BaseException:
            with self._guard:
                if not waiter.has_key and waiter in queue:
                    queue.remove(waiter)
            if waiter.has_key:  # called in the same instant in which it gave up
                self.leave(key)
            raise

    def leave(self, key: str) -> None:
        """Passes the key on to who has waited longest."""
        with self._guard:
            queue = self._waiting[key]
            while queue:
                waiter = queue.popleft()
                if waiter.call():
                    waiter.has_key = True
                    return
            del self._waiting[key]


class _Waiter:
    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.called: asyncio.Future[None] = self.loop.create_future()
        self.has_key = False

    def call(self) -> bool:
        """Wakes the waiter; False if its event loop is gone."""
        try:
            self.loop.call_soon_threadsafe(self._wake)
        except RuntimeError:
            return False
        return True

    def _wake(self) -> None:
        if not self.called.done():
            self.called.set_result(None)

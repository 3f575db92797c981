"""Waiting within a process: one holder of a key at a time, in order of arrival.

Waiting costs a future, not a thread or a descriptor; nothing is kept for a key that nobody holds.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Wait:
    """What has lasted for a while, and how long it may; and the task or the thread in which it does, if that is known.

    For who watches over a server: it should never last twice as long.
    """

    what: str
    for_s: float
    limit_s: float
    task: asyncio.Task[Any] | None = None
    thread: int | None = None

    @property
    def is_too_long(self) -> bool:
        return self.for_s > 2 * self.limit_s

    def __str__(self) -> str:
        return f"{self.what} has lasted {self.for_s:.1f} s, and may last {self.limit_s:g}"


class WaitQueue:
    """A lock for each key, passed on in order of arrival; its users may be on any thread and any event loop."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._waiting: dict[str, deque[_Waiter]] = {}
        self._since: dict[str, float] = {}

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
            self._hold(key)
            return True

    async def enter(self, key: str, wait_s: float, *, first: bool = False) -> None:
        """Returns when the key is the caller's, who must `leave` it; `TimeoutError` after `wait_s` seconds.

        Who is to be `first` goes before all who wait already.
        """
        with self._guard:
            queue = self._waiting.get(key)
            if queue is None:
                self._hold(key)
                return
            if wait_s <= 0:
                raise TimeoutError
            waiter = _Waiter(wait_s)
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

    def _hold(self, key: str) -> None:
        self._waiting[key] = deque()
        self._since[key] = time.monotonic()

    def waits(self, what: str, hold_s: float | None = None) -> list[Wait]:
        """Who waits, each with the limit that they came with; and who holds a key, which may last for `hold_s`."""
        now = time.monotonic()
        with self._guard:
            waiters = [waiter for queue in self._waiting.values() for waiter in queue]
            since = [] if hold_s is None else list(self._since.values())
        found = [Wait(f"a wait for {what}", now - one.since, one.wait_s, task=one.task) for one in waiters]
        return found + [Wait(f"a hold of {what}", now - at, hold_s or 0.0) for at in since]

    def leave(self, key: str) -> None:
        """Passes the key on to who has waited longest."""
        with self._guard:
            self._since[key] = time.monotonic()
            queue = self._waiting[key]
            while queue:
                waiter = queue.popleft()
                if waiter.call():
                    waiter.has_key = True
                    return
            del self._waiting[key], self._since[key]


class _Waiter:
    def __init__(self, wait_s: float) -> None:
        self.wait_s, self.since, self.task = wait_s, time.monotonic(), asyncio.current_task()
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

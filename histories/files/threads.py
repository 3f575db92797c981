"""Threads for what may block: one as long as it keeps up, more when it does not.

Each time a thread wakes, it has to win Python's lock from the event loop, and then the event loop from it: that costs
more than a write to a quick disk. So one thread does what has gathered. When nothing is done for a while, as when a
disk takes long to sync, others join it, so that slow calls go side by side.

What comes of each piece of work is told before the next one begins, which may take long. Only the event loop is woken
no more often than it listens.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from threading import get_ident
from time import monotonic
from typing import Any, Final
from weakref import WeakKeyDictionary

from histories.waiting import Wait

_STALLED_S: Final = 0.02
_WORK_S: Final = 30.0
"""What a thread does takes no longer, but for a disk that hangs, or an index that is made of very much."""

_MOST_SHORT: Final = 64
"""Short works that a thread does before others get it."""

Outcome = tuple[Any, Exception | None]


class _Listener:
    """The outcomes that an event loop has yet to hear of."""

    def __init__(self) -> None:
        self._outcomes = deque[tuple[asyncio.Future[Outcome], Outcome]]()
        self._woken = False

    def tell(self, loop: asyncio.AbstractEventLoop, future: asyncio.Future[Outcome], outcome: Outcome) -> None:
        self._outcomes.append((future, outcome))
        if not self._woken:
            self._woken = True
            try:
                loop.call_soon_threadsafe(self._hear)
            except RuntimeError:  # the loop is gone, and with it who waited
                self._outcomes.clear()

    def _hear(self) -> None:
        self._woken = False  # first of all: what is told from now on wakes the loop again
        while self._outcomes:
            future, outcome = self._outcomes.popleft()
            if not future.done():
                future.set_result(outcome)


_Tell = Callable[[Outcome], None]
_Job = tuple[Callable[[], Any], _Tell]


class Threads:
    """At most `most` threads, which begin with the first work. Its users may be on any thread and any event loop."""

    def __init__(self, most: int, name: str) -> None:
        self._most, self._name = most, name
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._short = deque[_Job]()
        self._listeners: WeakKeyDictionary[asyncio.AbstractEventLoop, _Listener] = WeakKeyDictionary()
        self._guard = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._done = 0  # of use only to see whether it has changed
        self._watch_at = 0.0
        self._busy: dict[int, float] = {}
        """The threads that work, and since when."""

    def start(self, work: Callable[[], Any]) -> asyncio.Future[Outcome]:
        """Does the work; the future has what it returned, or which exception it raised. For an event loop."""
        job, future = self._job(work)
        self._put(job)
        return future

    def start_with_others(self, work: Callable[[], Any]) -> asyncio.Future[Outcome]:
        """The same, for short work that comes often: the thread that is at it goes on with the next one.

        To wake a thread for each costs more than the work. One that hangs holds up none that comes later.
        """
        job, future = self._job(work)
        with self._guard:
            self._short.append(job)
            is_first = len(self._short) == 1  # or a thread will come to it
        if is_first:
            self._put((self._do_short, _unheard))
        return future

    def _do_short(self) -> None:
        for _ in range(_MOST_SHORT):
            try:
                work, tell = self._short.popleft()
            except IndexError:
                return
            tell(_outcome(work))
        self._put((self._do_short, _unheard))

    def _job(self, work: Callable[[], Any]) -> tuple[_Job, asyncio.Future[Outcome]]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Outcome] = loop.create_future()
        if loop.time() >= self._watch_at:  # nobody watches, or it was on an event loop that is gone
            self._watch_later(loop)
        return (work, partial(self._listener(loop).tell, loop, future)), future

    def start_unheard(self, work: Callable[[], Any]) -> None:
        """Does the work, and nobody asks what comes of it."""
        self._put((work, _unheard))

    def waits(self) -> list[Wait]:
        """What the threads are at."""
        now = monotonic()
        return [Wait("work of a thread", now - at, _WORK_S, thread=thread) for thread, at in list(self._busy.items())]

    def end(self) -> None:
        """Returns when all that was started is done and the threads have ended. Nothing may be started any more."""
        with self._guard:
            self._most = 0
        self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    def _listener(self, loop: asyncio.AbstractEventLoop) -> _Listener:
        listener = self._listeners.get(loop)
        if listener is None:
            with self._guard:
                listener = self._listeners[loop] = _Listener()
        return listener

    def _put(self, job: _Job) -> None:
        self._jobs.put(job)
        if not self._threads:
            self._add()

    def _add(self) -> None:
        with self._guard:
            if len(self._threads) < self._most:
                thread = threading.Thread(target=self._run, name=f"{self._name}-{len(self._threads)}", daemon=True)
                thread.start()
                self._threads.append(thread)

    def _watch_later(self, loop: asyncio.AbstractEventLoop) -> None:
        self._watch_at = loop.time() + _STALLED_S
        loop.call_later(_STALLED_S, self._watch, loop, self._done)

    def _watch(self, loop: asyncio.AbstractEventLoop, done: int) -> None:
        """Adds a thread for each that waits while nothing gets done."""
        waiting = self._jobs.qsize()
        if waiting and self._done == done:
            for _ in range(waiting):
                self._add()
        if waiting:
            self._watch_later(loop)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            work, tell = job
            self._busy[get_ident()] = monotonic()
            outcome = _outcome(work)
            self._busy.pop(get_ident(), None)
            self._done += 1
            tell(outcome)
            del job, work, tell, outcome  # not kept for as long as nothing comes
        self._jobs.put(None)  # for the others


def _unheard(outcome: Outcome) -> None:
    """Nobody asks what came of it."""


def _outcome(work: Callable[[], Any]) -> Outcome:
    try:
        return work(), None
    except Exception as error:  # noqa: BLE001 - whoever waits for it decides
        return None, error

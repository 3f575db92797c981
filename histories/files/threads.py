"""Threads for what may block: as few as keep up, more when they do not.

Each time a thread wakes, and after each system call, it has to win Python's lock from the event loop, and then the
event loop from it: that costs more than a write to a quick disk. So one thread does what has gathered while others
sleep. When little is done for a while, as when a disk takes long to sync, they join it: slow calls go side by side.

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

_WATCH_S: Final = 0.02
_KEEPS_UP: Final = 8
"""Pieces of work that are done in that time by who keeps up. A disk takes 2.5 ms for each, if fewer are."""

_JOINED_S: Final = 1.0
"""How long others go on helping; then it is seen whether fewer keep up."""

_WORK_S: Final = 30.0
"""What a thread does takes no longer, but for a disk that hangs, or an index that is made of very much."""

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


_Job = tuple[Callable[[], Any], Callable[[Outcome], None]]


class Threads:
    """At most `most` threads, which begin with the first work. Its users may be on any thread and any event loop.

    `few` of them work at a time, as long as they keep up with what event loops start.
    """

    def __init__(self, most: int, name: str, *, few: int = 1) -> None:
        self._most, self._few, self._name = most, few, name
        self._listeners: WeakKeyDictionary[asyncio.AbstractEventLoop, _Listener] = WeakKeyDictionary()
        self._guard = threading.Lock()
        self._jobs = deque[_Job]()
        self._threads: list[threading.Thread] = []
        self._asleep: list[SimpleQueue[None]] = []
        """Of each thread that sleeps what it waits for something in."""
        self._working, self._may_work, self._until = 0, few, 0.0
        self._is_ending = False
        self._done = 0  # of use only to see how much it has changed
        self._watch_at = 0.0
        self._busy: dict[int, float] = {}
        """The threads that work, and since when."""

    def start(self, work: Callable[[], Any]) -> asyncio.Future[Outcome]:
        """Does the work; the future has what it returned, or which exception it raised. For an event loop."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Outcome] = loop.create_future()
        self._put((work, partial(self._listener(loop).tell, loop, future)))
        if loop.time() >= self._watch_at:  # nobody watches, or it was on an event loop that is gone
            self._watch_later(loop)
        return future

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
            self._is_ending = True
            asleep, self._asleep = self._asleep, []
            self._working += len(asleep)
        for sleeper in asleep:
            sleeper.put(None)
        for thread in self._threads:
            thread.join()

    def _listener(self, loop: asyncio.AbstractEventLoop) -> _Listener:
        listener = self._listeners.get(loop)
        if listener is None:
            with self._guard:
                listener = self._listeners.setdefault(loop, _Listener())
        return listener

    def _put(self, job: _Job) -> None:
        with self._guard:
            self._jobs.append(job)
            self._wake()

    def _wake(self) -> None:
        """Has one more work, if one more may: it takes what waits, or goes to sleep."""
        if self._working < self._may_work:
            self._working += 1
            if self._asleep:
                self._asleep.pop().put(None)
            else:
                name = f"{self._name}-{len(self._threads)}"
                thread = threading.Thread(target=self._run, name=name, daemon=True)
                self._threads.append(thread)
                thread.start()

    def _watch_later(self, loop: asyncio.AbstractEventLoop) -> None:
        self._watch_at = loop.time() + _WATCH_S
        loop.call_later(_WATCH_S, self._watch, loop, self._done)

    def _watch(self, loop: asyncio.AbstractEventLoop, done: int) -> None:
        """Has one more work for each piece that waits, while little gets done."""
        with self._guard:
            waiting = len(self._jobs)
            if waiting and self._done - done < _KEEPS_UP:
                self._may_work, self._until = min(self._most, self._working + waiting), loop.time() + _JOINED_S
                for _ in range(waiting):
                    self._wake()
            elif loop.time() >= self._until:
                self._may_work = self._few
        if waiting:
            self._watch_later(loop)

    def _run(self) -> None:
        bed: SimpleQueue[None] = SimpleQueue()
        while True:
            job = self._next(bed)
            if job is not None:
                work, tell = job
                self._busy[get_ident()] = monotonic()
                outcome = _outcome(work)
                self._busy.pop(get_ident(), None)
                self._done += 1
                tell(outcome)
                del work, tell, outcome  # not kept for as long as nothing comes
            elif self._is_ending:
                return
            else:
                bed.get()
            del job

    def _next(self, bed: SimpleQueue[None]) -> _Job | None:
        """What to do next. None: nothing, until something is put into its bed; or the end has come."""
        with self._guard:
            if self._jobs and (self._working <= self._may_work or self._is_ending):
                return self._jobs.popleft()
            if not self._is_ending:
                self._working -= 1
                self._asleep.append(bed)
            return None


def _unheard(outcome: Outcome) -> None:
    """Nobody asks what came of it."""


def _outcome(work: Callable[[], Any]) -> Outcome:
    try:
        return work(), None
    except Exception as error:  # noqa: BLE001 - whoever waits for it decides
        return None, error

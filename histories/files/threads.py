"""Threads for what may block: one as long as it keeps up, more when it does not.

Each time a thread wakes, it has to win Python's lock from the event loop, and then the event loop from it: that costs
more than a write to a quick disk. So one thread does what has gathered in one go and tells of it in one go. When
nothing is done for a while, as when a disk takes long to sync, others join it, so that slow calls go side by side.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Final

_STALLED_S: Final = 0.02
_QUICK_S: Final = 0.001

Outcome = tuple[Any, Exception | None]
_Job = tuple[Callable[[], Any], Callable[[Outcome], None], asyncio.AbstractEventLoop | None]


class Threads:
    """At most `most` threads, which begin with the first work. Its users may be on any thread and any event loop."""

    def __init__(self, most: int, name: str) -> None:
        self._most, self._name = most, name
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._guard = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._done = 0  # of use only to see whether it has changed
        self._watch_at = 0.0

    def start(self, work: Callable[[], Any]) -> asyncio.Future[Outcome]:
        """Does the work; the future has what it returned, or which exception it raised. For an event loop."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Outcome] = loop.create_future()

        def tell(outcome: Outcome) -> None:
            if not future.done():
                future.set_result(outcome)

        self._put((work, tell, loop))
        if loop.time() >= self._watch_at:  # nobody watches, or it was on an event loop that is gone
            self._watch_later(loop)
        return future

    def start_unheard(self, work: Callable[[], Any]) -> None:
        """Does the work, and nobody asks what comes of it."""
        self._put((work, lambda outcome: None, None))

    def end(self) -> None:
        """Returns when all that was started is done and the threads have ended. Nothing may be started any more."""
        with self._guard:
            self._most = 0
        self._jobs.put(None)
        for thread in self._threads:
            thread.join()

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
            self._do_some(job)
        self._jobs.put(None)  # for the others

    def _do_some(self, job: _Job) -> None:
        """Does this job, and for a moment those that follow, then tells of all."""
        told: dict[asyncio.AbstractEventLoop | None, list[tuple[Callable[[Outcome], None], Outcome]]] = {}
        until = time.monotonic() + _QUICK_S
        while True:
            work, tell, loop = job
            told.setdefault(loop, []).append((tell, _outcome(work)))
            self._done += 1
            if time.monotonic() > until:
                break
            try:
                following = self._jobs.get_nowait()
            except Empty:
                break
            if following is None:
                self._jobs.put(None)
                break
            job = following
        for loop, outcomes in told.items():
            _tell(loop, outcomes)


def _outcome(work: Callable[[], Any]) -> Outcome:
    try:
        return work(), None
    except Exception as error:  # noqa: BLE001 - whoever waits for it decides
        return None, error


def _tell(loop: asyncio.AbstractEventLoop | None, outcomes: list[tuple[Callable[[Outcome], None], Outcome]]) -> None:
    def tell_all() -> None:
        for tell, outcome in outcomes:
            tell(outcome)

    if loop is not None:
        try:
            loop.call_soon_threadsafe(tell_all)
        except RuntimeError:  # the loop is gone, and with it who waited
            return

"""What goes next: the event loop or one of the threads, as a seed has it, in time that passes when nobody can go on."""

from __future__ import annotations

import asyncio
import fcntl
import selectors
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from queue import Empty
from random import Random
from types import SimpleNamespace
from typing import Any, Final
from unittest import mock

from greenlet import greenlet
from typing_extensions import override

from histories.files import threads

_ENOUGH_S: Final = 120.0
"""Of simulated time: whoever still waits then waits for ever, as every wait of a story is shorter."""

_MANY: Final = 200_000
"""Steps: more than ten times what the longest story has. Whoever goes on still goes round in a circle."""

_really_lock = fcntl.flock


class Hang(Exception):
    """Somebody waits for ever."""


class _Over(BaseException):
    """Ends a simulated thread with its schedule."""


class World:
    """One schedule. `now` is its time in seconds."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.now, self.steps = 0.0, 0
        self._main = greenlet.getcurrent()
        self._threads: list[SimThread] = []

    def switch(self) -> None:
        """A point at which another may go on first."""
        self.steps += 1
        if self.steps == _MANY:
            raise Hang("somebody goes round in a circle")
        current = greenlet.getcurrent()
        if current is self._main:
            while self.random.random() < 0.3 and (thread := self._choose()) is not None:
                thread.step()
        else:
            self._main.switch()

    def pause(self, seconds: float) -> None:
        """The thread that calls this goes on so much later; the event loop never waits like this."""
        current = greenlet.getcurrent()
        if current is self._main:
            raise Hang("the event loop waits for a lock")
        current.thread.wakes_at = self.now + seconds
        self._main.switch()

    def add(self, thread: SimThread) -> None:
        self._threads.append(thread)

    def _choose(self) -> SimThread | None:
        now = self.now
        ready = [thread for thread in self._threads if thread.is_ready(now)]
        if len(ready) < 2:
            return ready[0] if ready else None
        return self.random.choice(ready)

    def idle(self, timeout: float | None) -> None:
        """What the event loop does between two rounds: lets a thread go on, or time pass."""
        if self.now > _ENOUGH_S:
            raise Hang("somebody waits for ever")
        thread = self._choose()
        if thread is not None and (timeout != 0 or self.random.random() < 0.5):
            thread.step()
            while self.random.random() < 0.6 and (thread := self._choose()) is not None:
                thread.step()
        elif timeout != 0:
            wakes = [thread.wakes_at for thread in self._threads if thread.wakes_at > self.now]
            times = [*wakes, *([] if timeout is None else [self.now + timeout])]
            if not times:
                raise Hang("nothing can go on any more")
            self.now = min(times)

    def end(self) -> None:
        for thread in self._threads:
            thread.end()

    @contextmanager
    def running(self) -> Iterator[asyncio.AbstractEventLoop]:
        """An event loop of this world, with threads and locks of it."""
        parts = SimpleNamespace(Thread=lambda **more: SimThread(self, **more), Lock=threading.Lock)
        loop = _Loop(self)
        asyncio.set_event_loop(loop)
        try:
            with (
                mock.patch.object(threads, "threading", parts),
                mock.patch.object(threads, "SimpleQueue", partial(SimQueue, self)),
                mock.patch.object(fcntl, "flock", self._flock),
            ):
                yield loop
        finally:
            self.end()
            asyncio.set_event_loop(None)
            loop.close()

    def _flock(self, descriptor: int, operation: int) -> None:
        if operation & fcntl.LOCK_NB or operation & fcntl.LOCK_UN:
            _really_lock(descriptor, operation)
            return
        while True:
            try:
                _really_lock(descriptor, operation | fcntl.LOCK_NB)
            except BlockingIOError:
                self.pause(0.01)
            else:
                return


class SimThread:
    """In place of `threading.Thread`."""

    def __init__(self, world: World, *, target: Callable[[], None], name: str, daemon: bool) -> None:
        self._world, self._target, self.name = world, target, name
        self.wakes_at = 0.0
        self.waits_for: SimQueue | None = None
        self._runs = greenlet(self._run)
        self._runs.thread = self

    def start(self) -> None:
        self._world.add(self)

    def _run(self) -> None:
        try:
            self._target()
        except _Over:
            return

    def is_ready(self, now: float) -> bool:
        if self.wakes_at > now or (self.waits_for is not None and not self.waits_for.items):
            return False
        return not self._runs.dead

    def step(self) -> None:
        self._runs.switch()

    def end(self) -> None:
        if not self._runs.dead:
            self._runs.throw(_Over)


class SimQueue:
    """In place of `SimpleQueue`."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.items = deque[Any]()

    def put(self, item: Any) -> None:
        self.items.append(item)

    def get(self) -> Any:
        thread = greenlet.getcurrent().thread
        thread.waits_for = self
        self._world.switch()
        while not self.items:
            self._world.switch()
        thread.waits_for = None
        return self.items.popleft()

    def get_nowait(self) -> Any:
        if not self.items:
            raise Empty
        return self.items.popleft()

    def qsize(self) -> int:
        return len(self.items)


class _Selector(selectors.SelectSelector):
    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    @override
    def select(self, timeout: float | None = None) -> list[Any]:
        self._world.idle(timeout)
        return []


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self, world: World) -> None:
        super().__init__(_Selector(world))
        self._world = world

    @override
    def time(self) -> float:
        return self._world.now

    def _write_to_self(self) -> None:
        """Nobody sleeps who would have to be woken."""

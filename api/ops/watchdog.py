"""A watchdog over what waits in this process: turns, threads of the store, locks.

All of them have limits of their own, by which they give up. So who has waited for twice as long is stuck, by a fault of
ours, of a chain's or of a disk's: it is logged once, with where it is, and the server is not ready until it has gone.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol, cast
from weakref import WeakKeyDictionary

from api.loop_watch import stack_of
from histories.base import HistoryStore, Wait
from turns.rules import Rules
from turns.turn_run import Phase, TurnRun

log = logging.getLogger("recollect.watchdog")

_LOOK_S: Final = 2.0
_SAVE_S: Final = 60.0
"""How long stores try to write the end of a turn."""
_FRAMES: Final = 12


class WatchedTurns(Protocol):
    """All turns of a process."""

    store: HistoryStore
    rules: Rules
    running: set[TurnRun]


class Watchdog:
    """`clock` is for tests."""

    def __init__(self, turns: WatchedTurns, clock: Any = time.monotonic) -> None:
        self._turns, self._clock = turns, clock
        self._since: WeakKeyDictionary[TurnRun, tuple[Phase, float]] = WeakKeyDictionary()
        self._stuck: dict[object, Wait] = {}

    def trouble(self) -> str | None:
        """A sentence about what is stuck, if anything is."""
        self.look()
        wait = next(iter(self._stuck.values()), None)
        if wait is None:
            return None
        return f"A part of this server is stuck: {wait}. Its log says where."

    def look(self) -> None:
        """Looks at all that waits; logs what is stuck since the last look, and what is not any more."""
        stuck = {_name(wait): wait for wait in [*self._of_turns(), *self._turns.store.waits()] if wait.is_too_long}
        for name, wait in stuck.items():
            if name not in self._stuck:
                log.error("%s:\n%s", wait, _place(wait))
        for name in self._stuck.keys() - stuck.keys():
            log.warning("%s has come to its end", self._stuck[name].what)
        self._stuck = stuck

    def _of_turns(self) -> Collection[Wait]:
        now, found, rules = self._clock(), list[Wait](), self._turns.rules
        limits = {Phase.WAITING: rules.wait_s, Phase.GENERATING: rules.limit_s, Phase.SAVING: _SAVE_S}
        for run in self._turns.running:
            phase, since = self._since.get(run, (None, now))
            if phase is not run.phase:
                since = now
                self._since[run] = run.phase, now
            limit = limits.get(run.phase, 0.0)
            # Who has begun waits for a place among those that run, which is given in turn: that has no limit.
            if limit and not (run.phase is Phase.WAITING and run.begun.done()):
                found.append(Wait(f"a turn that is {run.phase.name.lower()}", now - since, limit, task=run.task))
        return found

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Looks every few seconds, as long as this lasts."""
        task = asyncio.create_task(self._watch(), name="recollect-watchdog")
        try:
            yield
        finally:
            task.cancel()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            self.look()


def _name(wait: Wait) -> object:
    return wait.what, wait.thread, id(wait.task)


def _place(wait: Wait) -> str:
    """Where it is: files and functions, without what they work on."""
    if wait.thread is not None:
        return stack_of(wait.thread)
    return "(not known)" if wait.task is None else _stack_of_task(wait.task)


def _stack_of_task(task: asyncio.Task[Any]) -> str:
    lines, inner = list[str](), cast(Any, task.get_coro())
    while inner is not None:
        frame = _part(inner, "frame")
        if frame is not None:
            lines.append(f"  {frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_name}\n")
        inner = _part(inner, "await") or getattr(inner, "gi_yieldfrom", None)
    return "".join(lines[-_FRAMES:])


def _part(coroutine: Any, name: str) -> Any:
    """That attribute of a coroutine, a generator, or an asynchronous one."""
    return next((found for kind in ("cr", "gi", "ag") if (found := getattr(coroutine, f"{kind}_{name}", None))), None)

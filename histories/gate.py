"""The half of a turn's keeping that is within one process, and the same for every store."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from histories.errors import SessionBusy
from histories.model import NewTurn
from histories.unique import new_id
from histories.waiting import WaitQueue

ATTENDED_S: Final = 15.0
"""How long a turn counts as listened to since somebody last said so."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt to run a turn. Its `token` is its own: a retry of the same turn_id is another attempt.

    `deadline` is of the event loop's clock; the rest is what `begin` was told.
    """

    new: NewTurn
    deadline: float
    window_tokens: int
    on_stop: Callable[[], None] | None
    if_last: str | None = None
    token: str = field(default_factory=new_id)


class Gate:
    """Who waits for each session in this process, in order of arrival, and which turns run in it."""

    def __init__(self) -> None:
        self.queue = WaitQueue()
        self.running: dict[str, Attempt] = {}
        self._attended: dict[str, float] = {}

    async def enter(self, key: str, wait_s: float) -> None:
        """Returns when the session is the caller's, who must `leave` the queue or `close`. `SessionBusy`."""
        try:
            await self.queue.enter(key, wait_s)
        except TimeoutError:
            raise SessionBusy from None

    def open(self, key: str, attempt: Attempt) -> None:
        """The attempt's turn runs now."""
        self.running[key] = attempt

    def close(self, key: str) -> None:
        """It runs no longer: the next one in line may begin."""
        self.running.pop(key, None)
        self._attended.pop(key, None)
        self.queue.leave(key)

    def runs(self, key: str, turn_id: str) -> bool:
        """Whether the turn of that id runs in this process."""
        attempt = self.running.get(key)
        return attempt is not None and attempt.new.turn_id == turn_id

    def attend(self, key: str, turn_id: str) -> bool:
        """Whether that turn runs in this process, and is listened to from now on: see `SessionHistory.attend`."""
        if not self.runs(key, turn_id):
            return False
        self._attended[key] = time.monotonic()
        return True

    def is_attended(self, key: str) -> bool:
        """Whether that was said of the session's turn a short while ago."""
        return time.monotonic() - self._attended.get(key, float("-inf")) < ATTENDED_S

    def stop(self, key: str, token: str | None = None) -> bool:
        """Whether a turn runs in this process (of that attempt, if one is named), which is now asked to stop."""
        attempt = self.running.get(key)
        if attempt is None or token not in (None, attempt.token):
            return False
        if attempt.on_stop is not None:
            attempt.on_stop()
        return True

    @asynccontextmanager
    async def idle(self, key: str) -> AsyncIterator[None]:
        """As long as this lasts no turn of the session begins in this process. `SessionBusy` if one runs."""
        await self.enter(key, 0)
        try:
            yield
        finally:
            self.queue.leave(key)

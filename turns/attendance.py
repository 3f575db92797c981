"""Telling the processes that run turns which of them are listened to here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from histories.base import ATTENDED_S, SessionHistory, StoreUnavailable

_EVERY_S: Final = ATTENDED_S / 3
"""So that one or two words may be lost before a turn counts as forsaken."""


class Attendance:
    """Who listens here to turns that may run elsewhere. However many listen to one turn, one word is left for all."""

    def __init__(self) -> None:
        self._listeners: dict[tuple[str, str], int] = {}
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}

    @asynccontextmanager
    async def of(self, history: SessionHistory, turn_id: str) -> AsyncIterator[None]:
        """Somebody listens to that turn for the time of the block."""
        name = (history.key, turn_id)
        self._listeners[name] = self._listeners.get(name, 0) + 1
        if name not in self._tasks:
            self._tasks[name] = asyncio.create_task(_attend(history, turn_id), name="recollect-attendance")
        try:
            yield
        finally:
            self._listeners[name] -= 1
            if not self._listeners[name]:
                del self._listeners[name]
                self._tasks.pop(name).cancel()


async def _attend(history: SessionHistory, turn_id: str) -> None:
    """Says so again and again, until it is cancelled."""
    while True:
        with suppress(StoreUnavailable):  # who can't be told now is told soon
            await history.attend(turn_id)
        await asyncio.sleep(_EVERY_S)

"""Reads what a turn says as it says it, in whichever process it runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Final

from histories.base import Event, SessionNotFound
from histories.files.journal_file import JournalReader
from histories.files.place import Place
from histories.files.services import Services

_SOONEST_S: Final = 0.01
_LATEST_S: Final = 0.05
"""How soon, and later how often, a reader looks for more: a look is one system call, which asks no disk."""

_ALIVE_S: Final = 0.5
"""How often it looks whether the owner of the turn is alive, when it hears nothing."""


async def follow(
    store: Services, place: Place, running: Callable[[], Awaitable[int | None]], after: int
) -> AsyncIterator[Sequence[Event]]:
    """The events after that number. `running` tells the offset of the turn's record as long as it runs."""
    offset = await _runs(running)
    reader: JournalReader | None = None
    pause, silent_s = _SOONEST_S, 0.0
    try:
        while offset is not None:
            if reader is None:
                reader = await store.call(lambda: _open(store, place, offset), place.user)
            if reader is not None and reader.has_more:
                some = [event for event in reader.read() if event.seq > after]
                if some:
                    yield some
                    pause, silent_s = _SOONEST_S, 0.0
                    continue
            if (reader is not None and reader.is_removed) or (silent_s >= _ALIVE_S and await _runs(running) != offset):
                return
            silent_s = 0.0 if silent_s >= _ALIVE_S else silent_s + pause
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _LATEST_S)
    finally:
        if reader is not None:
            reader.close()


async def _runs(running: Callable[[], Awaitable[int | None]]) -> int | None:
    try:
        return await running()
    except SessionNotFound:
        return None


def _open(store: Services, place: Place, offset: int) -> JournalReader | None:
    with suppress(FileNotFoundError), store.folder(place.user) as folder:
        return JournalReader.open(store.disk, folder, place.journal, offset)
    return None

"""Who may begin a turn, and when: after those that came before, in this process and in others."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial

from histories.base import HistoryError, OpenTurn, SessionBusy, Turn
from histories.files.flock import NotNow
from histories.files.turn import FileTurn

_SOONEST_S, _LATEST_S = 0.005, 0.1
"""How soon, and later how often, the first in line looks whether another process has freed the session."""

_MOMENT_S = 0.25
"""For so long even who is not to wait does, for a title that is written in this moment."""


async def begin_turn(turn: FileTurn, deadline: float) -> OpenTurn | Turn:
    """Begins the turn for who is first in line in this process: waits for those of others until the deadline."""
    loop, pause, looks = asyncio.get_running_loop(), _SOONEST_S, 0
    try:
        while True:
            left_s = deadline - loop.time()
            begun, cancelled = await _look_alone(turn, left_s, at_once=not looks)
            looks += 1
            if cancelled:
                if begun is turn:
                    with suppress(HistoryError):
                        await turn.give_up()
                raise asyncio.CancelledError
            if begun is not None:
                return begun
            if left_s <= 0 and looks > 1:  # the first look may have met who just puts the session's files away
                raise SessionBusy
            await asyncio.sleep(min(pause, max(_SOONEST_S, deadline - loop.time())))
            pause = min(pause * 1.5, _LATEST_S)
    finally:
        if turn.line.joined:  # it has given up: who has begun has left the line
            _, cancelled = await turn.store.in_thread(partial(_leave_line, turn), turn.place.user, of_turn=True)
            if cancelled:
                raise asyncio.CancelledError


async def _look_alone(turn: FileTurn, left_s: float, *, at_once: bool) -> tuple[OpenTurn | Turn | None, bool]:
    """One try to begin, while nobody else in this process writes to the log; was it cancelled?"""
    store, key, loop = turn.store, turn.key, asyncio.get_running_loop()
    deadline = loop.time() + max(left_s, _MOMENT_S)
    try:
        await store.writers.enter(key, deadline - loop.time(), first=True)
    except TimeoutError:
        raise SessionBusy from None
    try:
        if at_once:
            begun, cancelled = await turn.begin_at_once()
            if begun is not None or cancelled:
                return begun, cancelled
        while True:
            try:
                return await store.in_thread(partial(turn.try_begin, wait=left_s > 0), turn.place.user, of_turn=True)
            except NotNow:
                if loop.time() >= deadline:
                    return None, False
            await asyncio.sleep(_SOONEST_S)
    finally:
        store.writers.leave(key)


def _leave_line(turn: FileTurn) -> None:
    """Gives up waiting; never raises."""
    try:
        with turn.store.folder(turn.place.user) as folder:
            turn.line.leave(folder)
    except OSError:
        turn.line.leave(None)

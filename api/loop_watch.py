"""A watchdog of the event loop: how late it is, and what held it when it was very late."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback
from typing import Final

log = logging.getLogger("recollect.loop")

_BEAT_S: Final = 0.05
_HELD_S: Final = 0.25
"""From here on others notice."""

_FRAMES: Final = 12


class LoopWatch:
    """Watches the loop on which it was started, from a thread. Its figures are for the metrics."""

    def __init__(self) -> None:
        self.lag_s = 0.0
        """How late the loop was when it was last heard of."""

        self.longest_s = 0.0
        self.held_count = 0
        self.held_s = 0.0
        """How often, and for how long in all, it was held for more than a quarter of a second."""

        self._beat_at = time.monotonic()
        self._over = threading.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        """Begins to watch the running loop."""
        self._loop = asyncio.get_running_loop()
        self._beat_at = time.monotonic()
        self._beat()
        threading.Thread(
            target=self._watch, args=(threading.get_ident(),), name="recollect-loop-watch", daemon=True
        ).start()

    def stop(self) -> None:
        self._over.set()
        if self._timer is not None:
            self._timer.cancel()

    def _beat(self) -> None:
        now = time.monotonic()
        if self._timer is not None:
            self.lag_s = max(0.0, now - self._beat_at - _BEAT_S)
            self.longest_s = max(self.longest_s, self.lag_s)
        self._beat_at = now
        assert self._loop is not None  # noqa: S101 - started
        self._timer = self._loop.call_later(_BEAT_S, self._beat)

    def _watch(self, loop_thread: int) -> None:
        while not self._over.wait(_BEAT_S):
            beat_at = self._beat_at
            if time.monotonic() - beat_at < _BEAT_S + _HELD_S:
                continue
            stack = stack_of(loop_thread)
            while self._beat_at == beat_at and not self._over.wait(_BEAT_S):
                pass
            held_s = self._beat_at - beat_at - _BEAT_S
            self.held_count += 1
            self.held_s += held_s
            log.warning("the event loop was held for %.2f s, at a quarter of a second by:\n%s", held_s, stack)


def stack_of(thread: int) -> str:
    """Where a thread is: files and functions, without what they work on."""
    frame = sys._current_frames().get(thread)
    if frame is None:
        return "(gone)"
    return "".join(f"  {one.filename}:{one.lineno} {one.name}\n" for one in traceback.extract_stack(frame)[-_FRAMES:])

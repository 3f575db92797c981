"""The sessions that were used last: their files stay open, and what the next turn needs stays parsed, for a while.

Their lock's file stays where it is for so long. It is free between turns, and whoever changes a session otherwise than
by appending to its log (deletes, rewinds, repairs it) removes that file: then no process takes its open files for the
session any more.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from histories.base import ShownTurn
from histories.files.locks import FileLock
from histories.files.log import Log
from histories.files.records import Sums

_SESSIONS: Final = 128
_IDLE_S: Final = 20.0
_MESSAGES: Final = 400
"""Of each session. What is shown of a longer past is read from the file."""


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of a log whose last turn has ended: its sums, and all turns that are shown from the count `floor` on.

    Each has the token count before it. `last` is the last turn of the line, shown to a model or not.
    """

    sums: Sums
    floor: int
    shown: Sequence[tuple[int, ShownTurn]]
    last: str = ""

    @property
    def is_short(self) -> bool:
        """Whether it may be kept."""
        return sum(len(turn.messages) for _, turn in self.shown) <= _MESSAGES

    def window(self, floor: int) -> list[ShownTurn]:
        """The turns from a token count on."""
        return [turn for tokens, turn in self.shown if tokens >= floor]


@dataclass(slots=True)
class OpenSession:
    """A session between two turns of this process: its lock, which is free, its open log, and the end of that.

    It is as good as new if the lock's file is still in place and the log has `size` bytes: logs are only appended to.
    `end` is how an index names that (`Log.end_at`).
    """

    lock: FileLock
    log: Log
    tail: Tail | None
    size: int
    end: str
    rested_at: float = 0.0

    def try_resume(self) -> bool:
        """Whether the session is now the caller's alone, unchanged. Asks for nothing that a disk may be slow to give.

        If not, its files are closed, and of no more use.
        """
        if self.lock.try_again() and self.log.try_alone():
            file = os.fstat(self.log.descriptor)
            if file.st_nlink > 0 and file.st_size == self.size:
                return True
        self.close()
        return False

    def close(self) -> None:
        """Closes its files, which frees them."""
        self.log.close()
        self.lock.release(None)


class OpenSessions:
    """At most _SESSIONS of them, for at most _IDLE_S seconds. Its users may be on any thread."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._sessions: OrderedDict[str, OpenSession] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    def take(self, key: str) -> OpenSession | None:
        """The session, if it is here, which it is no longer."""
        with self._guard:
            return self._sessions.pop(key, None)

    def keep(self, key: str, session: OpenSession) -> list[tuple[str, OpenSession]]:
        """Keeps a session; gives those that have to make room for it."""
        session.rested_at = time.monotonic()
        with self._guard:
            self._sessions[key] = session
            return [self._sessions.popitem(last=False) for _ in range(len(self._sessions) - _SESSIONS)]

    def take_stale(self, *, all_of_them: bool = False) -> list[tuple[str, OpenSession]]:
        """Those that were idle for long, and those that somebody else has removed or put something else in place of.

        Unless it is `all_of_them`, this asks the disk about each, so it is for a thread. Who takes or keeps a session
        meanwhile waits for one answer of the disk at most.
        """
        before = time.monotonic() - _IDLE_S
        with self._guard:
            keys = list(self._sessions)
        stale = []
        for key in keys:
            with self._guard:  # as long as the session is here, its files are open
                one = self._sessions.get(key)
                if one is not None and (all_of_them or one.rested_at < before or one.lock.gone):
                    stale.append((key, self._sessions.pop(key)))
        return stale

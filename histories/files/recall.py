"""What was said in sessions, for recalls: read from their logs once, then as much as is new.

A turn on the shown line is found again by the offset of its record. Where a log goes on from the turn that was read
last, all before that turn stands as it did, but for those that are gone; anywhere else it is read anew.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Collection
from contextlib import suppress
from heapq import nlargest
from typing import Final

from histories import codec
from histories.base import HistoryDamaged, Recalled, Turn, TurnStatus
from histories.files.disk import Disk
from histories.files.folders import log_names
from histories.files.log import Log
from histories.files.records import Entry
from histories.search import Index

_KEPT: Final = 20_000
"""How many turns are kept in mind, some 300 bytes each: sessions whose recall is longest ago go first."""

_READ_S: Final = 0.2
"""How long a recall over all sessions reads logs, the newest first: a turn waits for it."""


class Said:
    """The sessions that this process has recalled from."""

    def __init__(self, disk: Disk) -> None:
        self._disk, self._lock = disk, threading.Lock()
        self._sessions: OrderedDict[tuple[int, int, str], _Session] = OrderedDict()

    def recall(
        self, folder: int, query: str, *, only: str | None, exclude: Collection[tuple[str, str]], limit: int
    ) -> list[Recalled]:
        """The complete turns of shown lines that bear on the query, best first: of that file's session, or of all."""
        names = _newest_first(folder) if only is None else [f"{only}.jsonl"]
        found, until = list[Recalled](), time.monotonic() + _READ_S
        for name in names:
            with suppress(HistoryDamaged, FileNotFoundError):
                found += self._recall_of(folder, name, query, exclude, limit)
            if time.monotonic() > until:
                break
        return nlargest(limit, found, key=lambda one: one.score)

    def _recall_of(
        self, folder: int, name: str, query: str, exclude: Collection[tuple[str, str]], limit: int
    ) -> list[Recalled]:
        log = Log(self._disk, self._disk.open(folder, name, os.O_RDONLY))
        try:
            if log.is_empty():
                return []
            session = self._session(log)
            with session.lock:
                session.catch_up(log)
                return session.recall(log, query, exclude, limit)
        finally:
            log.close()

    def _session(self, log: Log) -> _Session:
        with self._lock:
            session = self._sessions.pop(log.identity, None) or _Session(str(log.head()["session"]))
            self._sessions[log.identity] = session
            size = sum(len(one.index) for one in self._sessions.values())
            while size > _KEPT and len(self._sessions) > 1:
                size -= len(self._sessions.popitem(last=False)[1].index)
        return session


class _Session:
    """The words of one session's turns, by the offset of each; and where its record and that of its end are."""

    def __init__(self, session_id: str) -> None:
        self.lock = threading.Lock()
        self.index = Index[int]()
        self._session_id, self._newest = session_id, -1
        self._places: dict[int, tuple[str, int]] = {}

    def catch_up(self, log: Log) -> None:
        new, gone = list[Entry](), list[int]()
        for entry in log.entries():
            if entry.offset == self._newest:
                gone += entry.gone
                break
            new.append(entry)
        else:
            self.index, self._places = Index(), {}
        for offset in gone:
            self._places.pop(offset, None)
        for entry in reversed(new):
            if entry.status is not TurnStatus.RUNNING:
                self._newest = entry.offset
            if entry.status is TurnStatus.COMPLETE and entry.offset not in self.index:
                turn = entry.turn()
                self.index.add(entry.offset, codec.text_of([*turn.input, *turn.output]))
                self._places[entry.offset] = (turn.turn_id, entry.end_at)

    def recall(self, log: Log, query: str, exclude: Collection[tuple[str, str]], limit: int) -> list[Recalled]:
        ranked = self.index.rank(query, self._places, limit + len(exclude))
        best = [
            (offset, score) for offset, score in ranked if (self._session_id, self._places[offset][0]) not in exclude
        ]
        return [Recalled(self._session_id, self._turn(log, offset), score) for offset, score in best[:limit]]

    def _turn(self, log: Log, offset: int) -> Turn:
        return Entry(offset, log.record_at(offset), log.record_at(self._places[offset][1])).turn()


def _newest_first(folder: int) -> list[str]:
    times: dict[str, float] = {}
    for name in log_names(folder):
        with suppress(FileNotFoundError):
            times[name] = os.stat(name, dir_fd=folder).st_mtime
    return sorted(times, key=times.__getitem__, reverse=True)

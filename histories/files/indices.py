"""The indices of users' folders: they stay open for a while, follow what is written, and are never missed.

What is wrong with an index is no concern of who asks: a broken one is removed, and made anew by the next look. While
it can't be had, since others write to it for long or the disk is full, the logs are read into one in memory.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Final, TypeVar

from histories.files.catch_up import catch_up, catch_up_some, put_in
from histories.files.disk import Disk
from histories.files.index import Index
from histories.files.index_file import INDEX, index_inode, memory_index, open_index, remove_index
from histories.files.looks import is_old
from histories.files.pace import Pace
from histories.files.written import Changes, Written

T = TypeVar("T")

_OPEN: Final = 32
_IDLE_S: Final = 20.0
_GATHER_S: Final = 2.0
"""How long changes gather before they are brought in: a session of many quick turns is looked at once, not for each."""
_PURGE_SHARE: Final = 20
"""How many times as long as it took nothing is taken out of an index again: its thread has others to follow."""
_NOT_ITS_FAULT: Final = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_INTERRUPT,
    }
)
"""What SQLite may say of an index that is sound."""


class Indices:
    """The indices of a store. Its users may be on any thread; those of one index have a connection each."""

    def __init__(self, path: str, *, durable: bool) -> None:
        self._path, self._durable = path, durable
        self._guard = threading.Lock()  # held for moments: nobody asks the disk meanwhile
        self._open: OrderedDict[str, tuple[Index, float]] = OrderedDict()
        self._changed = Changes()
        self._changed_at = 0.0
        self._purge_at: dict[str, float] = {}

    def ask(self, disk: Disk, user: str, folder: int, question: Callable[[Index], T]) -> T:
        """What the index of an open folder answers; that of one in memory, if it can't be had now."""
        try:
            with self._index(user, folder) as index:
                return question(index)
        except (sqlite3.Error, OSError) as error:
            if isinstance(error, OSError) and not isinstance(error, _NoIndex):
                raise
        index = memory_index()
        try:
            return question(index)
        finally:
            index.close()

    def changed(self, user: str, name: str, written: Written | None = None) -> None:
        """Notes that a session's log has changed, and how, if that is all."""
        with self._guard:
            if not self._changed.of:
                self._changed_at = time.monotonic()
            self._changed.add(user, name, written)

    def waiting(self, user: str) -> Sequence[str]:
        """The logs of a user whose changes have not been brought in."""
        with self._guard:
            return self._changed.names(user)

    def is_there(self, user: str) -> bool:
        """Whether a user has an index."""
        return os.path.exists(os.path.join(self._path, user, INDEX))

    @property
    def has_changes(self) -> bool:
        """Whether there are changes that have waited long enough."""
        at = time.monotonic()
        if self._changed.of and at - self._changed_at >= _GATHER_S:
            return True
        return bool(self._purge_at) and min(self._purge_at.values()) <= at

    def take_changes(self, *, at_once: bool = False) -> dict[str, dict[str, list[Written] | None]]:
        """The logs that have changed since this was asked last, by their users' folders.

        Also users of whose index something is to be taken: now, or `at_once`.
        """
        with self._guard:
            changed, self._changed = self._changed.of, Changes()
            at = time.monotonic()
            for user in [user for user, due in self._purge_at.items() if at_once or due <= at]:
                del self._purge_at[user]
                changed.setdefault(user, {})
        return changed

    def follow(
        self,
        disk: Disk,
        user: str,
        folder: int,
        changes: Mapping[str, Sequence[Written] | None],
        *,
        most: int,
        pace: Pace,
    ) -> bool:
        """Brings what has changed into an index that is there; False if more than `most` logs are to be read.

        If it can't be done now, the next look does it. Turns alone make no index that nobody has asked for yet.
        """
        with suppress(sqlite3.Error, OSError):
            if not index_inode(folder):
                return sum(written is None for written in changes.values()) <= most  # many are an import
            with self._index(user, folder) as index:
                unread = put_in(index, folder, changes, pace)
                if len(unread) > most:
                    return False
                catch_up_some(index, disk, folder, sorted(unread))
                self._purge(index, user)
        return True

    def doubt(self, user: str, folder: int, name: str) -> bool:
        """Has an index that is there doubt what it knows of a log. False if it can't be told so."""
        try:
            if index_inode(folder):
                with self._index(user, folder) as index:
                    index.doubt(name)
        except (sqlite3.Error, OSError):
            return False
        return True

    def build(self, disk: Disk, user: str, folder: int, pace: Pace) -> bool:
        """Brings an index up to all logs, as far as the pace allows: is it, or can't it be?"""
        with suppress(sqlite3.Error, OSError), self._index(user, folder) as index:
            return not catch_up(index, disk, folder, texts=True, pace=pace, thorough=is_old(index))
        return True

    def _purge(self, index: Index, user: str) -> None:
        """Takes what was forgotten from the file: later, if that has just been done."""
        at = time.monotonic()
        if at < self._purge_at.get(user, 0.0):
            return
        if index.purge():
            with self._guard:
                self._purge_at[user] = at + (time.monotonic() - at) * _PURGE_SHARE

    def tidy(self, disk: Disk, user: str, folder: int) -> None:
        """Takes from an index that is there what is in no log any more, whoever removed it."""
        with suppress(sqlite3.Error, OSError):
            if index_inode(folder):
                with self._index(user, folder) as index:
                    catch_up(index, disk, folder, texts=False)
                    catch_up_some(index, disk, folder, [row.name for row in index.behind()])
                    index.purge()

    def close(self, *, idle_only: bool = False) -> None:
        """Closes those that nobody uses, or has not used for a while."""
        before = time.monotonic() - _IDLE_S if idle_only else float("inf")
        with self._guard:
            stale = [user for user, (_, used) in self._open.items() if used < before]
            closing = [self._open.pop(user)[0] for user in stale]
        for index in closing:
            index.close()

    @contextmanager
    def _index(self, user: str, folder: int) -> Iterator[Index]:
        index = self._take(user, folder)
        try:
            yield index
        except sqlite3.Error as error:
            index.close()
            if not _is_sound_after(error):
                with suppress(OSError):
                    if index_inode(folder) == index.inode:
                        remove_index(folder)
            raise
        except BaseException:
            index.close()
            raise
        self._keep(user, index)

    def _take(self, user: str, folder: int) -> Index:
        with self._guard:
            index, _ = self._open.pop(user, (None, 0.0))
        if index is not None:
            if index.inode == index_inode(folder):
                return index
            index.close()
        try:
            return self._opened(user, folder)
        except OSError as error:
            raise _NoIndex from error

    def _opened(self, user: str, folder: int) -> Index:
        path = os.path.join(self._path, user)
        try:
            return open_index(folder, path, durable=self._durable)
        except sqlite3.Error as error:
            if _is_sound_after(error):
                raise
        remove_index(folder)
        return open_index(folder, path, durable=self._durable)

    def _keep(self, user: str, index: Index) -> None:
        with self._guard:
            old, _ = self._open.pop(user, (None, 0.0))
            self._open[user] = index, time.monotonic()
            closing = [] if old is None else [old]
            if len(self._open) > _OPEN:
                closing.append(self._open.popitem(last=False)[1][0])
        for one in closing:
            one.close()


class _NoIndex(OSError):
    """There is no index, and none can be made."""


def _is_sound_after(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _NOT_ITS_FAULT

"""What the parts of the file store share: the folder, the disk, the threads, and who has which session."""

from __future__ import annotations

import asyncio
import errno
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final, TypeVar, cast

from histories.base import Gate, StoreFull, StoreUnavailable
from histories.blocking import undisturbed
from histories.files.disk import Disk
from histories.files.flock import NotNow
from histories.files.indices import Indices
from histories.files.locks import FileLock
from histories.files.names import file_name
from histories.files.open_sessions import OpenSession, OpenSessions
from histories.files.pace import ALL, Pace
from histories.files.place import Place
from histories.files.threads import Threads
from histories.files.tree import Trees
from histories.files.written import Written
from histories.waiting import Wait, WaitQueue

T = TypeVar("T")

STOPS: Final = ".stops"
HEARD: Final = ".heard"
"""Words to other processes lie in the one; those that end in the other say that a turn is listened to."""
_FULL = (errno.ENOSPC, errno.EDQUOT)
WRITE_WAIT_S = 20.0
"""How long a write to a session's log waits for others: longer than disks stall, and not for ever."""
_SOONEST_S, _LATEST_S = 0.001, 0.05
_SLICE_S: Final = 0.5
"""How long one user's index is built before it is another one's turn, and somebody is heard who closes the store."""
_REST: Final = 1.0
_STALE_LOOK_S: Final = 1.0
_MANY: Final = 32
"""With more sessions of one user that have to be read, the others' changes do not wait for them."""


class Lanes:
    """The threads of a store: what turns wait for is not behind what others read, nor that behind an index."""

    def __init__(self) -> None:
        self.turns = Threads(16, "histories-turns")
        self.others = Threads(16, "histories", few=4)
        self.behind = Threads(4, "histories-behind", few=4)

    def waits(self) -> list[Wait]:
        """What the threads are at."""
        return [wait for lane in (self.turns, self.others, self.behind) for wait in lane.waits()]

    def end(self) -> None:
        """Returns when all that was started is done. What turns and others do may leave something behind."""
        for lane in (self.turns, self.others, self.behind):
            lane.end()


class Services:
    """What is one in a store, and all its sessions use."""

    def __init__(self, folder: str | Path, *, fsync: bool, disk: Disk | None) -> None:
        self.path, self.fsync, self.disk = os.path.abspath(folder), fsync, disk or Disk()
        self.gate, self.writers = Gate(), WaitQueue()
        """Who has a session for a turn or for what no turn may see, and who writes to its log in this moment."""
        self.offsets: dict[str, int] = {}
        """Of the records of turns that run in this process: a retry of the same turn_id has another one."""
        self.trees, self.open_sessions = Trees(), OpenSessions()
        self.indices = Indices(self.path, durable=fsync)
        self.keeps_open = False
        """Whether there is somebody to close, in time, what stays open between turns."""
        self._follows = False
        self._unbuilt: dict[str, None] = {}  # users, in their order
        self._builds = False
        self._leaving = deque[tuple[str, OpenSession]]()
        self._puts_away = False
        self._look_at = 0.0
        self._lanes: Lanes | None = None
        self._guard = threading.Lock()

    async def end_threads(self) -> None:
        """Returns when all that was started is done; who asks for more gets new threads."""
        with self._guard:
            lanes, self._lanes = self._lanes, None
        if lanes is not None:
            await asyncio.get_running_loop().run_in_executor(None, lanes.end)

    def waits(self) -> list[Wait]:
        """Who waits for a session, and who writes, in threads and otherwise."""
        with self._guard:
            working = [] if self._lanes is None else self._lanes.waits()
        return working + self.gate.queue.waits("a session") + self.writers.waits("a log", WRITE_WAIT_S)

    def unheard(self, work: Callable[[], object]) -> None:
        """Does work in a thread, and nobody asks what comes of it."""
        with self._guard:
            self._some_lanes().behind.start_unheard(work)

    def put_away(self, sessions: Sequence[tuple[str, OpenSession]]) -> None:
        """Closes what was open of these sessions, when there is a thread for it: one after another."""
        with self._guard:
            self._leaving.extend(sessions)
            if self._leaving and not self._puts_away:
                self._puts_away = True
                self._some_lanes().behind.start_unheard(self._put_away)

    def put_away_soon(self) -> None:
        """Puts away what is stale among the open sessions, when there is a thread for it: looks once a second."""
        if len(self.open_sessions) and time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + _STALE_LOOK_S
            self.unheard(lambda: self.put_away(self.open_sessions.take_stale()))

    def _put_away(self) -> None:
        while True:
            with self._guard:
                if not self._leaving:
                    self._puts_away = False
                    return
                one = self._leaving.popleft()
            try:
                self.put_away_now([one])
            except BaseException:
                self._puts_away = False
                raise

    def put_away_now(self, sessions: Sequence[tuple[str, OpenSession]]) -> None:
        for key, session in sessions:
            user, _, name = key.partition("/")
            session.log.close()
            try:
                with self.folder(user) as folder:
                    session.lock.try_again()  # the file of a lock may be removed by who holds it
                    self.free(session.lock, Place(self.path, user, name), folder)
            except OSError:
                session.lock.release(None)

    def _some_lanes(self) -> Lanes:
        """Those of now: a store that is closed in this instant begins with new ones."""
        if self._lanes is None:
            self._lanes = Lanes()
        return self._lanes

    async def in_thread(self, work: Callable[[], T], *, of_turn: bool = False) -> tuple[T, bool]:
        """Blocking work, seen through to its end: its result, and whether the caller was cancelled meanwhile.

        What the operating system refuses is raised as `StoreUnavailable` or `StoreFull`; `CancelledError` if both.
        """
        with self._guard:
            lanes = self._some_lanes()
            started = (lanes.turns if of_turn else lanes.others).start(work)
        (result, error), cancelled = await undisturbed(started)
        if error is not None:
            told = _refused(error) if isinstance(error, OSError) else error
            if cancelled:
                raise asyncio.CancelledError from told
            raise told
        return cast(T, result), cancelled

    async def call(self, work: Callable[[], T], *, of_turn: bool = False) -> T:
        """The same, for work that needs no undoing."""
        result, cancelled = await self.in_thread(work, of_turn=of_turn)
        if cancelled:
            raise asyncio.CancelledError
        return result

    async def write(self, key: str, work: Callable[[], T]) -> T:
        """The same, for work on a session's log that holds it against others, and raises `NotNow` while they have it.

        In this process one at a time does so. Nobody waits in a thread: such a one can't be told to give up.
        """
        deadline = asyncio.get_running_loop().time() + WRITE_WAIT_S
        try:
            await self.writers.enter(key, WRITE_WAIT_S)
        except TimeoutError:
            raise _stuck() from None
        try:
            return await self.when_free(work, deadline)
        finally:
            self.writers.leave(key)

    async def when_free(self, work: Callable[[], T], deadline: float) -> T:
        """Tries the work again and again, as long as it raises `NotNow`, until the deadline."""
        loop, pause = asyncio.get_running_loop(), _SOONEST_S
        while True:
            try:
                return await self.call(work)
            except NotNow:
                if loop.time() >= deadline:
                    raise _stuck() from None
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _LATEST_S)

    def open_folder(self, user: str, *, create: bool = False) -> int:
        """The folder of a user, or of this store's own bookkeeping. Raises `FileNotFoundError` if it is not there."""
        try:
            return self.disk.folder_in(self.path, user)
        except FileNotFoundError:
            if not create:
                raise
        root = self.disk.folder(self.path, create=True)
        try:
            return self.disk.subfolder(root, user, create=True)
        finally:
            os.close(root)

    @contextmanager
    def folder(self, user: str, *, create: bool = False) -> Iterator[int]:
        """The same, for as long as it is needed."""
        folder = self.open_folder(user, create=create)
        try:
            yield folder
        finally:
            os.close(folder)

    # The index follows what is written.

    def free(self, lock: FileLock, place: Place, folder: int | None) -> None:
        """Gives up the lock of a session; never raises.

        Its file stays, which does no harm, where the index can't be told that the session may have changed: `looks`.
        """
        if lock.held and folder is not None and not self.indices.doubt(place.user, folder, place.log):
            folder = None
        lock.release(folder)

    def ended(self, place: Place, written: Written | None = None) -> None:
        """Notes that there is more to find in a session: what was written, if that is all."""
        if self.keeps_open:
            self.indices.changed(place.user, place.log, written)

    async def forgot(self, place: Place) -> None:
        """Sees to it that what was forgotten of a session leaves the index: soon, or now if nobody does it then."""
        if self.keeps_open or self.indices.is_there(place.user):
            self.indices.changed(place.user, place.log)
            if not self.keeps_open:
                await self.in_thread(partial(self.follow_changes, at_once=True))

    def follow_soon(self) -> None:
        """Brings the indices up to what was written, in a thread, unless one is at it."""
        if self.indices.has_changes and not self._follows:
            self._follows = True
            self.unheard(self.follow_changes)
        self.indices.close(idle_only=True)

    def follow_changes(self, *, at_once: bool = False) -> None:
        try:
            most, pace = (sys.maxsize, ALL) if at_once else (_MANY, Pace(rest=_REST))
            for user, changes in self.indices.take_changes(at_once=at_once).items():
                with suppress(OSError), self.folder(user) as folder:
                    if not self.indices.follow(self.disk, user, folder, changes, most=most, pace=pace):
                        self.build_later(user)
        finally:
            self._follows = False

    def build_later(self, user: str) -> None:
        """Has a user's index brought up to all logs in a thread: one for all users of this process, each in turn."""
        with self._guard:
            self._unbuilt.setdefault(user)
            if not self._builds:
                self._builds = True
                self._some_lanes().behind.start_unheard(self._build)

    def _build(self) -> None:
        while (user := self._next_unbuilt()) is not None:
            is_built = True
            with suppress(OSError), self.folder(user) as folder:
                pace = Pace(until=time.monotonic() + _SLICE_S, rest=_REST)
                is_built = self.indices.build(self.disk, user, folder, pace)
            if not is_built:
                with self._guard:
                    self._unbuilt.setdefault(user)

    def _next_unbuilt(self) -> str | None:
        with self._guard:
            if not self.keeps_open:
                self._unbuilt.clear()  # the next look sees what is missing
            user = next(iter(self._unbuilt), None)
            if user is None:
                self._builds = False
            else:
                del self._unbuilt[user]
            return user

    # Word for the process that runs a turn: an empty file whose name tells for which turn, and what.

    def ask_stop(self, key: str, turn_id: str, offset: int = 0) -> None:
        """Leaves word that this turn is to stop."""
        self._leave_word(f"{_turn_name(key, turn_id, offset)}.stop")

    def attend(self, key: str, turn_id: str, offset: int) -> None:
        """Leaves word that this turn is listened to."""
        self._leave_word(f"{_turn_name(key, turn_id, offset)}{HEARD}")

    def _leave_word(self, name: str) -> None:
        with self.folder(STOPS, create=True) as folder:
            descriptor = self.disk.open(folder, name, os.O_WRONLY | os.O_CREAT)
            try:
                os.utime(descriptor)
            finally:
                os.close(descriptor)

    def attended_s_ago(self, key: str, turn_id: str, offset: int) -> float:
        """How long ago somebody left word that he listens; infinite if nobody did."""
        with suppress(FileNotFoundError), self.folder(STOPS) as folder:
            name = f"{_turn_name(key, turn_id, offset)}{HEARD}"
            return abs(time.time() - os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime)
        return float("inf")


def _turn_name(key: str, turn_id: str, offset: int) -> str:
    return f"{key.replace('/', '~', 1)}~{file_name(turn_id)}.{offset}"


def _stuck() -> StoreUnavailable:
    return StoreUnavailable("Another process writes to this session, and does not get on. Try again later.")


def _refused(error: OSError) -> StoreUnavailable:
    if error.errno in _FULL:
        refused: StoreUnavailable = StoreFull("The disk is full: nothing was recorded. Try again when there is space.")
    else:
        reason = errno.errorcode.get(error.errno or 0, "an error")
        refused = StoreUnavailable(f"The history can't be read or written now ({reason}). Try again later.")
    refused.__cause__ = error
    return refused

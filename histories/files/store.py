"""Histories as files: `<folder>/<user>/<session>.jsonl`, an append-only log for each session.

Beside a log there may be `<session>.turn`, the lock of the turn that runs, and `<session>.next`, the line of those who
wait for it in other processes. Locks are the kernel's: a dead process holds none.
"""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from secrets import token_hex
from typing import TypeVar, cast

from typing_extensions import override

from histories.base import (
    Gate,
    HistoryDamaged,
    HistoryStore,
    Note,
    Page,
    Recalled,
    Session,
    SessionBusy,
    SessionHistory,
    SessionNotFound,
    StoreFull,
    StoreUnavailable,
    now,
)
from histories.blocking import undisturbed
from histories.files.disk import Disk
from histories.files.flock import NotNow
from histories.files.folders import Folders, log_names
from histories.files.history import FileHistory
from histories.files.idle import present, remove_leftovers, remove_session, while_idle
from histories.files.listing import find_sessions, find_user, parse_cursor
from histories.files.names import file_name
from histories.files.notes import NOTES, read_notes, write_notes
from histories.files.open_sessions import OpenSession, OpenSessions
from histories.files.place import Place
from histories.files.recall import Said
from histories.files.records import damaged
from histories.files.rewrite import tidy
from histories.files.threads import Threads
from histories.files.tree import Trees
from histories.waiting import WaitQueue

T = TypeVar("T")
_FULL = (errno.ENOSPC, errno.EDQUOT)
_STOPS = ".stops"
_STOP_POLL_S = 0.2
_STOP_EXPIRES_S = 60
WRITE_WAIT_S = 20.0
"""How long a write to a session's log waits for others: longer than disks stall, and not for ever."""
_SOONEST_S, _LATEST_S = 0.001, 0.05


class FileStore(HistoryStore):
    """Histories in a folder of this machine, shared by any number of processes on it.

    `fsync` false leaves it to the operating system when what was written reaches the disk: a crash of the process
    loses nothing then, a power cut may. A store that was closed may be used again, as one that was never opened:
    turns of other processes are then not heard to ask for a stop, and no files stay open between turns.
    """

    def __init__(self, folder: str | Path, *, fsync: bool = True, disk: Disk | None = None) -> None:
        self.path, self.fsync, self.disk = os.path.abspath(folder), fsync, disk or Disk()
        self.gate, self.writers = Gate(), WaitQueue()
        """Who has a session for a turn or for what no turn may see, and who writes to its log in this moment."""
        self.offsets: dict[str, int] = {}
        """Of the records of turns that run in this process: a retry of the same turn_id has another one."""
        self.trees, self.open_sessions, self.folders = Trees(), OpenSessions(), Folders()
        self.said = Said(self.disk)
        self._threads: Threads | None = None
        self._guard = threading.Lock()
        self._watch: asyncio.Task[None] | None = None

    @override
    async def open(self) -> None:
        self._watch = asyncio.create_task(self._watch_stops(), name="recollect-stops")

    @override
    async def close(self) -> None:
        watch, self._watch = self._watch, None
        if watch is not None and not watch.done():
            watch.cancel()
            await asyncio.wait([watch])
        await self.call(partial(self._put_away, self.open_sessions.take_stale(all_of_them=True)))
        with self._guard:
            threads, self._threads = self._threads, None
        if threads is not None:
            await asyncio.get_running_loop().run_in_executor(None, threads.end)
        await asyncio.get_running_loop().run_in_executor(None, self.folders.clear)

    @property
    def keeps_open(self) -> bool:
        """Whether there is somebody to close, in time, what stays open between turns."""
        return self._watch is not None

    def put_away(self, sessions: Sequence[tuple[str, OpenSession]]) -> None:
        """Closes what was open of these sessions, when there is a thread for it."""
        if sessions:
            with self._guard:
                self._some_threads().start_unheard(partial(self._put_away, sessions))

    def _put_away(self, sessions: Sequence[tuple[str, OpenSession]]) -> None:
        for key, session in sessions:
            user, _, _ = key.partition("/")
            session.log.close()
            try:
                with self.folder(user) as folder:
                    session.lock.try_again()  # the file of a lock may be removed by who holds it
                    session.lock.release(folder)
            except OSError:
                session.lock.release(None)

    def _some_threads(self) -> Threads:
        """Those of now: a store that is closed in this instant begins with new ones."""
        if self._threads is None:
            self._threads = Threads(16, "histories")
        return self._threads

    async def in_thread(self, work: Callable[[], T]) -> tuple[T, bool]:
        """Blocking work, seen through to its end: its result, and whether the caller was cancelled meanwhile.

        What the operating system refuses is raised as `StoreUnavailable` or `StoreFull`; `CancelledError` if both.
        """
        with self._guard:
            started = self._some_threads().start(work)
        (result, error), cancelled = await undisturbed(started)
        if error is not None:
            told = _refused(error) if isinstance(error, OSError) else error
            if cancelled:
                raise asyncio.CancelledError from told
            raise told
        return cast(T, result), cancelled

    async def call(self, work: Callable[[], T]) -> T:
        """The same, for work that needs no undoing."""
        result, cancelled = await self.in_thread(work)
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
        root = self.disk.folder(self.path, create=create)
        try:
            return self.disk.subfolder(root, user, create=create)
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

    @override
    def history(self, user_id: str, session_id: str) -> SessionHistory:
        return FileHistory(self, user_id, session_id)

    @override
    async def ping(self) -> None:
        await self.call(self._probe)

    def _probe(self) -> None:
        with self.folder(_STOPS, create=True) as folder:
            name = f"probe-{token_hex(8)}"
            descriptor = self.disk.open(folder, name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            try:
                self.disk.write(descriptor, b"\n")
            finally:
                os.close(descriptor)
                self.disk.unlink(folder, name)

    @override
    async def sessions(
        self, user_id: str, *, limit: int = 50, cursor: str | None = None, query: str | None = None
    ) -> Page[Session]:
        before = None if cursor is None else parse_cursor(cursor)

        def find() -> Page[Session]:
            with present(self, file_name(user_id)) as folder:
                return find_sessions(self.disk, self.folders, folder, limit=limit, before=before, query=query)

        try:
            return await self.call(find)
        except SessionNotFound:
            return Page([])

    @override
    async def recall(
        self,
        user_id: str,
        query: str,
        *,
        session_id: str | None = None,
        exclude: Collection[tuple[str, str]] = (),
        limit: int = 8,
    ) -> list[Recalled]:
        user, only = file_name(user_id), None if session_id is None else file_name(session_id)

        def find() -> list[Recalled]:
            with present(self, user) as folder:
                return self.said.recall(folder, query, only=only, exclude=exclude, limit=limit)

        try:
            return await self.call(find)
        except SessionNotFound:
            return []

    @override
    async def notes(self, user_id: str) -> list[Note]:
        def read() -> list[Note]:
            with present(self, file_name(user_id)) as folder:
                return read_notes(self.disk, folder)

        try:
            return await self.call(read)
        except SessionNotFound:
            return []

    @override
    async def set_notes(self, user_id: str, notes: Sequence[Note]) -> None:
        def write() -> None:
            with self.folder(file_name(user_id), create=True) as folder:
                write_notes(self.disk, folder, notes, sync=self.fsync)

        await self.call(write)

    @override
    async def tidy(self) -> int:
        total = 0
        for user in await self.call(self._folder_names):
            for session in await self.call(partial(self._session_names, user)):
                place = Place(self.path, user, session)
                with suppress(SessionBusy, SessionNotFound, HistoryDamaged):
                    total += await tidy(self, place)
        return total

    def _folder_names(self) -> list[str]:
        with suppress(FileNotFoundError):
            return [name for name in os.listdir(self.path) if name != _STOPS]
        return []

    def _session_names(self, user: str) -> list[str]:
        with suppress(FileNotFoundError, NotADirectoryError), self.folder(user) as folder:
            return [name.removesuffix(".jsonl") for name in log_names(folder)]
        return []

    @override
    async def users(self) -> AsyncIterator[str]:
        def who(name: str) -> tuple[str | None, bool]:
            with suppress(FileNotFoundError), self.folder(name) as folder:
                return find_user(self.disk, folder)
            return None, True

        all_sound = True
        for name in await self.call(self._folder_names):
            user, sound = await self.call(partial(who, name))
            all_sound = all_sound and sound
            if user is not None:
                yield user
        if not all_sound:
            raise damaged()

    @override
    async def forget(self, user_id: str) -> None:
        user, busy = file_name(user_id), None

        def names() -> list[str]:
            with present(self, user) as folder:
                return log_names(folder)

        def clear() -> None:
            with present(self, user) as folder:
                remove_leftovers(self, folder)
                with suppress(FileNotFoundError):
                    self.disk.unlink(folder, NOTES)
                if self.fsync:
                    self.disk.sync(folder)

        try:
            for name in await self.call(names):
                place = Place(self.path, user, name.removesuffix(".jsonl"))
                try:
                    await while_idle(self, place, partial(remove_session, self, place), makes_room=True)
                except SessionBusy as error:
                    busy = error
            await self.call(clear)
        except SessionNotFound:
            return
        if busy is not None:
            raise busy

    async def _watch_stops(self) -> None:
        """Stops turns of this process that another process asked to be stopped."""
        while True:
            await asyncio.sleep(_STOP_POLL_S)
            self.put_away(self.open_sessions.take_stale())
            if self.offsets:
                with suppress(StoreUnavailable):
                    await self.call(self._heed_stops)

    def _heed_stops(self) -> None:
        with suppress(FileNotFoundError), self.folder(_STOPS) as folder:
            for name in os.listdir(folder):
                key, _, attempt = name.removesuffix(".stop").rpartition("~")
                key = key.replace("~", "/", 1)
                running, offset = self.gate.running.get(key), self.offsets.get(key)
                if running is not None and f"{file_name(running.new.turn_id)}.{offset}" == attempt:
                    with suppress(FileNotFoundError):
                        self.disk.unlink(folder, name)
                    with suppress(RuntimeError):  # its event loop is gone, and the turn with it
                        self.gate.stop(key, running.token)
                else:
                    self._expire(folder, name)

    def _expire(self, folder: int, name: str) -> None:
        with suppress(FileNotFoundError):
            asked = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime
            if now().timestamp() - asked > _STOP_EXPIRES_S:
                self.disk.unlink(folder, name)

    def ask_stop(self, key: str, turn_id: str, offset: int = 0) -> None:
        """Leaves word for the process that runs this turn."""
        with self.folder(_STOPS, create=True) as folder:
            name = f"{key.replace('/', '~', 1)}~{file_name(turn_id)}.{offset}.stop"
            os.close(self.disk.open(folder, name, os.O_WRONLY | os.O_CREAT))


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

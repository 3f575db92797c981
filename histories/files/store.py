"""Histories as files: `<folder>/<user>/<session>.jsonl`, an append-only log for each session.

Beside a log there may be `<session>.turn`, the lock of the turn that runs, and `<session>.next`, the line of those who
wait for it in other processes. Locks are the kernel's: a dead process holds none.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from secrets import token_hex

from typing_extensions import override

from histories.base import (
    HistoryDamaged,
    HistoryMoved,
    HistoryStore,
    Note,
    Page,
    Recalled,
    Session,
    SessionBusy,
    SessionHistory,
    SessionNotFound,
    StoreUnavailable,
    now,
)
from histories.files.disk import Disk
from histories.files.find import find_sessions, parse_cursor, recall_turns
from histories.files.history import FileHistory
from histories.files.idle import present, remove_leftovers, remove_session, while_idle
from histories.files.index_file import remove_index
from histories.files.listing import find_user, has_logs, log_names
from histories.files.looks import look
from histories.files.names import file_name
from histories.files.notes import NOTES, read_notes, write_notes
from histories.files.place import Place
from histories.files.records import damaged
from histories.files.rewrite import tidy
from histories.files.services import STOPS, WRITE_WAIT_S, Services

_STOP_POLL_S = 0.2
_STOP_EXPIRES_S = 60


class FileStore(Services, HistoryStore):
    """Histories in a folder of this machine, shared by any number of processes on it.

    `fsync` false leaves it to the operating system when what was written reaches the disk: a crash of the process
    loses nothing then, a power cut may. A store that was closed may be used again, as one that was never opened:
    turns of other processes are then not heard to ask for a stop, and no files stay open between turns.
    """

    def __init__(self, folder: str | Path, *, fsync: bool = True, disk: Disk | None = None) -> None:
        super().__init__(folder, fsync=fsync, disk=disk)
        self._watch: asyncio.Task[None] | None = None

    @override
    async def open(self) -> None:
        self._watch = asyncio.create_task(self._watch_stops(), name="recollect-stops")
        self.keeps_open = True

    @override
    async def close(self) -> None:
        watch, self._watch, self.keeps_open = self._watch, None, False
        if watch is not None and not watch.done():
            watch.cancel()
            await asyncio.wait([watch])
        await self.call(partial(self.put_away_now, self.open_sessions.take_stale(all_of_them=True)))
        await self.call(partial(self.follow_changes, at_once=True))
        await self.end_threads()
        await asyncio.get_running_loop().run_in_executor(None, self.indices.close)

    @override
    def history(self, user_id: str, session_id: str) -> SessionHistory:
        return FileHistory(self, user_id, session_id)

    @override
    async def ping(self) -> None:
        await self.call(self._probe)

    def _probe(self) -> None:
        with self.folder(STOPS, create=True) as folder:
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
        user, before = file_name(user_id), None if cursor is None else parse_cursor(cursor)

        def find() -> Page[Session]:
            with present(self, user) as folder:
                if not has_logs(folder):
                    return Page([])
                look = partial(find_sessions, disk=self.disk, folder=folder, limit=limit, before=before, query=query)
                return self.indices.ask(self.disk, user, folder, partial(look, later=self._later(user)))

        try:
            return await self.call(find, user)
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
        user, only = file_name(user_id), None if session_id is None else f"{file_name(session_id)}.jsonl"

        def find() -> list[Recalled]:
            with present(self, user) as folder:
                if only is not None and not look(folder, [only]):
                    return []
                ask = partial(recall_turns, disk=self.disk, folder=folder, query=query)
                ask = partial(ask, only=only, exclude=exclude, limit=limit, changed=self.indices.waiting(user))
                ask = partial(ask, later=self._later(user))
                return self.indices.ask(self.disk, user, folder, ask)

        try:
            return await self.call(find, user)
        except SessionNotFound:
            return []

    def _later(self, user: str) -> Callable[[], None] | None:
        """Has the rest of an index built, if there is somebody to do it: else who asks waits for all of it."""
        return partial(self.build_later, user) if self.keeps_open else None

    @override
    async def bytes_kept(self, user_id: str, session_id: str | None = None) -> int:
        user, only = file_name(user_id), None if session_id is None else f"{file_name(session_id)}.jsonl"

        def measure() -> int:
            total = 0
            with present(self, user) as folder:
                for name in log_names(folder) if only is None else [only]:
                    with suppress(FileNotFoundError):
                        total += os.stat(name, dir_fd=folder, follow_symlinks=False).st_size
            return total

        try:
            return await self.call(measure, user)
        except SessionNotFound:
            return 0

    @override
    async def notes(self, user_id: str) -> list[Note]:
        user = file_name(user_id)

        def read() -> list[Note]:
            with present(self, user) as folder:
                return read_notes(self.disk, folder)

        try:
            return await self.call(read, user)
        except SessionNotFound:
            return []

    @override
    async def set_notes(self, user_id: str, notes: Sequence[Note], *, if_notes: Sequence[Note] | None = None) -> None:
        user = file_name(user_id)

        def write() -> None:
            with self.folder(user, create=True) as folder, self.disk.alone(folder):
                if if_notes is not None and read_notes(self.disk, folder) != list(if_notes):
                    raise HistoryMoved
                write_notes(self.disk, folder, notes, sync=self.fsync)

        await self.when_free(write, asyncio.get_running_loop().time() + WRITE_WAIT_S, user)

    @override
    async def tidy(self) -> int:
        total = 0
        for user in await self.call(self._folder_names):
            for session in await self.call(partial(self._session_names, user)):
                place = Place(self.path, user, session)
                with suppress(SessionBusy, SessionNotFound, HistoryDamaged):
                    total += await tidy(self, place)
            await self.call(partial(self._tidy_index, user))
        return total

    def _tidy_index(self, user: str) -> None:
        with suppress(OSError), self.folder(user) as folder:
            self.indices.tidy(self.disk, user, folder)

    def _folder_names(self) -> list[str]:
        with suppress(FileNotFoundError):
            return [name for name in os.listdir(self.path) if name != STOPS]
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
                remove_index(folder)
                if self.fsync:
                    self.disk.sync(folder)

        try:
            for name in await self.call(names, user):
                place = Place(self.path, user, name.removesuffix(".jsonl"))
                try:
                    await while_idle(self, place, partial(remove_session, self, place), makes_room=True)
                except SessionBusy as error:
                    busy = error
            await self.call(clear, user)
        except SessionNotFound:
            return
        if busy is not None:
            raise busy

    async def _watch_stops(self) -> None:
        """Stops turns of this process that another process asked to be stopped."""
        while True:
            await asyncio.sleep(_STOP_POLL_S)
            self.put_away_soon()
            self.follow_soon()
            if self.offsets:
                with suppress(StoreUnavailable):
                    await self.call(self._heed_stops)

    def _heed_stops(self) -> None:
        with suppress(FileNotFoundError), self.folder(STOPS) as folder:
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

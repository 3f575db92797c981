"""The history of one session, in one file."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from secrets import token_hex
from typing import TYPE_CHECKING, TypeVar

from typing_extensions import override

from histories.base import (
    HistoryDamaged,
    InvalidCursor,
    NewTurn,
    OpenTurn,
    Page,
    Session,
    SessionBusy,
    SessionExists,
    SessionHistory,
    SessionNotFound,
    Turn,
    TurnNotFound,
    TurnStatus,
    now,
)
from histories.files.listing import session_entry
from histories.files.locks import FileLock, is_held
from histories.files.log import Log
from histories.files.names import file_name
from histories.files.records import Entry, dropping, session_lines, sums_line
from histories.files.turn import FileTurn, Place, begin_turn

if TYPE_CHECKING:
    from histories.files.store import FileStore

T = TypeVar("T")


class FileHistory(SessionHistory):
    """The history of one session, in one file."""

    def __init__(self, store: FileStore, user_id: str, session_id: str) -> None:
        self.user_id, self.session_id = user_id, session_id
        self._store = store
        self._place = Place(file_name(user_id), file_name(session_id))

    @contextmanager
    def _log(self, flags: int = os.O_RDONLY) -> Iterator[tuple[int, Log]]:
        """The user's folder and the session's log, for as long as they are looked at."""
        with present(self._store, self._place.user) as folder:
            try:
                log = Log(self._store.disk, self._store.disk.open(folder, self._place.log, flags))
            except FileNotFoundError:
                raise SessionNotFound from None
            try:
                if log.is_empty():
                    raise SessionNotFound
                yield folder, log
            finally:
                log.close()

    async def _read(self, look: Callable[[int, Log], T]) -> T:
        """What `look` sees. What seems damaged is looked at again while nobody writes."""

        def read() -> T:
            with self._log() as (folder, log):
                return look(folder, log)

        def read_alone() -> T:
            with self._log() as (folder, log), self._store.disk.alone(log.descriptor):
                return look(folder, log)

        try:
            return await self._store.call(read)
        except HistoryDamaged:
            return await self._store.write(self._place.key, read_alone)

    @contextmanager
    def _writing(self) -> Iterator[Log]:
        """The session's log, for as long as nobody else writes to it."""
        with self._log(os.O_RDWR | os.O_APPEND) as (_, log), self._store.disk.alone(log.descriptor):
            log.cut_torn_tail()
            yield log

    @override
    async def begin(
        self,
        new: NewTurn,
        *,
        wait_s: float = 60.0,
        window_tokens: int = 0,
        on_stop: Callable[[], None] | None = None,
        if_last: str | None = None,
    ) -> OpenTurn | Turn:
        turn = FileTurn(self._store, self, self._place, new, on_stop)
        return await begin_turn(turn, wait_s=wait_s, window_tokens=window_tokens)

    @override
    async def info(self) -> Session:
        return await self._read(lambda _, log: session_entry(log))

    @override
    async def turns(self, *, limit: int = 50, before: str | None = None) -> Page[Turn]:
        offset, gone = (None, []) if before is None else _parse(before)

        def look(folder: int, log: Log) -> Page[Turn]:
            if offset is not None and not log.starts_record(offset):
                raise _invalid()
            found: list[Entry] = []
            for entry in log.entries(offset, set(gone)):
                if len(found) == limit:
                    oldest = found[-1]
                    following = ".".join(map(str, [oldest.dropped_from, *sorted(oldest.gone)]))
                    return Page(self._as_seen(folder, log, found), following)
                found.append(entry)
            return Page(self._as_seen(folder, log, found))

        try:
            return await self._read(look)
        except SessionNotFound:
            return Page([])

    def _as_seen(self, folder: int, log: Log, found: Sequence[Entry]) -> list[Turn]:
        """The turns, oldest first. One without an end runs, unless nobody holds the session: then its owner died."""
        turns = [entry.turn() for entry in reversed(found)]
        if found and found[0].end is None and not is_held(self._store.disk, folder, self._place.lock):
            # Since the log was read, an end may have come. If none has, none will.
            again = next((e for e in log.entries() if e.offset == found[0].offset), found[0]).turn()
            turns[-1] = again if again.ended_at else replace(again, status=TurnStatus.INTERRUPTED)
        return turns

    @override
    async def rename(self, title: str) -> None:
        def write() -> None:
            with self._writing() as log:
                at = now()
                log.append(sums_line("title", log.sums(), at, title=title), at=at, sync=self._store.fsync)

        await self._store.write(self._place.key, write)

    @override
    async def rewind(self, turn_id: str, *, keep: bool = False, if_last: str | None = None) -> None:
        def write(_: int) -> None:
            with self._writing() as log:
                at, title, entry = now(), log.sums().title, log.find(turn_id)
                if entry is None:
                    raise TurnNotFound
                sums, drop = dropping(entry, log.sums_before(entry.dropped_from))
                log.append(sums_line("rewind", sums, at, title=title, **drop), at=at, sync=self._store.fsync)

        await while_idle(self._store, self._place, write)

    @override
    async def delete(self) -> None:
        def remove(folder: int) -> None:
            with suppress(HistoryDamaged), self._log():
                pass  # it is there
            remove_session(self._store, self._place, folder)
            remove_leftovers(self._store, folder, self._place)

        await while_idle(self._store, self._place, remove)

    @override
    async def fork(self, session_id: str, turn_id: str) -> None:
        def look(folder: int, log: Log) -> tuple[list[Turn], str]:
            past: list[Turn] = []
            for entry in log.entries():
                if past:
                    past.append(entry.turn())
                elif entry.turn_id == turn_id:
                    past += self._as_seen(folder, log, [entry])
                    if past[0].status is TurnStatus.RUNNING:
                        raise SessionBusy
            if not past:
                raise TurnNotFound
            return past[::-1], log.sums().title

        turns, title = await self._read(look)
        await self._store.history(self.user_id, session_id).restore(turns, title=title, created_at=now())

    @override
    async def restore(self, turns: Sequence[Turn], *, title: str, created_at: datetime) -> None:
        updated_at = max([created_at, *(turn.ended_at or turn.started_at for turn in turns[-1:])])

        def create(folder: int) -> None:
            with suppress(SessionNotFound), self._log():
                raise SessionExists
            content = session_lines(
                self.user_id, self.session_id, turns, title=title, created_at=created_at, updated_at=updated_at
            )
            self._create(folder, content, updated_at)

        try:
            await while_idle(self._store, self._place, create, make_folder=True)
        except SessionBusy:
            raise SessionExists from None

    def _create(self, folder: int, content: bytes, updated_at: datetime) -> None:
        """Puts a whole file in place, or none."""
        disk, name = self._store.disk, f"{self._place.session}.{token_hex(4)}.tmp"
        descriptor = disk.open(folder, name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND)
        try:
            Log(disk, descriptor).append(content, at=updated_at, sync=self._store.fsync)
            disk.rename(folder, name, self._place.log)
            name = self._place.log
            if self._store.fsync:
                disk.sync(folder)
        except OSError:
            with suppress(OSError):
                disk.unlink(folder, name)
            raise
        finally:
            os.close(descriptor)

    @override
    async def stop(self) -> bool:
        running = self._store.running.get(self._place.key)
        if running is not None:
            if running[1] is not None:
                running[1]()
            return True

        def look(folder: int, log: Log) -> bool:
            last = next(log.entries(), None)
            if last is None or last.end is not None or not is_held(self._store.disk, folder, self._place.lock):
                return False
            self._store.ask_stop(self._place.key, last.turn_id)
            return True

        return await self._read(look)


@contextmanager
def present(store: FileStore, user: str) -> Iterator[int]:
    """The folder of a user; raises `SessionNotFound` if there is none."""
    try:
        folder = store.open_folder(user)
    except FileNotFoundError:
        raise SessionNotFound from None
    try:
        yield folder
    finally:
        os.close(folder)


async def while_idle(store: FileStore, place: Place, work: Callable[[int], None], *, make_folder: bool = False) -> None:
    """Does `work` on the user's folder while no turn of the session can begin. `SessionBusy`, `SessionNotFound`."""
    lock = FileLock(store.disk, place.lock)

    def locked() -> None:
        with store.folder(place.user, create=True) if make_folder else present(store, place.user) as folder:
            if not lock.try_acquire(folder):
                raise SessionBusy
            try:
                work(folder)
            finally:
                lock.release(folder)

    try:
        await store.wait_queue.enter(place.key, 0)
    except TimeoutError:
        raise SessionBusy from None
    try:
        kept = store.open_sessions.take(place.key)
        if kept is not None:
            kept.close()
        await store.write(place.key, locked)
    finally:
        store.wait_queue.leave(place.key)


def remove_session(store: FileStore, place: Place, folder: int) -> None:
    """Removes the session's file, not yet durably. For who holds the session."""
    with suppress(FileNotFoundError):
        store.disk.unlink(folder, place.log)


def remove_leftovers(store: FileStore, folder: int, place: Place | None = None) -> None:
    """Removes what crashes and repairs have left of a session, or of all, and makes what was removed durable."""
    for name in os.listdir(folder):
        session, _, rest = name.partition(".")
        if (place is None or session == place.session) and (rest.startswith("damaged-") or rest.endswith(".tmp")):
            with suppress(FileNotFoundError):
                store.disk.unlink(folder, name)
    if store.fsync:
        store.disk.sync(folder)


def _parse(before: str) -> tuple[int, list[int]]:
    """A page's cursor: the offset before which it ends, and what of the record before it is gone."""
    if re.fullmatch(r"[0-9]{1,15}(\.[0-9]{1,15})*", before) is None:
        raise _invalid()
    offset, *gone = map(int, before.split("."))
    return offset, gone


def _invalid() -> InvalidCursor:
    return InvalidCursor("Send `before` as the `next` of an earlier page.")

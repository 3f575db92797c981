"""A turn in a session's file: who may begin it, and what is written when."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from histories.base import (
    HistoryError,
    NewTurn,
    OpenTurn,
    Reply,
    SessionBusy,
    SessionHistory,
    ShownTurn,
    Turn,
    TurnLost,
    TurnStatus,
    now,
    title_of,
)
from histories.blocking import undisturbed
from histories.files.flock import NotNow
from histories.files.locks import FileLock, Line, is_held
from histories.files.log import Log
from histories.files.open_sessions import OpenSession, Shown, Tail
from histories.files.records import Entry, Sums, decode, dropping, end_line, session_line, turn_line
from histories.window import window_floor

if TYPE_CHECKING:
    from histories.files.store import FileStore

_SOONEST_S, _LATEST_S = 0.005, 0.1
"""How soon, and later how often, the first in line looks whether another process has freed the session."""


_MOMENT_S = 0.25
"""For so long even who is not to wait does, for a title that is written in this moment."""

_LARGE = 64 * 1024
"""Bytes of a turn's records that are not kept in memory for the next turn: it reads them."""


@dataclass(frozen=True, slots=True)
class Place:
    """The names of a session's files."""

    user: str
    session: str

    @property
    def key(self) -> str:
        return f"{self.user}/{self.session}"

    @property
    def log(self) -> str:
        return f"{self.session}.jsonl"

    @property
    def lock(self) -> str:
        return f"{self.session}.turn"

    @property
    def line(self) -> str:
        return f"{self.session}.next"


async def begin_turn(turn: FileTurn, *, wait_s: float, window_tokens: int) -> OpenTurn | Turn:
    """Waits for the session, then begins the turn: first in line in this process, then across processes."""
    store, key = turn.store, turn.place.key
    deadline = asyncio.get_running_loop().time() + wait_s
    await turn.refuse_if_running()
    try:
        await store.wait_queue.enter(key, wait_s)
    except TimeoutError:
        raise _busy() from None
    try:
        begun = await _first_in_line(turn, deadline, window_tokens)
    except BaseException:
        store.wait_queue.leave(key)
        raise
    if isinstance(begun, Turn):
        store.wait_queue.leave(key)
    return begun


async def _first_in_line(turn: FileTurn, deadline: float, window_tokens: int) -> OpenTurn | Turn:
    loop, pause, looks = asyncio.get_running_loop(), _SOONEST_S, 0
    try:
        while True:
            left_s = deadline - loop.time()
            begun, cancelled = await _look_alone(turn, window_tokens, left_s, at_once=not looks)
            looks += 1
            if cancelled:
                if begun is turn:
                    with suppress(HistoryError):
                        await turn.record_end(Reply(status=TurnStatus.INTERRUPTED))
                raise asyncio.CancelledError
            if begun is not None:
                return begun
            if left_s <= 0 and looks > 1:  # the first look may have met who just puts the session's files away
                raise _busy()
            await asyncio.sleep(min(pause, max(_SOONEST_S, deadline - loop.time())))
            pause = min(pause * 1.5, _LATEST_S)
    finally:
        if turn.line.joined:  # it has given up: who has begun has left the line
            _, cancelled = await turn.store.in_thread(turn.leave_line)
            if cancelled:
                raise asyncio.CancelledError


async def _look_alone(
    turn: FileTurn, window_tokens: int, left_s: float, *, at_once: bool
) -> tuple[OpenTurn | Turn | None, bool]:
    """One try to begin, while nobody else in this process writes to the log; was it cancelled?"""
    store, key, loop = turn.store, turn.place.key, asyncio.get_running_loop()
    deadline = loop.time() + max(left_s, _MOMENT_S)
    try:
        await store.writers.enter(key, deadline - loop.time(), first=True)
    except TimeoutError:
        raise _busy() from None
    try:
        if at_once:
            begun, cancelled = await turn.begin_at_once(window_tokens)
            if begun is not None or cancelled:
                return begun, cancelled
        while True:
            try:
                return await store.in_thread(partial(turn.try_begin, window_tokens, wait=left_s > 0))
            except NotNow:
                if loop.time() >= deadline:
                    return None, False
            await asyncio.sleep(_SOONEST_S)
    finally:
        store.writers.leave(key)


class FileTurn(OpenTurn):
    """A turn that runs, or is about to: it holds the lock of its session, and the session's open log."""

    def __init__(
        self,
        store: FileStore,
        history: SessionHistory,
        place: Place,
        new: NewTurn,
        on_stop: Callable[[], None] | None,
    ) -> None:
        self.store, self.place, self.turn_id, self.window = store, place, new.turn_id, []
        self._history, self._new, self._on_stop = history, new, on_stop
        self._lock = FileLock(store.disk, place.lock)
        self.line = Line(store.disk, place.line)
        self._log: Log | None = None
        self._begun_sums, self._begun_size = Sums(), -1
        self._ended = False
        self._tail, self._line = Tail(Sums(), 0, ()), b""

    async def refuse_if_running(self) -> None:
        """A retry of a turn that runs need not wait to be told so."""
        if not self._new.given or self.place.key not in self.store.wait_queue:
            return
        running = self.store.running.get(self.place.key)
        if running is None:
            await self.store.call(self._look_elsewhere)
        elif running[0] == self.turn_id:
            raise _still_running()

    def _look_elsewhere(self) -> None:
        with suppress(FileNotFoundError), self.store.folder(self.place.user) as folder:
            self._refuse_if_running_elsewhere(folder)

    def _refuse_if_running_elsewhere(self, folder: int) -> None:
        disk = self.store.disk
        if not self._new.given or not is_held(disk, folder, self.place.lock):
            return
        with suppress(FileNotFoundError):
            log = Log(disk, disk.open(folder, self.place.log, os.O_RDONLY))
            try:
                last = next(log.entries(), None)
            finally:
                log.close()
            if last is not None and last.end is None and last.turn_id == self.turn_id:
                raise _still_running()

    async def begin_at_once(self, window_tokens: int) -> tuple[FileTurn | None, bool]:
        """The begun turn, if the session's files are still open and nobody else has used them; was it cancelled?

        Only the write is left to a thread then: each system call there has to win Python's lock back from the event
        loop, which costs more than the call.
        """
        session = self.store.open_sessions.take(self.place.key)
        if session is None or not session.try_resume():
            return None, False
        tail, log, at = session.tail, session.log, now()
        if (
            tail is None
            or self._floor_of(tail.sums, window_tokens) < tail.floor
            or (self._new.given and self.store.turn_ids.recall(log, session.size, self.turn_id) is not False)
        ):
            session.close()
            return None, False
        try:
            line = self._compose(tail, window_tokens, at, {})
            write = partial(log.append, line, at=at, sync=self.store.fsync, size=session.size)
            _, cancelled = await self.store.in_thread(write)
        except BaseException:
            session.close()
            raise
        self.store.turn_ids.note(log, session.size, line)
        log.not_alone()
        self._lock, self._log, self._begun_size = session.lock, log, session.size + len(line)
        self.store.running[self.place.key] = (self.turn_id, self._on_stop)
        return self, cancelled

    def try_begin(self, window_tokens: int, *, wait: bool) -> OpenTurn | Turn | None:
        """The begun turn, or the complete one of that id; None while another process has the session.

        Who is to `wait` then stands in line, and nobody who comes later overtakes it.
        """
        with self.store.folder(self.place.user, create=True) as folder:
            if self.line.is_behind(folder) or not self._lock.try_acquire(folder):
                self._refuse_if_running_elsewhere(folder)
                if wait:
                    self.line.join(folder)
                    self._lock.ask_for(folder)
                return None
            try:
                complete = self._open_and_begin(folder, window_tokens)
            except BaseException:
                self._let_go(folder)
                raise
            finally:
                self.line.leave(folder)
                self._say_if_wanted(folder)
            if complete is not None:
                self._let_go(folder)
                return complete
            self.store.running[self.place.key] = (self.turn_id, self._on_stop)
            return self

    def _say_if_wanted(self, folder: int) -> None:
        """Leaves word at the lock whether somebody stands in line; first that nobody does, so that none is missed.

        Who joins the line says so itself after it has joined, at the lock that is in place then.
        """
        with suppress(OSError):
            if self._lock.held:
                self._lock.say_wanted(False)
                if self.line.is_behind(folder):
                    self._lock.say_wanted(True)

    def _open_and_begin(self, folder: int, window_tokens: int) -> Turn | None:
        disk = self.store.disk
        log = self._log = Log(disk, disk.open(folder, self.place.log, os.O_RDWR | os.O_APPEND | os.O_CREAT))
        try:
            with disk.alone(log.descriptor):
                return self._write_begin(folder, log, window_tokens)
        except BaseException:
            with suppress(OSError):
                if log.size() == 0:  # it was made here, and nothing came of it
                    disk.unlink(folder, self.place.log)
            raise

    def _write_begin(self, folder: int, log: Log, window_tokens: int) -> Turn | None:
        new, at, lines, replaces = self._new, now(), list[bytes](), dict[str, Any]()
        fresh, earlier = log.is_empty(), None
        log.cut_torn_tail()
        sums, last = log.sums(), next(log.entries(), None)
        if last is not None and last.end is None:  # we hold the session: its owner is dead
            lines.append(end_line(last.turn_id, Reply(status=TurnStatus.INTERRUPTED), at, sums))
        if new.given and not fresh and self.store.turn_ids.mention(log, self.turn_id):
            earlier = log.find(self.turn_id)
            if earlier is not None and earlier.status is TurnStatus.COMPLETE:
                return earlier.turn()
        sums, replaces = _without(log, sums, earlier, last)
        tail = _tail(log, sums, earlier, self._floor_of(sums, window_tokens))
        if fresh:
            lines.append(session_line(self._history.user_id, self._history.session_id, at))
        lines.append(self._compose(tail, window_tokens, at, replaces))
        if fresh and self.store.fsync:
            self.store.disk.sync(folder)
        size, data = log.size(), b"".join(lines)
        log.append(data, at=at, sync=self.store.fsync, size=size)
        self.store.turn_ids.note(log, size, data)
        self._begun_size = size + len(data)
        return None

    def _compose(self, tail: Tail, window_tokens: int, at: datetime, replaces: dict[str, Any]) -> bytes:
        """The line that begins the turn after this tail, and with it what is shown of the past."""
        new, floor = self._new, self._floor_of(tail.sums, window_tokens)
        if window_tokens:
            self.window = [ShownTurn("", tail.past(floor))]
        title = tail.sums.title or title_of(new.input)
        self._begun_sums = Sums(tail.sums.turns + 1, tail.sums.tokens, title, new.chain)
        self._tail, self._line = replace(tail, floor=floor), turn_line(new, at, self._begun_sums, replaces)
        return self._line

    def _floor_of(self, sums: Sums, window_tokens: int) -> int:
        """From which token count on turns are shown; none of them is when there is no window."""
        return window_floor(sums.tokens + self._new.tokens, window_tokens) if window_tokens else sums.tokens

    @override
    async def end(self, reply: Reply) -> None:
        if self._ended:
            raise TurnLost("This turn has ended already.")
        self._ended = True
        try:
            await self.record_end(reply)
        finally:
            self.store.wait_queue.leave(self.place.key)

    async def record_end(self, reply: Reply) -> None:
        """Writes the end and frees the session, whatever comes of the writing."""
        self.store.running.pop(self.place.key, None)
        log = self._log
        assert log is not None  # noqa: S101 - a turn is ended only after it has begun
        if self.store.keeps_open and self.store.writers.try_enter(self.place.key):
            try:
                at_once = log.try_alone() and log.size() == self._begun_size
                if at_once and await self._end_at_once(log, reply):
                    raise asyncio.CancelledError
            finally:
                self.store.writers.leave(self.place.key)
            if at_once:
                return
            log.not_alone()
        _, cancelled = await undisturbed(self._end_in_turn(log, reply))
        if cancelled:
            raise asyncio.CancelledError

    async def _end_in_turn(self, log: Log, reply: Reply) -> None:
        """Writes the end as soon as nobody else writes."""
        try:
            await self.store.write(self.place.key, lambda: self._write_end(log, reply))
        finally:
            await self.store.in_thread(self._free)

    async def _end_at_once(self, log: Log, reply: Reply) -> bool:
        """Writes the end where nobody has written since the begin, and keeps the files open; was it cancelled?"""
        try:
            line, sums, at = self._end_line(reply, self._begun_sums)
            write = partial(log.append, line, at=at, sync=self.store.fsync, size=self._begun_size)
            _, cancelled = await self.store.in_thread(write)
            if log.is_removed():
                raise _lost()
        except BaseException:
            await self.store.in_thread(self._free)
            raise
        self.store.turn_ids.note(log, self._begun_size, line)
        if self.store.keeps_open:
            log.not_alone()
            self._keep_open(log, self._begun_size + len(line), self._tail_after(sums, line))
            return cancelled
        _, cancelled_now = await self.store.in_thread(self._free)
        return cancelled or cancelled_now

    def _write_end(self, log: Log, reply: Reply) -> None:
        with self.store.disk.alone(log.descriptor):
            line, _, at = self._end_line(reply, self._sums(log))
            log.append(line, at=at, sync=self.store.fsync)
            if log.is_removed():
                raise _lost()

    def _end_line(self, reply: Reply, sums: Sums) -> tuple[bytes, Sums, datetime]:
        at = now()
        if reply.status is TurnStatus.COMPLETE or (reply.status is TurnStatus.INTERRUPTED and reply.output):
            sums = replace(sums, tokens=sums.tokens + self._new.tokens + reply.tokens)
        return end_line(self.turn_id, reply, at, sums), sums, at

    def _tail_after(self, sums: Sums, line: bytes) -> Tail | None:
        """What the next turn needs, as it would be read from the file; None if it is large."""
        if len(self._line) + len(line) > _LARGE:
            return None
        turn, floor = Entry(0, decode(self._line[:-1]), decode(line[:-1])).turn(), self._tail.floor
        shown = [Shown(self._begun_sums.tokens, (*turn.input, *turn.output))] if turn.shown else []
        kept = [one for one in self._tail.shown if one.tokens_before >= floor]
        return Tail.of(sums, floor, (*kept, *shown))

    def _keep_open(self, log: Log, size: int, tail: Tail | None) -> None:
        lock, self._lock, self._log = self._lock, FileLock(self.store.disk, self.place.lock), None
        lock.rest()
        self.store.put_away(self.store.open_sessions.keep(self.place.key, OpenSession(lock, log, tail, size)))

    def _sums(self, log: Log) -> Sums:
        """The sums of now; raises `TurnLost` if this turn is not the last any more."""
        if log.size() == self._begun_size:
            return self._begun_sums
        log.cut_torn_tail()
        last = next(log.entries(), None)
        if last is None or last.turn_id != self.turn_id or last.end is not None:
            raise _lost()
        return log.sums()

    def _free(self) -> None:
        try:
            with self.store.folder(self.place.user) as folder:
                self._let_go(folder)
        except OSError:
            self._let_go(None)

    def _let_go(self, folder: int | None) -> None:
        if self._log is not None:
            self._log.close()
            self._log = None
        self._lock.release(folder)

    def leave_line(self) -> None:
        """Gives up waiting; never raises."""
        try:
            with self.store.folder(self.place.user) as folder:
                self.line.leave(folder)
        except OSError:
            self.line.leave(None)


def _busy() -> SessionBusy:
    return SessionBusy("Another turn of this session is running: try again when it has ended.")


def _still_running() -> SessionBusy:
    return SessionBusy("The turn of this turn_id is still running: wait for it, or stop it.")


def _lost() -> TurnLost:
    return TurnLost("The session was removed or taken over while this turn ran: its reply was not recorded.")


def _without(log: Log, sums: Sums, earlier: Entry | None, last: Entry | None) -> tuple[Sums, dict[str, Any]]:
    """The sums without the turn that is replaced, and what the new turn's record says of it."""
    if earlier is None or last is None:
        return sums, {}
    if earlier.offset != last.offset:
        # What it added to the window stays counted: the counts of the turns after it are on that scale.
        return replace(sums, turns=sums.turns - 1), {"gone": [earlier.offset]}
    before, record = dropping(earlier, log.sums_before(earlier.dropped_from))
    return replace(before, title=sums.title), record


def _tail(log: Log, sums: Sums, earlier: Entry | None, floor: int) -> Tail:
    """What is shown of the log from a token count on, without the turn that is replaced."""
    shown: list[Shown] = []
    for entry in log.entries():
        if entry.tokens_before < floor:
            break
        if earlier is None or entry.offset != earlier.offset:
            turn = entry.turn()
            if turn.shown:
                shown.append(Shown(entry.tokens_before, (*turn.input, *turn.output)))
    return Tail(sums, floor, shown[::-1])

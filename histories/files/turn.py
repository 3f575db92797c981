"""A turn in a session's file: who may begin it, and what is written when."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import partial

from langchain_core.messages import BaseMessage
from typing_extensions import override

from histories.base import (
    Attempt,
    HistoryDamaged,
    OpenTurn,
    Reply,
    SessionHistory,
    ShownTurn,
    Turn,
    TurnLost,
    TurnNotFound,
    TurnRunning,
    TurnStatus,
    now,
    title_of,
)
from histories.codec import dumped
from histories.files.flock import Replaced
from histories.files.journal_file import JournalWriter
from histories.files.locks import FileLock, Line, is_held
from histories.files.log import Log
from histories.files.new_log import create_log
from histories.files.open_sessions import OpenSession, Tail
from histories.files.place import Place
from histories.files.records import Sums, end_line, session_line, turn_line
from histories.files.services import Services
from histories.files.settle import settle
from histories.files.spot import Spot, expect_last, shown_turns, spot_for
from histories.files.tree import Node
from histories.files.written import Written
from histories.window import window_floor

_LARGE = 64 * 1024
"""Bytes of a turn's records that are not kept in memory for the next turn: it reads them."""


class FileTurn(OpenTurn):
    """A turn that runs, or is about to: it holds the lock of its session, and the session's open log."""

    def __init__(self, store: Services, history: SessionHistory, place: Place, attempt: Attempt) -> None:
        self.store, self.place, self.gate, self.key = store, place, store.gate, place.key
        self._ids, self._attempt, self._new = (history.user_id, history.session_id), attempt, attempt.new
        self.turn_id = attempt.new.turn_id
        self._lock = FileLock(store.disk, place.lock)
        self.line = Line(store.disk, place.line)
        self._log: Log | None = None
        self._begun_sums, self._begun_size = Sums(), -1
        self._spot = Spot(Sums())
        self._tail, self._record = Tail(Sums(), 0, ()), b""
        self._input: Sequence[BaseMessage] = ()  # the input as it is read back
        self._book: JournalWriter | None = None
        self._after: str | None = None
        """How far the log went before, as an index names it, where it need not be read to be known."""

    # Beginning.

    async def begin_at_once(self) -> tuple[FileTurn | None, bool]:
        """The begun turn, if the session's files are still open and nobody else has used them; was it cancelled?"""
        session = self.store.open_sessions.take(self.key)
        if session is None or not session.try_resume():
            return None, False
        tail, log, at = session.tail, session.log, now()
        if tail is None or not self._can_follow(tail, log, session.size):
            session.close()
            return None, False
        try:
            line = self._compose(Spot(tail.sums), tail, at)
            cancelled = await self._append_at_once(log, line, at, session.size)
        except Replaced:
            session.close()
            return None, False
        except BaseException:
            session.close()
            raise
        self.store.trees.note(log, session.size, line)
        log.not_alone()
        self._lock, self._log, self._begun_size = session.lock, log, session.size + len(line)
        self._after = session.end
        self.store.offsets[self.key] = session.size
        return self, cancelled

    def _can_follow(self, tail: Tail, log: Log, size: int) -> bool:
        """Whether the tail of the log is all that this turn needs to know of it."""
        new = self._new
        if new.version_of is not None or self._attempt.if_last not in (None, tail.last):
            return False
        if self._floor_of(tail.sums) < tail.floor:
            return False
        return not new.given or self.store.trees.knows(log, size, self.turn_id) is False

    def try_begin(self, *, wait: bool) -> OpenTurn | Turn | None:
        """The begun turn, or the complete one of that id; None while another process has the session.

        Who is to `wait` then stands in line, and nobody who comes later overtakes it.
        """
        with self.store.folder(self.place.user, create=True) as folder:
            if self.line.is_behind(folder) or not self._lock.try_acquire(folder):
                recorded = self._answered_elsewhere(folder)
                if wait and recorded is None:
                    self.line.join(folder)
                    self._lock.ask_for(folder)
                return recorded
            try:
                complete = self._open_and_begin(folder)
            except BaseException:
                self._let_go(folder)
                raise
            finally:
                self.line.leave(folder)
                self._lock.say_if_wanted(self.line, folder)
            if complete is not None:
                self._let_go(folder)
                return complete
            self.store.offsets[self.key] = self._begun_size - len(self._record)
            return self

    def _answered_elsewhere(self, folder: int) -> Turn | None:
        """A complete turn of the given id; raises `TurnRunning` for one that runs. A retry need not wait for either.

        Others may write meanwhile, and take back what they wrote: what seems damaged is left to who has the lock.
        """
        disk = self.store.disk
        if not self._new.given:
            return None
        with suppress(FileNotFoundError, HistoryDamaged):
            log = Log(disk, disk.open(folder, self.place.log, os.O_RDONLY))
            try:
                last = None if log.is_empty() else next(log.entries(), None)
                if last is not None and last.turn_id == self.turn_id and last.end is None:
                    if is_held(disk, folder, self.place.lock):
                        raise TurnRunning
                elif last is not None and (earlier := self._earlier(log)) is not None:
                    return self._complete(log, earlier)
            finally:
                log.close()
        return None

    def _earlier(self, log: Log) -> Node | None:
        """The turn of this turn_id that is on the record."""
        tree = self.store.trees.of(log)
        self.store.trees.keep(log, tree)
        return tree.ids.get(self.turn_id)

    def _complete(self, log: Log, node: Node) -> Turn | None:
        """This turn, if it is complete."""
        turn = log.entry(node.offset, node.end).turn()
        if turn.status is not TurnStatus.COMPLETE:
            return None
        if self.store.fsync:  # whoever wrote it may have died before it was on the disk
            self.store.disk.sync(log.descriptor)
        return turn

    async def _append_at_once(
        self, log: Log, line: bytes, at: datetime, size: int, undo: Callable[[], bytes] | None = None
    ) -> bool:
        """Appends to a log of this size that nobody else writes to; was the caller cancelled? Raises `Replaced`.

        Just what a disk may be slow to do is left to a thread: after each system call it has to win Python's lock back
        from the event loop, which costs more than the call.
        """

        def append() -> None:
            log.append(line, at=at, sync=self.store.fsync, size=size, undo=undo)
            self._remove_journal()

        _, cancelled = await self.store.in_thread(append, self.place.user, of_turn=True)
        if not log.is_at(self.place.path):
            keep = partial(log.keep_if_at, self.place.path, size, size + len(line), undo)
            cancelled |= (await self.store.in_thread(keep, self.place.user, of_turn=True))[1]
        return cancelled

    def _open_and_begin(self, folder: int) -> Turn | None:
        disk = self.store.disk
        try:
            log = self._log = Log(disk, disk.open(folder, self.place.log, os.O_RDWR | os.O_APPEND))
        except FileNotFoundError:
            self._begin_first(folder)
            return None
        with disk.alone(log.descriptor):
            log.cut_torn_tail()
            if log.size():
                return self._write_begin(folder, log)
        log.close()
        self._log = None
        self._begin_first(folder)
        return None

    def _begin_first(self, folder: int) -> None:
        """The first turn of a session comes with its file: no crash leaves the one without the other."""
        expect_last(None, self._attempt.if_last)
        if self._new.version_of is not None:
            raise TurnNotFound
        at = now()
        line = self._compose(Spot(Sums()), Tail(Sums(), 0, ()), at)
        content = session_line(*self._ids, at) + line
        log = create_log(self.store.disk, folder, self.place.path, content, at=at, sync=self.store.fsync)
        self._log, self._begun_size, self.has_older, self._after = log, len(content), False, ""
        self.store.trees.note(log, 0, content)

    def _write_begin(self, folder: int, log: Log) -> Turn | None:
        at = now()
        log.check_version()
        settle(self.store, self.place, folder, log)
        earlier = self._earlier(log) if self._new.given else None
        if earlier is not None and (complete := self._complete(log, earlier)) is not None:
            return complete
        expect_last(log, self._attempt.if_last)
        spot = spot_for(log, self._new, earlier)
        floor = self._floor_of(spot.sums)
        tail = Tail(spot.sums, floor, [*shown_turns(spot.line(log), floor)][::-1])
        line, size = self._compose(spot, tail, at), log.size()
        log.append(line, at=at, sync=self.store.fsync, size=size, path=self.place.path)
        self.store.trees.note(log, size, line)
        self._begun_size = size + len(line)
        return None

    def _compose(self, spot: Spot, tail: Tail, at: datetime) -> bytes:
        """The line that begins the turn there, after this tail, and with it the window."""
        new, floor, sums = self._new, self._floor_of(tail.sums), spot.sums
        if self._attempt.window_tokens:
            self.window: Sequence[ShownTurn] = tail.window(floor)
            self.has_older = floor > 0
        title = sums.title or title_of(new.input)
        self._spot, self.started_at = spot, at
        self._begun_sums = Sums(sums.turns + 1, sums.tokens, title, new.chain, sums.more)
        jump = {**spot.jump, **({"version": True} if spot.behind is not None else {})}
        said, self._input = dumped(new.input)
        self._tail, self._record = replace(tail, floor=floor), turn_line(new, at, self._begun_sums, jump, said=said)
        return self._record

    def _floor_of(self, sums: Sums) -> int:
        """From which token count on turns are shown; none of them is when there is no window."""
        limit = self._attempt.window_tokens
        return window_floor(sums.tokens + self._new.tokens, limit) if limit else sums.tokens

    # What it says while it runs.

    @override
    async def _journal(self, first: int, events: Sequence[bytes]) -> None:
        await self.store.call(partial(self._write_journal, first, events), self.place.user, of_turn=True)

    def _write_journal(self, first: int, events: Sequence[bytes]) -> None:
        try:
            if self._book is not None and self._book.is_open:
                self._book.append(-1, first, events)
                return
            with self.store.folder(self.place.user) as folder:
                if self._book is None:
                    offset = self._begun_size - len(self._record)
                    self._book = JournalWriter(self.store.disk, self.place.journal, offset)
                self._book.append(folder, first, events)
        except FileNotFoundError:
            raise TurnLost from None

    # Ending.

    async def give_up(self) -> None:
        """Ends the turn of a caller that was cancelled."""
        await self._end(Reply(status=TurnStatus.INTERRUPTED))

    @override
    async def _end(self, reply: Reply) -> None:
        self.store.offsets.pop(self.key, None)
        log = self._log
        assert log is not None  # noqa: S101 - a turn is ended only after it has begun
        if self.store.keeps_open and self.store.writers.try_enter(self.key):
            try:
                at_once = log.try_alone() and log.size() == self._begun_size
                if at_once:
                    await self._end_at_once(log, reply)
            finally:
                self.store.writers.leave(self.key)
            if at_once:
                return
            log.not_alone()
        try:
            await self.store.write(self.key, lambda: self._write_end(log, reply))
        finally:
            await self.store.in_thread(self._free, self.place.user, of_turn=True)
        self.store.ended(self.place)

    async def _end_at_once(self, log: Log, reply: Reply) -> None:
        """Writes the end where nobody has written since the begin, and keeps the files open."""
        size, undo = self._begun_size, partial(self._nothing_said, self._begun_sums)
        try:
            said, replied = dumped(reply.output)
            line, sums, at = self._end_line(reply, self._begun_sums, said)
            await self._append_at_once(log, line, at, size, undo)
        except BaseException as error:
            await self.store.in_thread(self._free, self.place.user, of_turn=True)
            if isinstance(error, Replaced):
                raise TurnLost from None
            raise
        self.store.trees.note(log, self._begun_size, line)
        size = self._begun_size + len(line)
        end = log.end_at(size, line)
        self.store.ended(self.place, self._written(sums, at, size, end, reply, replied))
        if self.store.keeps_open:
            log.not_alone()
            self._keep_open(OpenSession(self._lock, log, self._tail_after(sums, line, reply, replied), size, end))
        else:
            await self.store.in_thread(self._free, self.place.user, of_turn=True)

    def _write_end(self, log: Log, reply: Reply) -> None:
        with self.store.disk.alone(log.descriptor):
            before = self._sums(log)
            line, _, at = self._end_line(reply, before)
            undo = partial(self._nothing_said, before)
            try:
                log.append(line, at=at, sync=self.store.fsync, path=self.place.path, undo=undo)
            except Replaced:
                raise TurnLost from None
            self._remove_journal()

    def _nothing_said(self, before: Sums) -> bytes:
        """The end that is written after one that can't be taken back, so that it does not read as one."""
        return self._end_line(Reply(status=TurnStatus.INTERRUPTED), before)[0]

    def _remove_journal(self) -> None:
        if self._book is not None:
            try:
                with self.store.folder(self.place.user) as folder:
                    self._book.remove(folder)
            except OSError:
                self._book.remove(None)

    def _end_line(self, reply: Reply, sums: Sums, said: str | None = None) -> tuple[bytes, Sums, datetime]:
        at = now()
        if reply.is_shown:
            sums = replace(sums, tokens=sums.tokens + self._new.tokens + reply.tokens)
        elif self._spot.behind is not None:
            back = {"to": self._begun_size - len(self._record), "gone": sorted(self._spot.gone)}
            sums = replace(self._spot.behind, title=sums.title)
            return end_line(self.turn_id, reply, at, sums, said=said, **back), sums, at
        return end_line(self.turn_id, reply, at, sums, said=said), sums, at

    def _tail_after(self, sums: Sums, line: bytes, reply: Reply, replied: Sequence[BaseMessage]) -> Tail | None:
        """What the next turn needs, as it would be read from the file; None if it is large, or of another line."""
        if len(self._record) + len(line) > _LARGE or self._spot.behind is not None:
            return None
        turn, floor = ShownTurn(self.turn_id, (*self._input, *replied)), self._tail.floor
        shown = [(self._begun_sums.tokens, turn)] if reply.is_shown else []
        kept = [one for one in self._tail.shown if one[0] >= floor]
        tail = Tail(sums, floor, (*kept, *shown), self.turn_id)
        return tail if tail.is_short else None

    def _written(
        self, sums: Sums, at: datetime, size: int, end: str, reply: Reply, replied: Sequence[BaseMessage]
    ) -> Written | None:
        """What an index would read of this turn; None if it has to."""
        if self._after is None or self.started_at is None:
            return None
        return Written(
            before=self._after, end=end, session_id=self._ids[1], start=self._begun_size - len(self._record), stop=size,
            turn_id=self.turn_id, is_complete=reply.status is TurnStatus.COMPLETE, messages=(*self._input, *replied),
            sums=sums, began_at=self.started_at, ended_at=at,
        )  # fmt: skip

    def _keep_open(self, session: OpenSession) -> None:
        self._lock, self._log = FileLock(self.store.disk, self.place.lock), None
        session.lock.rest()
        self.store.put_away(self.store.open_sessions.keep(self.key, session))

    def _sums(self, log: Log) -> Sums:
        """The sums of now; raises `TurnLost` if this turn is not the last any more."""
        if log.size() == self._begun_size:
            return self._begun_sums
        log.cut_torn_tail()
        last = next(log.entries(), None)
        if last is None or last.turn_id != self.turn_id or last.end is not None:
            raise TurnLost
        return log.sums()

    def _free(self) -> None:
        self._remove_journal()
        try:
            with self.store.folder(self.place.user) as folder:
                self._let_go(folder)
        except OSError:
            self._let_go(None)

    def _let_go(self, folder: int | None) -> None:
        if self._log is not None:
            self._log.close()
            self._log = None
        self.store.free(self._lock, self.place, folder)

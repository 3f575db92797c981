"""The history of one session, in one file."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from functools import partial
from itertools import dropwhile
from typing import Any, TypeVar

from typing_extensions import override

from histories.base import (
    ATTENDED_S,
    PAGE_BYTES,
    Attempt,
    Event,
    Feedback,
    HistoryDamaged,
    HistoryMoved,
    InvalidCursor,
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
    TurnTree,
    now,
)
from histories.cursors import BEFORE
from histories.files.begin import begin_turn
from histories.files.documents import read_document, write_document
from histories.files.follow import follow
from histories.files.idle import beside_a_turn, present, remove_session, while_idle
from histories.files.listing import session_entry
from histories.files.locks import is_held
from histories.files.log import Log
from histories.files.names import file_name
from histories.files.new_log import create_log
from histories.files.place import Place
from histories.files.records import Entry, feedback_line, sums_line
from histories.files.rewrite import is_spare, refuse_spare, rewrite, tidy_soon, write_and_tidy
from histories.files.services import Services
from histories.files.session_lines import session_lines
from histories.files.settle import as_interrupted, settle, sums_at
from histories.files.spot import Spot, entry_and_after, expect_last, jump_to
from histories.files.tree import Tree
from histories.files.turn import FileTurn

T = TypeVar("T")


class FileHistory(SessionHistory):
    """The history of one session, in one file."""

    def __init__(self, store: Services, user_id: str, session_id: str) -> None:
        self.user_id, self.session_id = user_id, session_id
        self._store, self.gate = store, store.gate
        self._place = Place(store.path, file_name(user_id), file_name(session_id))
        self.key = self._place.key

    # Looking at the file, and writing to it.

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
            return await self._store.call(read, self._place.user)
        except HistoryDamaged:
            return await self._store.write(self.key, read_alone)

    @contextmanager
    def _writing(self) -> Iterator[Log]:
        """The session's log, for as long as nobody else writes to it."""
        with self._log(os.O_RDWR | os.O_APPEND) as (_, log), self._store.disk.alone(log.descriptor):
            log.cut_torn_tail()
            log.check_version()
            yield log

    def _append(self, log: Log, line: bytes, at: datetime) -> None:
        size = log.size()
        log.append(line, at=at, sync=self._store.fsync, size=size, path=self._place.path)
        self._store.trees.note(log, size, line)

    @contextmanager
    def _tree(self, log: Log) -> Iterator[Tree]:
        tree = self._store.trees.of(log)
        yield tree
        self._store.trees.keep(log, tree)

    async def _change(self, change: Callable[[int, Log], None]) -> None:
        """Changes the record while no turn runs; what a dead owner left running is ended first."""

        spare = False

        def write(folder: int) -> None:
            nonlocal spare
            with self._writing() as log:
                settle(self._store, self._place, folder, log)
                change(folder, log)
                spare = is_spare(self._store, log)

        await while_idle(self._store, self._place, write)
        if spare:
            await tidy_soon(self._store, self._place)
        await self._store.forgot(self._place)

    # Turns.

    @override
    async def _begin(self, attempt: Attempt) -> OpenTurn | Turn:
        return await begin_turn(FileTurn(self._store, self, self._place, attempt), attempt.deadline)

    @override
    async def _ask_stop(self) -> bool:
        def look(folder: int, log: Log) -> bool:
            last = self._running(folder, log)
            if last is not None:
                self._store.ask_stop(self.key, last.turn_id, last.offset)
            return last is not None

        return await self._read(look)

    @override
    async def _attend(self, turn_id: str) -> None:
        def look(folder: int, log: Log) -> None:
            last = self._running(folder, log)
            if last is not None and last.turn_id == turn_id:
                self._store.attend(self.key, turn_id, last.offset)

        with suppress(SessionNotFound):
            await self._read(look)

    @override
    async def _is_attended(self, attempt: Attempt) -> bool:
        offset = self._store.offsets.get(self.key, -1)
        ask = partial(self._store.attended_s_ago, self.key, attempt.new.turn_id, offset)
        return await self._store.call(ask, self._place.user) < ATTENDED_S

    def _running(self, folder: int, log: Log) -> Entry | None:
        """The turn that runs, wherever it does."""
        last = next(log.entries(), None)
        is_open = last is not None and last.end is None
        return last if is_open and is_held(self._store.disk, folder, self._place.lock) else None

    @override
    def events(self, turn_id: str, *, after: int = -1) -> AsyncIterator[Sequence[Event]]:
        def look(folder: int, log: Log) -> int | None:
            running = self._running(folder, log)
            return running.offset if running is not None and running.turn_id == turn_id else None

        return follow(self._store, self._place, partial(self._read, look), after)

    # The record.

    @override
    async def info(self) -> Session:
        def look(folder: int, log: Log) -> Session:
            running = self._running(folder, log)
            return replace(session_entry(log), running=None if running is None else running.turn_id)

        return await self._read(look)

    @override
    async def turns(self, *, limit: int = 50, before: str | None = None) -> Page[Turn]:
        offset, gone = (None, []) if before is None else _parse(before)

        def look(folder: int, log: Log) -> Page[Turn]:
            if offset is not None and not log.starts_record(offset):
                raise InvalidCursor(BEFORE)
            start = log.size() if offset is None else offset
            found: list[Entry] = []
            for entry in log.entries(offset, set(gone)):
                if len(found) == limit or (found and start - entry.offset > PAGE_BYTES):
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
            again = next((e for e in log.entries() if e.offset == found[0].offset), found[0])
            turns[-1] = again.turn() if again.end else as_interrupted(self._store, self._place, folder, again)
        if found and log.sums().more:
            with self._tree(log) as tree:
                return _with_more(tree, [entry.offset for entry in reversed(found)], turns)
        return turns

    @override
    async def turn(self, turn_id: str, *, shown: bool = False) -> Turn:
        def look(folder: int, log: Log) -> Turn:
            with self._tree(log) as tree:
                node = tree.shown(turn_id) if shown else tree.find(turn_id)
            return self._as_seen(folder, log, [log.entry(node.offset, node.end)])[0]

        return await self._read(look)

    @override
    async def tree(self) -> TurnTree:
        def look(folder: int, log: Log) -> TurnTree:
            with self._tree(log) as tree:
                nodes, last = list(tree.nodes.values()), "" if tree.head is None else tree.head.turn_id
            after = ["" if node.parent is None else node.parent.turn_id for node in nodes]
            found = [log.entry(node.offset, node.end) for node in reversed(nodes)]
            return TurnTree(self._as_seen(folder, log, found), after, last)

        return await self._read(look)

    # Changes of the record.

    @override
    async def rename(self, title: str) -> None:
        await self._note(lambda log, at: sums_line("title", log.sums(), at, title=title))

    @override
    async def feedback(self, turn_id: str, feedback: Feedback) -> None:
        def line(log: Log, at: datetime) -> bytes:
            with self._tree(log) as tree:
                tree.find(turn_id)
            return feedback_line(turn_id, feedback, at, log.sums())

        await self._note(line)

    async def _note(self, line_of: Callable[[Log, datetime], bytes]) -> None:
        """Adds a record, also beside a turn that runs. What such records have replaced does not pile up."""

        def write() -> bool:
            with self._writing() as log:
                at = now()
                line = line_of(log, at)
                refuse_spare(self._store, log)
                with beside_a_turn(self._store, self._place):
                    self._append(log, line, at)
                return is_spare(self._store, log)

        await write_and_tidy(self._store, self._place, write)

    @override
    async def _rewind(self, turn_id: str, *, keep: bool, if_last: str | None) -> None:
        def change(folder: int, log: Log) -> None:
            entry, after = entry_and_after(log, turn_id)
            expect_last(log, if_last)
            spot, at = jump_to(log, Spot(log.sums()), entry, after, keep=keep), now()
            self._append(log, sums_line("rewind", spot.sums, at, title=spot.sums.title, **spot.jump), at)

        await self._change(change)

    @override
    async def _choose(self, turn_id: str, *, if_last: str | None) -> None:
        def change(folder: int, log: Log) -> None:
            with self._tree(log) as tree:
                node = tree.find(turn_id)
                tree.expect(if_last)
                while node.chosen is not None:
                    node = node.chosen
                gone = sorted(offset for offset in tree.named if offset < node.end)
            sums, at = sums_at(node, log.sums()), now()
            jump: dict[str, Any] = {"to": node.end, "up": node.offset, "keep": True}
            jump |= {"whole": True} if node.failed else {}
            jump |= {"gone": gone} if gone else {}
            self._append(log, sums_line("rewind", sums, at, title=sums.title, **jump), at)

        await self._change(change)

    @override
    async def _delete_turn(self, turn_id: str, *, if_last: str | None) -> None:
        def change(folder: int, log: Log) -> None:
            tree = self._store.trees.of(log)
            node = tree.find(turn_id)
            tree.expect(if_last)
            tree.remove([node])
            rewrite(self._store, self._place, folder, log, tree, now())

        await self._change(change)

    @override
    async def delete(self, *, if_updated_at: datetime | None = None) -> None:
        def remove(folder: int) -> None:
            with suppress(HistoryDamaged), self._log() as (_, log):  # it is there
                if if_updated_at not in (None, session_entry(log).updated_at):
                    raise HistoryMoved
            remove_session(self._store, self._place, folder)

        await while_idle(self._store, self._place, remove, makes_room=True)
        await self._store.forgot(self._place)

    @override
    async def _fork(self, session_id: str, turn_id: str) -> None:
        def look(folder: int, log: Log) -> tuple[list[Turn], str]:
            # In one look: counted from the tail in two, it is another line once a turn has begun between them.
            past = [*dropwhile(lambda one: one.turn_id != turn_id, log.entries())]
            if not past:
                raise TurnNotFound
            turns = self._as_seen(folder, log, past)
            if turns[-1].status is TurnStatus.RUNNING:
                raise SessionBusy
            return turns, log.sums().title

        turns, title = await self._read(look)
        await self._sibling(session_id).restore(turns, title=title, created_at=now())

    @override
    def _sibling(self, session_id: str) -> FileHistory:
        return FileHistory(self._store, self.user_id, session_id)

    @override
    async def _document(self, name: str) -> str | None:
        with suppress(SessionNotFound):
            return await self._store.call(partial(read_document, self._store, self._place, name), self._place.user)
        return None

    @override
    async def _set_document(self, name: str, text: str | None) -> None:
        def write() -> None:
            with self._writing() as log:
                write_document(self._store, self._place, log, name, text)

        await self._store.write(self.key, write)

    @override
    async def _restore(self, tree: TurnTree, *, title: str, created_at: datetime) -> None:
        def create(folder: int) -> None:
            with suppress(SessionNotFound), self._log():
                raise SessionExists
            updated_at = tree.updated_at(created_at)
            content = session_lines(
                self.user_id, self.session_id, tree, title=title, created_at=created_at, updated_at=updated_at
            )
            disk, fsync = self._store.disk, self._store.fsync
            create_log(disk, folder, self._place.path, content, at=updated_at, sync=fsync).close()

        try:
            await while_idle(self._store, self._place, create, make_folder=True)
        except SessionBusy:
            raise SessionExists from None
        self._store.ended(self._place)


def _with_more(tree: Tree, offsets: Sequence[int], turns: Sequence[Turn]) -> list[Turn]:
    """The turns with what only a look at the whole log tells of them."""
    siblings, found = tree.siblings(), list[Turn]()
    for offset, turn in zip(offsets, turns, strict=True):
        node = tree.nodes.get(offset)
        if node is not None:
            versions = siblings[node.parent]
            turn = replace(turn, feedback=node.feedback, versions=versions if len(versions) > 1 else ())
        found.append(turn)
    return found


def _parse(before: str) -> tuple[int, list[int]]:
    """A page's cursor: the offset before which it ends, and what of the record before it is gone."""
    if re.fullmatch(r"[0-9]{1,15}(\.[0-9]{1,15})*", before) is None:
        raise InvalidCursor(BEFORE)
    offset, *gone = map(int, before.split("."))
    return offset, gone

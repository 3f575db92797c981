"""Brings an index up to what the logs say now.

Logs are read before the index is written to, so that nobody waits for the one because of the other. What was read is
put in only if the log is still there, and if nobody has read on in it meanwhile.

What nobody has looked at yet, as an import of thousands of sessions, takes minutes. So there is a pace: who waits for
an answer has some of it read, the newest first, and is told what was left out.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import datetime
from itertools import dropwhile, islice
from operator import itemgetter
from typing import Any, Final
from zlib import crc32

from histories import codec
from histories.base import HistoryDamaged, Session, TurnStatus
from histories.files.disk import Disk
from histories.files.index import Index, Row, Said
from histories.files.listing import any_entry
from histories.files.log import TAIL, Backward, Log
from histories.files.looks import (
    File,
    file_of,
    has_looked,
    is_settled,
    look,
    look_around,
    mark_of,
    place_of,
)
from histories.files.pace import ALL, Pace
from histories.files.records import Entry
from histories.files.written import Written

_PART: Final = 128
_PART_BYTES: Final = 2 * 1024 * 1024
"""How many sessions, or how much of what was said in one, are put in at once."""

_TOGETHER: Final = 16
"""How many sessions are put in at once that need not be read: a few milliseconds."""

_KEPT: Final = 64
"""How many turns are held in memory from the walk along the line on; longer lines are read again part by part."""

_LOOKED_THROUGH: Final = 256 * 1024
"""Of more than so many new bytes of a log it is not asked whether a recall needs them."""

_COMPLETE_S: Final = 30.0
"""How long a recall takes the index for complete, without a look at all files: only an operator adds some unseen."""


def catch_up(
    index: Index, disk: Disk, folder: int, *, texts: bool, pace: Pace = ALL, thorough: bool = True
) -> dict[str, str]:
    """Makes the index say what all logs in a folder say now: who they are, and with `texts` what was said in them.

    Unless that is `thorough`, what others than this store's processes have just done may not be seen: see `looks`.

    Gives those that were left out, as they did not fit the pace: their names and places in lists, newest first. What
    the index says of these is of another time. Some are read in any case.

    Raises `OSError`, `sqlite3.Error`.
    """
    at, seen = time.time(), look_around(index, folder, thorough=thorough)
    if seen.gone:
        with index.writing():
            index.drop(name for name in seen.gone if file_of(folder, name) is None)
    unread = _newest_first(seen.behind)
    while unread:
        part = [*islice(unread, _PART)]
        with pace.step():
            _read_entries(index, disk, folder, look(folder, part))
        for name in part:
            del unread[name]
        if pace.is_over:
            break
    if seen.whole and not unread:
        has_looked(index, at)
    if texts:
        unread |= _catch_up_words(index, disk, folder, pace)
        if not unread and not is_complete(index, 0.5):
            with index.writing():
                index.note("complete", int(time.time()))
    return _newest_first(unread)


def _newest_first(places: Mapping[str, str]) -> dict[str, str]:
    return dict(sorted(places.items(), key=itemgetter(1, 0), reverse=True))


def _catch_up_words(index: Index, disk: Disk, folder: int, pace: Pace) -> dict[str, str]:
    """Reads the words of those sessions that are known, newest first; gives those that were left out."""
    left, is_over = dict[str, str](), False
    for row in index.behind():
        if is_over or _new_bytes(row) > pace.most:
            left[row.name] = row.place
            continue
        with pace.step():
            if not _read_words(index, disk, folder, row.name, pace):
                left[row.name] = row.place
        is_over = pace.is_over
    return left


def _new_bytes(row: Row) -> int:
    """How many bytes of its log were not read."""
    log, read = (int(end.split(" ")[2]) if end else 0 for end in (row.log, row.read))
    return log - read if 0 < read <= log else log


def is_complete(index: Index, part: float = 1.0) -> bool:
    """Whether all that was there a while ago has come into the index."""
    return abs(time.time() - index.fact("complete")) < _COMPLETE_S * part


def catch_up_some(index: Index, disk: Disk, folder: int, names: Sequence[str]) -> bool:
    """The same for sessions of these files alone; was any of them behind?"""
    files, behind = look(folder, names), False
    for name in names:
        row = index.row(name)
        if name not in files:
            if row is not None:
                behind = True
                with index.writing():
                    index.drop([name])
        elif row is None or (row.mark, row.settled, row.read) != (files[name][1], True, row.log):
            behind = _read_entries(index, disk, folder, {name: files[name]}) or behind
            behind = _is_behind_in_words(index, name) or behind
            _read_words(index, disk, folder, name, ALL)
    return behind


def put_in(index: Index, folder: int, changes: Mapping[str, Sequence[Written] | None], pace: Pace = ALL) -> list[str]:
    """Puts in what is known to have been written to these logs, without reading them; gives those to be read."""
    unread, known = list[str](), iter(changes.items())
    while part := [*islice(known, _TOGETHER)]:
        with pace.step(), index.writing():
            unread += [name for name, written in part if not (written and _put_in(index, folder, name, written))]
    return unread


def _put_in(index: Index, folder: int, name: str, written: Sequence[Written]) -> bool:
    """False if the index, or the file, is not where these turns begin and end: by another's doing, or their own."""
    row, file, last = index.row(name), file_of(folder, name), written[-1]
    inode, _, size, _ = last.end.split(" ")
    if file is None or (str(file.st_ino), str(file.st_size)) != (inode, size):
        return False
    if row is not None and (row.read != row.log or row.entry is None):
        return False
    new = [*dropwhile(lambda one: one.before != ("" if row is None else row.log), written)]
    if not new:
        return row is not None and row.log == last.end
    session = last.session(new[0].began_at if row is None else session_of(row).created_at)
    mark, read = mark_of(file), "" if row is None else row.read
    index.put(Row(name, place_of(last.ended_at), mark, is_settled(mark), _to_json(session), last.end, read))
    row = index.row(name)
    assert row is not None  # noqa: S101 - it was put in, and the index is this thread's until it is committed
    index.put_words(row, [*(one.said for one in new), *_title(index, row)], last.end)
    return True


def is_behind(index: Index, disk: Disk, folder: int, name: str, but: Collection[str]) -> bool:
    """Whether a log says more than the index knows, beyond turns of these turn_ids that were added at its end.

    Who asks with the window's turns set aside need not wait for those to come into the index.
    """
    row = index.row(name)
    if row is None or row.read == "":
        return True
    start = int(row.read.split(" ")[2])
    with _opened(disk, folder, name) as log:
        if log is None or log.size() - start > _LOOKED_THROUGH or row.read != _end(log, start):
            return True
        with suppress(HistoryDamaged):
            lines = Backward(log, None)
            while lines.end > start and (found := lines.previous()) is not None:
                if not _only_adds(found[1], but):
                    return True
            return lines.end != start
    return True


def _only_adds(record: dict[str, Any], but: Collection[str]) -> bool:
    """Whether a record leaves all as it is that was said in other turns than these."""
    if "to" in record or "gone" in record:
        return False
    return record["r"] in ("end", "title", "feedback") or (record["r"] == "turn" and record["id"] in but)


def _read_entries(index: Index, disk: Disk, folder: int, files: dict[str, File]) -> bool:
    """Puts in the sessions of these files; has any changed?"""
    changed = [row for row in (_entry_of(index, disk, folder, name, *file) for name, file in files.items()) if row]
    if changed:
        with index.writing():
            for row in changed:
                file = file_of(folder, row.name)
                if file is not None:
                    index.put(row if mark_of(file) == files[row.name][1] else replace(row, settled=False))
    return bool(changed)


def _entry_of(index: Index, disk: Disk, folder: int, name: str, place: str, mark: str) -> Row | None:
    """What the file says, if the index does not know it yet."""
    settled, before = is_settled(mark), index.row(name)
    with _opened(disk, folder, name) as log:
        if log is None:
            return None
        session, sound = any_entry(log)
        if session is not None and sound:  # a backup may have been restored without the times of its files
            place = place_of(session.updated_at)
        entry, end = None if session is None else _to_json(session), _end(log, log.size())
    read = "" if before is None else before.read
    if before is not None and _size(before.mark) == _size(mark) and before.mark != mark:
        read = ""  # nothing was added to it, so anything may have changed
    row = Row(name, place, mark if sound else "", settled, entry, end, read)
    same = before is not None and (before.mark, before.settled, before.entry, before.log) == (
        row.mark, row.settled, row.entry, row.log,
    )  # fmt: skip
    return None if same else row


def _size(mark: str) -> str:
    return mark.split(".")[1] if mark else ""


@contextmanager
def _opened(disk: Disk, folder: int, name: str) -> Iterator[Log | None]:
    """The log of that name, None if it was deleted in this moment."""
    try:
        log = Log(disk, disk.open(folder, name, os.O_RDONLY))
    except FileNotFoundError:
        yield None
        return
    try:
        yield log
    finally:
        log.close()


def _end(log: Log, size: int) -> str:
    """How far a log goes, and what tells it from others that go as far."""
    return log.end_at(size, log.disk.read(log.descriptor, min(size, TAIL), max(0, size - TAIL)))


def _is_behind_in_words(index: Index, name: str) -> bool:
    row = index.row(name)
    return row is not None and row.read != row.log


def _read_words(index: Index, disk: Disk, folder: int, name: str, pace: Pace) -> bool:
    """Reads on in the log of a session from where its words were read up to: to its end, as far as can be?"""
    row = index.row(name)
    if row is None or row.read == row.log:
        return True
    with _opened(disk, folder, name) as log:
        if log is None or row.entry is None:
            return True
        try:
            return _add_words(index, row, log, folder, pace)
        except HistoryDamaged:
            with _unless_others_did(index, row, folder) as mine:
                if mine:
                    index.forget_from(row, -1)
                    index.put_words(row, [], "")
    return True


def _add_words(index: Index, row: Row, log: Log, folder: int, pace: Pace) -> bool:
    known = row.read != "" and row.read == _end(log, int(row.read.split(" ")[2]))
    unread, last = list[Entry](), -1
    for number, entry in enumerate(log.entries()):
        is_there = known and number > 0 and not entry.gone and entry.end is not None
        if is_there and index.has(row, entry.offset, entry.stop):
            last = entry.offset
            break
        unread.append(entry if number < _KEPT else replace(entry, record={}, end=None))
    is_first = True
    for part, is_last in _parts(log, unread):
        with _unless_others_did(index, row, folder) as mine:
            if not mine:
                return True
            read = row.log if is_last else _end(log, part[-1].stop)
            if is_first:
                index.forget_from(row, last + 1 if known else -1, [entry.offset for entry in unread] if known else [])
                part += _title(index, row)
            index.put_words(row, part, read)
        row, is_first = replace(row, read=read), False
        if pace.is_over and not is_last:
            return False
    return True


def _title(index: Index, row: Row) -> list[Said]:
    """The title, as one of the turns, if it has changed."""
    title = session_of(row).title
    version = crc32(title.encode("utf-8", "surrogatepass"))
    return [] if index.has(row, -1, version) else [Said(-1, version, complete=False, turn_id="", text=title)]


def _parts(log: Log, unread: list[Entry]) -> Iterator[tuple[list[Said], bool]]:
    """These turns of the log, of which the newest comes first, oldest first and some at a time.

    The second of each pair tells whether it is the last.
    """
    part, size = list[Said](), 0
    for number, entry in enumerate(reversed(unread), start=1):
        said = _said(entry if entry.record else log.entry(entry.offset, entry.stop), entry)
        part.append(said)
        size += len(said.text)
        if size > _PART_BYTES and said.stop and number < len(unread):
            yield part, False
            part, size = [], 0
    yield part, True


def _said(entry: Entry, place: Entry) -> Said:
    turn = entry.turn()
    text = codec.text_of([*turn.input, *turn.output])
    return Said(place.offset, place.stop, turn.status is TurnStatus.COMPLETE, turn.turn_id, text)


@contextmanager
def _unless_others_did(index: Index, row: Row, folder: int) -> Iterator[bool]:
    """Writes to the index, if the log is there and nobody else has read on in it."""
    with index.writing():
        now = index.row(row.name)
        yield file_of(folder, row.name) is not None and now is not None and (now.key, now.read) == (row.key, row.read)


def _to_json(session: Session) -> str:
    times = [session.created_at.isoformat(), session.updated_at.isoformat()]
    return json.dumps([session.session_id, session.title, session.chain, *times, session.turns])


def session_of(row: Row) -> Session:
    """The entry of a session in lists."""
    session_id, title, chain, created, updated, turns = json.loads(row.entry or "")
    return Session(
        session_id=session_id,
        title=title,
        chain=chain,
        created_at=datetime.fromisoformat(created),
        updated_at=datetime.fromisoformat(updated),
        turns=turns,
    )

"""The file of one session: an append-only log of records, read from its tail.

A line without its newline, or with blocks that were never written (they read as zeros), is the mark of a crash in
mid-write: readers pass it by, and the next writer cuts it off.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from functools import cached_property
from typing import Any, Final

from histories.base import HistoryDamaged
from histories.files import flock
from histories.files.disk import Disk, FileId
from histories.files.flock import Replaced
from histories.files.records import START, Entry, Sums, damaged, decode, is_newer, is_whole

_BLOCK: Final = 32 * 1024
_SECTOR: Final = 512
TAIL: Final = 32
"""So many bytes at the end of a log, with a checksum among them, tell whether it was only added to since."""
_ZEROS: Final = re.compile(rb"\0+")


class Log:
    """An open log. Its callers see to it that nobody else appends meanwhile, where that matters."""

    def __init__(self, disk: Disk, descriptor: int) -> None:
        self.disk, self.descriptor = disk, descriptor

    def close(self) -> None:
        flock.close(self.descriptor)

    def try_alone(self) -> bool:
        """Whether nobody else writes to it from now on, until `not_alone`."""
        return self.disk.try_alone(self.descriptor)

    def not_alone(self) -> None:
        self.disk.not_alone(self.descriptor)

    def size(self) -> int:
        return os.fstat(self.descriptor).st_size

    @cached_property
    def file(self) -> FileId:
        """Which file it is, as long as it is open."""
        file = os.fstat(self.descriptor)
        return file.st_dev, file.st_ino

    @cached_property
    def identity(self) -> tuple[int, int, str]:
        """The same for good: a later file that got the same number differs in what its first record says."""
        nonce = ""
        with suppress(HistoryDamaged):
            nonce = str(self.head().get("file", ""))
        return *self.file, nonce

    def end_at(self, size: int, tail: bytes) -> str:
        """How far the log goes, and what tells it from others that go as far: `tail` are its last bytes, or more."""
        _, inode, nonce = self.identity
        return f"{inode} {nonce} {size} {tail[-TAIL:].hex()}"

    def check_place(self, path: str) -> None:
        """Raises `Replaced` unless the file is the one that `path` names."""
        if self.disk.file_at(path) != self.file:
            raise Replaced

    def is_at(self, path: str) -> bool:
        """The same, also where the disk does not tell."""
        with suppress(OSError):
            return self.disk.file_at(path) == self.file
        return False

    def is_empty(self) -> bool:
        """Whether nothing was ever recorded: at most a first record that is torn."""
        if Backward(self, None).end > 0:
            return False
        self._check_torn(self.size(), 0)
        return True

    def head(self) -> dict[str, Any]:
        """The first record; raises `HistoryDamaged` if it is not a session's."""
        head, size = b"", self.size()
        while b"\n" not in head and len(head) < size:
            more = self.disk.read(self.descriptor, 1024 + len(head), len(head))
            if not more:  # it was taken back in this instant
                raise damaged()
            head += more
        record = decode(head.partition(b"\n")[0])
        if record["r"] != "session":
            raise damaged()
        return record

    def check_version(self) -> None:
        """Raises `HistoryDamaged` if a newer version has begun the log, or written its last turn.

        For who is to add to a log that was not open until now.
        """
        if is_newer(self.disk.read(self.descriptor, len(START), 0)):
            self.head()  # raises
        next(self.entries(), None)

    def sums(self) -> Sums:
        """The sums after the last record."""
        return self.sums_before(None)

    def sums_before(self, offset: int | None) -> Sums:
        """The sums after the last record before `offset` (None: of all)."""
        found = Backward(self, offset).previous()
        return Sums() if found is None else Sums(**found[1]["s"])

    def starts_record(self, offset: int) -> bool:
        """Whether a record begins, or the last one ends, at this offset."""
        return offset == 0 or self.disk.read(self.descriptor, 1, offset - 1) == b"\n"

    def entries(self, before: int | None = None, gone: set[int] | None = None) -> Iterator[Entry]:
        """The turns of the history, newest first, or those before an offset: without what was rewound or replaced.

        `gone`: the offsets of turns that one after `before` replaced.
        """
        lines, end, gone, whole, stop = Backward(self, before), None, gone or set(), False, 0
        while (after := lines.end) and (found := lines.previous()) is not None:
            offset, record = found
            gone.update(record.get("gone", ()))
            if record["r"] == "end" and "to" in record and not whole:
                lines.jump(record["to"])
            elif record["r"] == "end":
                if end is None or end["id"] != record["id"]:  # the newest one holds
                    end, stop = record, after
            elif record["r"] == "rewind":
                lines.jump(record["to"])
                whole = bool(record.get("whole"))  # a turn that came to nothing was chosen: it is shown all the same
                continue
            elif record["r"] == "turn":
                drop = record.get("to", offset)
                ended = end if end and end["id"] == record["id"] else None
                end = None
                lines.jump(drop)
                if offset not in gone:
                    yield Entry(offset, record, ended, [g for g in gone if g < drop], stop if ended else 0)
            whole = False

    def entry(self, offset: int, end: int) -> Entry:
        """The turn whose record begins at `offset`, and whose end ends at `end` (0: it has none)."""
        line = b""
        while b"\n" not in line:
            more = self.disk.read(self.descriptor, _BLOCK, offset + len(line))
            if not more:
                raise damaged()
            line += more
        found = Backward(self, end).previous() if end else None
        return Entry(offset, decode(line.partition(b"\n")[0]), found[1] if found else None)

    def cut_torn_tail(self) -> None:
        """Removes what a crash left after the last whole line; raises `HistoryDamaged` for what no crash leaves."""
        size, lines = self.size(), Backward(self, None)
        if lines.end == size:
            return
        end = lines.end
        self._check_torn(size, end)
        lines.previous()  # raises if this is a newer version's
        self.disk.truncate(self.descriptor, end)

    def _check_torn(self, size: int, end: int) -> None:
        """Raises `HistoryDamaged` unless what follows `end` is the start of a record, or zeros, or both in turn."""
        tail = self.disk.read(self.descriptor, size - end, end)
        start = tail[: len(START)].partition(b"\0")[0]  # the length of a file may be on the disk before its content
        if not START.startswith(start):
            decode(start)  # raises: it is not even whole
        if is_whole(tail[:-1]):  # just the end of its line has gone bad
            raise damaged()

    def append(
        self,
        line: bytes,
        *,
        at: datetime,
        sync: bool,
        size: int | None = None,
        path: str | None = None,
        undo: Callable[[], bytes] | None = None,
    ) -> None:
        """Appends a line whole, or not at all; returns when it is found at `path`, or else raises `Replaced`.

        One line at a time: of two, a power cut may leave the second without the first. `size` is that of the file,
        from who knows it. `undo` gives the line that is appended if this one can't be taken back.
        """
        size = self.size() if size is None else size
        try:
            self.disk.write(self.descriptor, line)
            with suppress(OSError):
                self.disk.stamp(self.descriptor, at)
            if sync:
                self.disk.sync(self.descriptor)
        except OSError:
            self._take_back(size, size + len(line), undo)
            raise
        if path is not None:
            self.keep_if_at(path, size, size + len(line), undo)

    def keep_if_at(self, path: str, size: int, written: int, undo: Callable[[], bytes] | None = None) -> None:
        """Takes back what was appended after `size`, and raises `Replaced`, unless the log is found at `path`."""
        try:
            self.check_place(path)
        except (OSError, Replaced):
            self._take_back(size, written, undo)
            raise

    def _take_back(self, size: int, written: int, undo: Callable[[], bytes] | None) -> None:
        """Undoes an append; if the disk refuses even that, a torn line is left, which the next writer cuts off."""
        try:
            self.disk.truncate(self.descriptor, size)
        except OSError:
            with suppress(OSError):
                if undo is not None and self.size() == written:
                    self.disk.write(self.descriptor, undo())


def _is_hole(line: int, start: int, end: int) -> bool:
    """Whether zeros in a line are blocks that were never written, not bytes that have gone bad: those are whole."""
    return (start == line or start % _SECTOR == 0) and end % _SECTOR == 0


class Backward:
    """The records of a log from the tail, or from before an offset, towards its head."""

    def __init__(self, log: Log, before: int | None) -> None:
        self._log = log
        self._start = log.size() if before is None else before
        self._buffer, self._stop = b"", 0
        if before is None:
            self._pass_torn_by()

    @property
    def end(self) -> int:
        """Where the records that are still to come end."""
        return self._start + self._stop

    def _pass_torn_by(self) -> None:
        self._read_more()
        while (cut := self._buffer.rfind(b"\n", 0, self._stop)) < 0 and self._start > 0:
            self._read_more()
        self._stop = cut + 1
        while self._stop:
            begin = self._last_line()
            hole = _ZEROS.search(self._buffer, begin, self._stop)
            if hole is None or not _is_hole(self._start + begin, self._start + hole.start(), self._start + hole.end()):
                return
            self._stop = begin

    def _read_more(self) -> None:
        start = max(0, self._start - max(_BLOCK, self._stop))
        more = self._log.disk.read(self._log.descriptor, self._start - start, start)
        if self._stop and len(more) < self._start - start:  # even what precedes the end was taken back in this instant
            raise damaged()
        self._buffer = more + self._buffer[: self._stop] if self._stop else more
        self._start, self._stop = start, len(self._buffer)

    def _last_line(self) -> int:
        """Where in the buffer the last line begins."""
        while (cut := self._buffer.rfind(b"\n", 0, max(0, self._stop - 1))) < 0 and self._start > 0:
            self._read_more()
        return cut + 1

    def previous(self) -> tuple[int, dict[str, Any]] | None:
        """The offset and the record before the last one given, or None at the head of the log."""
        begin = self._last_line()
        if self._stop == 0:
            return None
        line, self._stop = self._buffer[begin : self._stop - 1], begin
        return self.end, decode(line)

    def jump(self, offset: int) -> None:
        """Goes on before `offset`, which is not after where it is."""
        self._stop = max(0, offset - self._start)
        self._start = min(self._start, offset)

"""What a running turn has said so far, in a file beside its session's log: `<number> <JSON>` on each line.

The first line says of which turn it is, by the offset of its record. It is there for readers in other processes, and
for whoever ends the turn if its owner dies; when the turn ends, the file goes. It survives the death of the process,
and is not synced: a power cut may cost what a reply had come to.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress

from histories.base import Event, StoreUnavailable
from histories.files.disk import Disk


class JournalWriter:
    """The journal of a turn that runs."""

    def __init__(self, disk: Disk, name: str, offset: int) -> None:
        self._disk, self._name, self._offset = disk, name, offset
        self._descriptor, self._size = -1, 0

    @property
    def is_open(self) -> bool:
        return self._descriptor >= 0

    def append(self, folder: int, first: int, events: Sequence[bytes]) -> None:
        """Appends events, for the first ones in a file of this folder. `FileNotFoundError` if that is gone since."""
        lines = b"".join(b"%d %s\n" % (first + place, data) for place, data in enumerate(events))
        if self._descriptor < 0:
            lines = b"%d\n" % self._offset + lines
            with suppress(FileNotFoundError):  # of a turn whose owner died
                self._disk.unlink(folder, self._name)
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL
            self._descriptor = self._disk.open(folder, self._name, flags)
        try:
            file = os.fstat(self._descriptor)
            if not file.st_nlink:
                raise FileNotFoundError
            if file.st_size != self._size:
                raise StoreUnavailable("What the turn said before could not be kept.")
            self._disk.write(self._descriptor, lines)
        except OSError:
            with suppress(OSError):
                self._disk.truncate(self._descriptor, self._size)
            raise
        self._size += len(lines)

    def remove(self, folder: int | None) -> None:
        """For when the turn has ended: never raises. Readers that have it open see that it is gone."""
        if self._descriptor >= 0:
            with suppress(OSError):
                if folder is not None and self._disk.is_at(folder, self._name, self._descriptor):
                    self._disk.unlink(folder, self._name)
            os.close(self._descriptor)
            self._descriptor = -1


class JournalReader:
    """Reads what was added to a journal since it was read last."""

    def __init__(self, disk: Disk, descriptor: int) -> None:
        self._disk, self._descriptor, self._position = disk, descriptor, 0

    @classmethod
    def open(cls, disk: Disk, folder: int, name: str, offset: int) -> JournalReader | None:
        """The journal of the turn whose record is at `offset`; None if there is none."""
        try:
            reader = cls(disk, disk.open(folder, name, os.O_RDONLY))
        except FileNotFoundError:
            return None
        head = disk.read(reader._descriptor, 32, 0).partition(b"\n")[0]
        if head != b"%d" % offset:
            reader.close()
            return None
        reader._position = len(head) + 1
        return reader

    @property
    def is_removed(self) -> bool:
        return os.fstat(self._descriptor).st_nlink == 0

    @property
    def has_more(self) -> bool:
        return os.fstat(self._descriptor).st_size > self._position

    def read(self, size: int = 1024 * 1024) -> list[Event]:
        """The next events, about so many bytes of them."""
        data = self._disk.read(self._descriptor, size, self._position)
        while data and b"\n" not in data:
            more = self._disk.read(self._descriptor, size, self._position + len(data))
            if not more:
                return []
            data += more
        data = data[: data.rfind(b"\n") + 1]
        self._position += len(data)
        if not data:
            return []
        events = (line.partition(b" ") for line in data[:-1].split(b"\n"))
        return [Event(int(number), text) for number, _, text in events]

    def close(self) -> None:
        os.close(self._descriptor)


def journaled(disk: Disk, folder: int, name: str, offset: int) -> list[bytes]:
    """All that the turn at `offset` said."""
    reader = JournalReader.open(disk, folder, name, offset)
    if reader is None:
        return []
    found = list[bytes]()
    try:
        while some := reader.read():
            found += [event.data for event in some]
    finally:
        reader.close()
    return found

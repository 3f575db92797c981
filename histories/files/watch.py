"""What changes in folders, as Linux tells it (inotify), which costs less than to look at each file.

A change is in the queue before the call that made it returns: who empties the queue, and then looks, misses nothing
that was done before. That holds where all changes pass through this kernel, so other file systems are not watched.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Iterator
from typing import Final

_INTEREST: Final = (
    0x00000002  # IN_MODIFY: written to, or truncated
    | 0x00000004  # IN_ATTRIB: its times were set
    | 0x00000040  # IN_MOVED_FROM
    | 0x00000080  # IN_MOVED_TO
    | 0x00000100  # IN_CREATE
    | 0x00000200  # IN_DELETE
    | 0x01000000  # IN_ONLYDIR
)
_OVERFLOW: Final = 0x00004000
_IGNORED: Final = 0x00008000
_EVENT: Final = struct.Struct("iIII")
_QUEUE_PART: Final = 256 * 1024

#: The types of file systems that `statfs` gives, of those that no other machine writes to.
_LOCAL: Final = {
    0xEF53,  # ext2, ext3, ext4
    0x58465342,  # XFS
    0x9123683E,  # Btrfs
    0xF2F52010,  # F2FS
    0x01021994,  # tmpfs
    0x794C7630,  # overlayfs, in a container
}

_libc = ctypes.CDLL(None)


class Watch:
    """Folders that are watched, each by a number. One thread at a time may use it."""

    def __init__(self) -> None:
        self._queue = -1

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Watches nothing any more, until it is asked to again."""
        queue, self._queue = self._queue, -1
        if queue >= 0:
            os.close(queue)

    def add(self, folder: int) -> int | None:
        """Watches an open folder from now on: the number by which it is spoken of, None if it can't be watched."""
        if sys.platform != "linux" or not _is_local(folder):
            return None
        if self._queue < 0:
            self._queue = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        number: int = _libc.inotify_add_watch(self._queue, b"/proc/self/fd/%d" % folder, _INTEREST)
        return number if number >= 0 else None

    def remove(self, number: int) -> None:
        """Stops watching a folder. What it was asked to tell of it before may still be told."""
        _libc.inotify_rm_watch(self._queue, number)

    def changes(self) -> Iterator[tuple[int | None, str | None]]:
        """The number of a folder and the name of a file in it, for each change since this was asked last.

        Without a name: the folder is not watched any more. Without a number: some changes of any of them were lost.
        """
        while self._queue >= 0:
            try:
                events = os.read(self._queue, _QUEUE_PART)
            except BlockingIOError:
                return
            place = 0
            while place < len(events):
                number, kind, _, size = _EVENT.unpack_from(events, place)
                name = events[place + _EVENT.size : place + _EVENT.size + size].rstrip(b"\0")
                place += _EVENT.size + size
                if kind & _OVERFLOW:
                    yield None, None
                else:
                    yield number, None if kind & _IGNORED else os.fsdecode(name)


def _is_local(folder: int) -> bool:
    status = ctypes.create_string_buffer(1024)  # a struct statfs: its first member is the type
    failed = _libc.fstatfs(folder, status)
    return not failed and ctypes.c_long.from_buffer(status).value & 0xFFFFFFFF in _LOCAL

"""Disks that fail on purpose, below the file store's own functions."""

from __future__ import annotations

import errno
import os
from datetime import datetime

from typing_extensions import override

from histories.files.disk import Disk


class FailingDisk(Disk):
    """Fails the `at`-th call that it gets, or all from that one on, each with an error that such a call may give.

    A write that fails has written a part. Nothing is really synced, so that many runs take little time.
    """

    def __init__(self, at: int, code: int, *, for_good: bool = False) -> None:
        self.at, self.code, self.for_good = at, code, for_good
        self.calls = 0
        self.failed = 0

    def _fails(self) -> bool:
        self.calls += 1
        fails = self.calls == self.at or (self.for_good and self.calls > self.at)
        self.failed += fails
        return fails

    def _may_fail(self) -> None:
        if self._fails():
            raise OSError(self.code, os.strerror(self.code))

    @override
    def folder(self, path: str, *, create: bool) -> int:
        self._may_fail()
        return super().folder(path, create=create)

    @override
    def folder_in(self, path: str, name: str) -> int:
        self._may_fail()
        return super().folder_in(path, name)

    @override
    def subfolder(self, parent: int, name: str, *, create: bool, durable: bool = True) -> int:
        self._may_fail()
        return super().subfolder(parent, name, create=create, durable=durable)

    @override
    def open(self, folder: int, name: str, flags: int) -> int:
        self._may_fail()
        return super().open(folder, name, flags)

    @override
    def is_at(self, folder: int, name: str, descriptor: int) -> bool:
        self._may_fail()
        return super().is_at(folder, name, descriptor)

    @override
    def read(self, descriptor: int, size: int, offset: int) -> bytes:
        if self.code not in (errno.ENOSPC, errno.EROFS):
            self._may_fail()
        return super().read(descriptor, size, offset)

    @override
    def write(self, descriptor: int, data: bytes) -> None:
        if self._fails():
            os.write(descriptor, data[: len(data) * 2 // 3])
            raise OSError(self.code, os.strerror(self.code))
        super().write(descriptor, data)

    @override
    def stamp(self, descriptor: int, at: datetime) -> None:
        self._may_fail()
        super().stamp(descriptor, at)

    @override
    def sync(self, descriptor: int) -> None:
        self._may_fail()

    @override
    def truncate(self, descriptor: int, size: int) -> None:
        self._may_fail()
        super().truncate(descriptor, size)

    @override
    def rename(self, folder: int, old: str, new: str) -> None:
        self._may_fail()
        super().rename(folder, old, new)

    @override
    def link(self, folder: int, old: str, new: str) -> None:
        self._may_fail()
        super().link(folder, old, new)

    @override
    def unlink(self, folder: int, name: str) -> None:
        self._may_fail()
        super().unlink(folder, name)

    @override
    def mkdir(self, folder: int, name: str) -> None:
        self._may_fail()
        super().mkdir(folder, name)

    @override
    def rmdir(self, folder: int, name: str) -> None:
        self._may_fail()
        super().rmdir(folder, name)


class SmallDisk(Disk):
    """A disk that has room for so many more bytes. Writes that don't fit are short, then refused."""

    def __init__(self, room: int) -> None:
        self.room = room

    @override
    def write(self, descriptor: int, data: bytes) -> None:
        fits = data[: self.room]
        self.room -= len(fits)
        super().write(descriptor, fits)
        if len(fits) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    @override
    def truncate(self, descriptor: int, size: int) -> None:
        self.room += os.fstat(descriptor).st_size - size
        super().truncate(descriptor, size)


class Unsynced(Disk):
    """A disk that is never waited for."""

    @override
    def sync(self, descriptor: int) -> None:
        return

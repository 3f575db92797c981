"""The few things that the file store asks of the operating system, in one place.

Every call names files relative to an open folder and follows no symbolic link. Tests put a failing disk here.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from secrets import token_hex

from histories.cursors import to_micros
from histories.files import flock
from histories.files.flock import NotNow

FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_full_sync: int | None = getattr(fcntl, "F_FULLFSYNC", None)
_data_sync = getattr(os, "fdatasync", os.fsync)


def _sync(descriptor: int) -> None:
    """Without the file's times, where the system knows the difference; a folder has nothing else to leave out.

    On macOS `fsync` leaves data in the drive's cache, in any order.
    """
    if _full_sync is not None:
        fcntl.fcntl(descriptor, _full_sync)
    else:
        _data_sync(descriptor)


FileId = tuple[int, int]
"""The device and the number of a file: no other has them as long as it is there, or open."""


class Disk:
    """The real disk. Every method may raise `OSError`."""

    def folder(self, path: str, *, create: bool) -> int:
        """A descriptor of a folder that an operator named: links on the way to it are theirs to set."""
        try:
            return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            if not create:
                raise
        path = os.path.abspath(path)
        parent = self.folder(os.path.dirname(path), create=True)
        try:
            return self.subfolder(parent, os.path.basename(path), create=True)
        finally:
            os.close(parent)

    def folder_in(self, path: str, name: str) -> int:
        """A descriptor of a folder that is there, in one that an operator named."""
        return os.open(os.path.join(path, name), FOLDER_FLAGS)

    def subfolder(self, parent: int, name: str, *, create: bool, durable: bool = True) -> int:
        """A descriptor of a folder in `parent`; a new one is made `durable` there."""
        try:
            return os.open(name, FOLDER_FLAGS, dir_fd=parent)
        except FileNotFoundError:
            if not create:
                raise
        try:
            self.mkdir(parent, name)
        except FileExistsError:
            durable = False
        if durable:
            try:
                self.sync(parent)
            except OSError:
                with suppress(OSError):  # so that the next one tries this again
                    os.rmdir(name, dir_fd=parent)
                raise
        return os.open(name, FOLDER_FLAGS, dir_fd=parent)

    def open(self, folder: int, name: str, flags: int) -> int:
        """A descriptor of a regular file in `folder`, readable by nobody else."""
        descriptor = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o600, dir_fd=folder)
        is_new = flags & os.O_CREAT and flags & os.O_EXCL
        if not is_new and not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError("not a regular file")
        return descriptor

    def is_at(self, folder: int, name: str, descriptor: int) -> bool:
        """Whether the open file is the one that `name` names now."""
        try:
            named = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(named, os.fstat(descriptor))

    def file_at(self, path: str) -> FileId | None:
        """Which file a path names, whatever was moved or put in the place of folders on the way to it."""
        try:
            named = os.stat(path, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return named.st_dev, named.st_ino

    def age_s(self, folder: int, name: str) -> float:
        """How long ago the file was changed, or will have been, after the clock was set back. 0 for none."""
        try:
            return abs(time.time() - os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime)
        except FileNotFoundError:
            return 0.0

    def read(self, descriptor: int, size: int, offset: int) -> bytes:
        """Up to `size` bytes from `offset`; fewer only at the end of the file."""
        parts = []
        while size > 0 and (part := os.pread(descriptor, size, offset)):
            parts.append(part)
            size -= len(part)
            offset += len(part)
        return b"".join(parts)

    def write(self, descriptor: int, data: bytes) -> None:
        """Writes all of `data` at the end (the file is open for appending)."""
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]

    def stamp(self, descriptor: int, at: datetime) -> None:
        """Sets the time of the file's last change, by which sessions are listed."""
        at_ns = to_micros(at) * 1000
        os.utime(descriptor, ns=(at_ns, at_ns))

    def sync(self, descriptor: int) -> None:
        """Returns when what was written is on the disk, and can be read back from it."""
        _sync(descriptor)

    def truncate(self, descriptor: int, size: int) -> None:
        os.ftruncate(descriptor, size)

    def rename(self, folder: int, old: str, new: str) -> None:
        """Renames a file; what had the new name is gone, in the same step."""
        os.rename(old, new, src_dir_fd=folder, dst_dir_fd=folder)

    def link(self, folder: int, old: str, new: str) -> None:
        """Gives a file a second name; `FileExistsError` if that is taken."""
        os.link(old, new, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)

    def unlink(self, folder: int, name: str) -> None:
        os.unlink(name, dir_fd=folder)

    def mkdir(self, folder: int, name: str) -> None:
        os.mkdir(name, mode=0o700, dir_fd=folder)

    def rmdir(self, folder: int, name: str) -> None:
        os.rmdir(name, dir_fd=folder)

    def content(self, folder: int, name: str) -> bytes | None:
        """All of a small file; None if it is not there."""
        try:
            descriptor = self.open(folder, name, os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            return self.read(descriptor, os.fstat(descriptor).st_size, 0)
        finally:
            os.close(descriptor)

    def replace(self, folder: int, name: str, content: bytes, *, sync: bool) -> None:
        """Puts a small file in the place of the one there, whole or not at all: durable when the folder is synced."""
        temporary = f"{name.partition('.')[0]}.{token_hex(4)}.tmp"
        descriptor = self.open(folder, temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND)
        try:
            self.write(descriptor, content)
            if sync:
                self.sync(descriptor)
            self.rename(folder, temporary, name)
        finally:
            os.close(descriptor)

    def try_alone(self, descriptor: int) -> bool:
        """Whether the file is now held against every other holder, as by `alone`: does not wait, nor ask the disk."""
        return flock.try_lock(descriptor)

    def not_alone(self, descriptor: int) -> None:
        flock.unlock(descriptor)

    @contextmanager
    def alone(self, descriptor: int) -> Iterator[None]:
        """Holds the file against every other holder; raises `NotNow`, and never waits, while another one has it."""
        if not self.try_alone(descriptor):
            raise NotNow
        try:
            yield
        finally:
            self.not_alone(descriptor)

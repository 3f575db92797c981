"""One holder at a time across processes, by the operating system."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from secrets import token_hex
from typing import Final

from histories.files import flock
from histories.files.disk import Disk

_LOOKS: Final = 5
"""How often a lock that nobody holds is tried: who just looks at it is soon done, unless it was stopped meanwhile."""

_PAUSED_S: Final = 3.0
"""Who has not looked for so long, and looks many times a second, is stopped."""


class FileLock:
    """A lock that a file in a folder stands for: it exists while held, and its holder's death frees it.

    The lock is the kernel's (`flock`), so nobody has to guess whether a holder is alive. The file is removed when the
    lock is freed; who then finds itself holding a removed file tries anew. A holder that means to come back may let the
    lock rest instead: it is free then, and the file stays, for whoever is next. The file is empty, unless somebody
    stands in the `Line` for it.
    """

    def __init__(self, disk: Disk, name: str) -> None:
        self._disk, self.name = disk, name
        self._descriptor = -1
        self.held = False

    def try_acquire(self, folder: int) -> bool:
        """Whether the lock is now the caller's."""
        for _ in range(_LOOKS):
            descriptor = self._disk.open(folder, self.name, os.O_RDWR | os.O_CREAT)
            try:
                if flock.try_lock(descriptor):
                    if self._disk.is_at(folder, self.name, descriptor):
                        self._descriptor, descriptor, self.held = descriptor, -1, True
                        return True
                elif flock.is_locked(descriptor):
                    return False
            finally:
                if descriptor >= 0:
                    flock.close(descriptor)
        return False

    def rest(self) -> None:
        """Frees the lock and keeps its file."""
        self.held = False
        flock.unlock(self._descriptor)

    def try_again(self) -> bool:
        """Whether a lock that rested is the caller's again. No look at the disk: False if that would be needed."""
        if not flock.try_lock(self._descriptor):
            return False
        file = os.fstat(self._descriptor)
        self.held = file.st_nlink > 0 and file.st_size == 0  # neither gone nor wanted
        return self.held

    @property
    def gone(self) -> bool:
        """Whether the file was removed: what was known of the session is of the past."""
        return os.fstat(self._descriptor).st_nlink == 0

    @property
    def wanted(self) -> bool:
        """Whether somebody was seen to stand in line."""
        return os.fstat(self._descriptor).st_size > 0

    def ask_for(self, folder: int) -> None:
        """Tells who holds the lock, and who has let it rest, that somebody stands in line."""
        with suppress(FileNotFoundError):
            descriptor = self._disk.open(folder, self.name, os.O_RDWR)
            try:
                self._disk.truncate(descriptor, 1)
            finally:
                os.close(descriptor)

    def say_wanted(self, wanted: bool) -> None:
        """The same, or the contrary, from who holds the lock."""
        if wanted != self.wanted:
            self._disk.truncate(self._descriptor, int(wanted))

    def say_if_wanted(self, line: Line, folder: int) -> None:
        """The same, as the line tells: first that nobody stands in it, so that none is missed.

        Who joins the line says so itself after it has joined, at the lock that is in place then.
        """
        with suppress(OSError):
            if self.held:
                self.say_wanted(False)
                if line.is_behind(folder):
                    self.say_wanted(True)

    def touch(self) -> None:
        """Says that its holder is not just alive, but gets on."""
        with suppress(OSError):
            os.utime(self._descriptor)

    def release(self, folder: int | None) -> None:
        """Frees the lock, and never raises: a file that can't be removed is a free lock all the same."""
        descriptor, self._descriptor = self._descriptor, -1
        held, self.held = self.held, False
        if descriptor < 0:
            return
        with suppress(OSError):
            if held and folder is not None and self._disk.is_at(folder, self.name, descriptor):
                self._disk.unlink(folder, self.name)
        flock.close(descriptor)


def is_held(disk: Disk, folder: int, name: str) -> bool:
    """Whether a living process holds the `FileLock` of that name."""
    try:
        descriptor = disk.open(folder, name, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        return flock.is_locked(descriptor)
    finally:
        os.close(descriptor)


class Line:
    """The line in which processes wait for a lock: a folder with a `FileLock` for each, named by the time it came.

    In a process only the first of those who wait stands in it. A dead process is passed by, and one that has not
    looked for long, as it was stopped, until it goes on.
    """

    def __init__(self, disk: Disk, name: str) -> None:
        self._disk, self._name = disk, name
        self._place = FileLock(disk, "")

    @property
    def joined(self) -> bool:
        return self._place.held

    def is_behind(self, folder: int) -> bool:
        """Whether somebody who came earlier is waiting."""
        try:
            line = self._disk.subfolder(folder, self._name, create=False)
        except FileNotFoundError:
            return False
        try:
            for name in sorted(os.listdir(line)):
                if self.joined and name >= self._place.name:
                    break
                if is_held(self._disk, line, name):
                    if self._disk.age_s(line, name) > _PAUSED_S:
                        continue
                    return True
                with suppress(FileNotFoundError):
                    self._disk.unlink(line, name)
            return False
        finally:
            os.close(line)

    def join(self, folder: int) -> None:
        """Takes the last place in the line, unless the caller has one already; callers do so each time they look."""
        if self.joined:
            self._place.touch()
            return
        with suppress(FileNotFoundError):  # who left last removed the line in this instant
            line = self._disk.subfolder(folder, self._name, create=True, durable=False)
            try:
                newest = max((int(name.partition("-")[0]) for name in os.listdir(line)), default=0)
                number = max(time.time_ns(), newest + 1)  # clocks are set back
                self._place = FileLock(self._disk, f"{number:020d}-{token_hex(4)}")
                self._place.try_acquire(line)
            finally:
                os.close(line)

    def leave(self, folder: int | None) -> None:
        """Gives the place up, and never raises; who leaves last removes the line."""
        if not self.joined:
            return
        line = None
        with suppress(OSError):
            if folder is not None:
                line = self._disk.subfolder(folder, self._name, create=False)
        self._place.release(line)
        if line is not None and folder is not None:
            os.close(line)
            with suppress(OSError):
                self._disk.rmdir(folder, self._name)

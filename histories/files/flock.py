"""The kernel's locks on open files (`flock`): never waited for, and never left to a forked child.

A forked child has a copy of each descriptor, and a lock is held as long as any copy of its descriptor is open. So a
lock is given up by saying so, not by closing alone; and a child closes its copies first of all.
"""

from __future__ import annotations

import fcntl
import os
import threading
from contextlib import suppress
from typing import Final


class NotNow(Exception):
    """Another holder has the file at this moment. To be tried again by a coroutine, so that no thread waits."""


class Replaced(NotNow):
    """Another file has this one's name now, or its folder was moved: what was written to it is not to be found."""


_guard = threading.Lock()  # held for a system call that does not block, and while this process forks
_held: Final = set[int]()


def try_lock(descriptor: int) -> bool:
    """Whether the file is now held against every other open copy of it, in this process or another."""
    with _guard:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        _held.add(descriptor)
        return True


def unlock(descriptor: int) -> None:
    """Gives the lock up, if it is held."""
    with _guard:
        _held.discard(descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def is_locked(descriptor: int) -> bool:
    """Whether somebody else holds the lock, and does not just look, as this does."""
    with _guard:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        return False


def close(descriptor: int) -> None:
    """Gives the lock up, whoever has a copy of the descriptor, and closes it."""
    with _guard:
        if descriptor in _held:
            _held.discard(descriptor)
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def _after_fork_in_child() -> None:
    for descriptor in _held:
        with suppress(OSError):
            os.close(descriptor)
    _held.clear()
    _guard.release()


os.register_at_fork(before=_guard.acquire, after_in_parent=_guard.release, after_in_child=_after_fork_in_child)

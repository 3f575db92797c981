"""A simulated process: a store of its own, and a disk that fails, stalls, and is gone when the process dies."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final

from typing_extensions import override

from histories.base import OpenTurn
from histories.files.disk import Disk
from histories.files.store import FileStore
from tests.simulate.world import World

_STEPS: Final = ("folder", "subfolder", "open", "is_at", "is_at_path", "read", "truncate", "rename", "unlink", "link")


class Died(OSError):
    """The process was killed: nothing more comes of what it did."""


class SimDisk(Disk):
    """A disk at each of whose calls another thread may go on first."""

    def __init__(self, world: World, trouble: float) -> None:
        self._world, self.trouble, self.is_dead = world, trouble, False

    def step(self, *, may_fail: bool = False) -> None:
        self._world.switch()
        if self.is_dead:
            raise Died
        if may_fail and self._world.random.random() < self.trouble:
            code = self._world.random.choice([errno.EIO, errno.ENOSPC])
            raise OSError(code, os.strerror(code))

    def __getattribute__(self, name: str) -> Any:
        method = super().__getattribute__(name)
        if name not in _STEPS:
            return method

        def stepping(*args: Any, **more: Any) -> Any:
            self.step()
            return method(*args, **more)

        return stepping

    @override
    def write(self, descriptor: int, data: bytes) -> None:
        self.step()
        cut = self._world.random.randrange(len(data) + 1)
        os.write(descriptor, data[:cut])
        self.step(may_fail=True)
        os.write(descriptor, data[cut:])

    @override
    def stamp(self, descriptor: int, at: datetime) -> None:
        return

    @override
    def sync(self, descriptor: int) -> None:
        """Takes its time: as long as a disk does, or as a process that was stopped in it."""
        self.step(may_fail=True)
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            return
        self._world.pause(self._world.random.choice([0.001, 0.01, 0.01, 0.5 if self.trouble else 0.02]))
        self.step()

    @override
    def try_alone(self, descriptor: int) -> bool:
        self.step()
        return super().try_alone(descriptor)

    @override
    @contextmanager
    def alone(self, descriptor: int) -> Iterator[None]:
        self.step()
        with super().alone(descriptor):
            yield


class Process:
    """`turns` are those that run in it."""

    def __init__(self, world: World, folder: str, trouble: float) -> None:
        self.disk = SimDisk(world, trouble)
        self.store = FileStore(folder, disk=self.disk)
        self.turns: set[OpenTurn] = set()

    def forget(self, turn: OpenTurn) -> None:
        """It runs no longer."""
        self.turns.discard(turn)
        if self.disk.is_dead:
            turn._let_go(None)  # type: ignore[attr-defined]

    def die(self) -> None:
        """`kill -9`: its locks are free, its files closed."""
        self.disk.is_dead = True
        for turn in self.turns:
            if turn._lock.held:  # type: ignore[attr-defined]
                turn._lock.rest()  # type: ignore[attr-defined]
        for _, session in self.store.open_sessions.take_stale(all_of_them=True):
            session.close()

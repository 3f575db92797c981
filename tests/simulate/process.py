"""A simulated process: a store of its own, and a disk that fails, stalls, and is gone when the process dies."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final

from typing_extensions import override

from histories.base import OpenTurn
from histories.files.disk import Disk
from histories.files.store import FileStore
from tests.simulate.power import Platter
from tests.simulate.world import World

_STEPS: Final = (
    "folder",
    "folder_in",
    "subfolder",
    "open",
    "is_at",
    "file_at",
    "read",
    "truncate",
    "rename",
    "unlink",
    "link",
)


class Died(OSError):
    """The process was killed: nothing more comes of what it did."""


class SimDisk(Disk):
    """A disk at each of whose calls another thread may go on first."""

    def __init__(self, world: World, platter: Platter, trouble: float) -> None:
        self._world, self._platter, self.trouble, self.is_dead = world, platter, trouble, False

    def step(self, *, may_fail: bool = False) -> None:
        self._world.switch()
        if self.is_dead:
            raise Died
        if may_fail and self._world.random.random() < self.trouble:
            code = self._world.random.choice([errno.EIO, errno.ENOSPC])
            raise OSError(code, os.strerror(code))

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
        reach_the_disk = self._platter.syncing(descriptor)
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            self._world.pause(self._world.random.choice([0.001, 0.01, 0.01, 0.5 if self.trouble else 0.02]))
            self.step()
        reach_the_disk()

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


def _stepping(name: str) -> Callable[..., Any]:
    method = getattr(Disk, name)

    def stepping(self: SimDisk, *args: Any, **more: Any) -> Any:
        self.step()
        return method(self, *args, **more)

    return stepping


for _name in _STEPS:
    setattr(SimDisk, _name, _stepping(_name))


class Process:
    """`turns` are those that run in it."""

    def __init__(self, world: World, platter: Platter, trouble: float) -> None:
        self.disk = SimDisk(world, platter, trouble)
        self.store = FileStore(platter.folder, disk=self.disk)
        self.turns: set[OpenTurn] = set()

    def forget(self, turn: OpenTurn) -> None:
        """It runs no longer."""
        self.turns.discard(turn)
        if self.disk.is_dead:
            turn._let_go(None)  # type: ignore[attr-defined]

    def die(self) -> None:
        """`kill -9`: its locks are free, its files closed."""
        self.disk.is_dead = True
        if self.store._watch is not None:
            self.store._watch.cancel()
        for turn in self.turns:
            if turn._lock.held:  # type: ignore[attr-defined]
                turn._lock.rest()  # type: ignore[attr-defined]
        for _, session in self.store.open_sessions.take_stale(all_of_them=True):
            session.close()

"""Shares of a processor core: control groups of Linux, version 1 or 2, where this user may make them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")
_PERIOD_US = 20_000
_numbers = count(1)


class NoShares(Exception):
    """A process can't be held to a share of a core here; the message says why."""


class Share:
    """A group of processes that together get no more than a share of one core."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def hold(self, pid: int) -> None:
        """From now on this process, with all its threads, belongs to the group."""
        (self.folder / "cgroup.procs").write_text(str(pid))


@contextmanager
def share(cores: float) -> Iterator[Share]:
    """A group that is gone afterwards: whatever it holds has to have ended by then. Raises `NoShares`."""
    group = _parent() / f"recollect-bench-{os.getpid()}-{next(_numbers)}"
    quota = round(cores * _PERIOD_US)
    try:
        group.mkdir()
    except OSError as error:
        raise NoShares(f"a control group can't be made: {error.strerror}") from None
    try:
        try:
            if (group / "cpu.cfs_quota_us").exists():
                (group / "cpu.cfs_period_us").write_text(str(_PERIOD_US))
                (group / "cpu.cfs_quota_us").write_text(str(quota))
            else:
                (group / "cpu.max").write_text(f"{quota} {_PERIOD_US}")
        except OSError as error:
            raise NoShares(f"a control group can't be given a share: {error.strerror}") from None
        yield Share(group)
    finally:
        group.rmdir()


def _parent() -> Path:
    """Where groups with a share are made."""
    for folder in (_ROOT / "cpu", _ROOT / "cpu,cpuacct"):
        if (folder / "cgroup.procs").exists():
            return folder
    if (_ROOT / "cgroup.controllers").exists():
        return _ROOT
    raise NoShares("there are no control groups")

"""What a look at a user's folder tells: which logs are there, and which of them may say more than the index knows.

To ask the system about each log takes longer than all else in a list of thousands of sessions, so among many those
alone are asked about that may have changed. The store's own writers see to it that these are known: whoever writes to
a log has a file beside it as long as that may happen (the lock of its turn, `.turn`, or one that ends in `.tmp`), and
removes it only after the index was told to doubt what it knows of the log (`Index.doubt`). Who dies before leaves it.

* `doubt` comes after the write, and the file goes after that. Who looks lists the files first, and asks then which logs
  are in doubt: there is no instant in which neither tells.
* What was read of a log is put in as certain only if its file is still the same in that same transaction.
* A log that is new, or gone, is seen by its name.
* After a power cut an index may have forgotten what it was told: with another start of the system all logs are asked
  about, and so they are where the system does not tell its starts, and in an index that was copied to its place.

What others write, as a backup that is put back by hand, is seen by a look at all logs: where there are few, each look
is one; where there are many, one is made in the background as soon as the last is half a minute old.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Final
from zlib import crc32

from histories.files.index import Index

_FEW: Final = 500
"""So many logs are asked about in some milliseconds: then whoever has changed one, it is seen at once."""

_LOOK_AGAIN_S: Final = 30.0
"""How old a look at all logs may be."""

_BESIDE: Final = (".turn", ".tmp")
"""A file beside a log with such an end tells that somebody may write to the log."""

_SETTLED_NS: Final = 2_000_000_000
"""A file that changed less than this ago may change again and look the same: times are coarse, inodes are reused."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
PLACE_LENGTH: Final = 24
"""A time is a text of so many digits, so that its order is that of time, before 1970, too."""


File = tuple[str, str]
"""The time of a file's last change, which places it in lists if its records don't tell, and its mark."""


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen: of which logs the index knows too little, with their places as far as their files tell; which are
    gone; and whether all logs were asked about.
    """

    behind: dict[str, str]
    gone: set[str]
    whole: bool


def look_around(index: Index, folder: int, *, thorough: bool) -> Look:
    """Looks at a folder: with `thorough`, at all logs in it whoever may have changed them.

    Raises `OSError`, `sqlite3.Error`.
    """
    names, held = _listed(folder)
    if thorough or len(names) <= _FEW or not _may_trust(index):
        known = index.marks()
        behind, whole = _behind(folder, names, known), True
        gone = known.keys() - set(names)
    else:
        there, indexed = set(names), index.names()
        suspects = (there - indexed) | ((held | index.doubted()) & there)
        known = {name: row.mark if row.settled else "" for name in suspects if (row := index.row(name)) is not None}
        behind, whole = _behind(folder, suspects, known), False
        gone = indexed - there
    gone |= {name for name in known.keys() & behind.keys() if file_of(folder, name) is None}
    return Look(behind, gone, whole)


def _listed(folder: int) -> tuple[list[str], set[str]]:
    """The logs in a folder, and those of them beside which a file tells that they may be written to."""
    names, held = list[str](), set[str]()
    for name in os.listdir(folder):
        if name.endswith(".jsonl"):
            names.append(name)
        elif name.endswith(_BESIDE):
            held.add(f"{name.partition('.')[0]}.jsonl")
    return names, held


def has_looked(index: Index, at: float) -> None:
    """Notes that all was in the index at this time that was in any log then."""
    if _may_trust(index) and not is_old(index):
        return
    with index.writing():
        for fact, value in (("looked", int(at)), ("start", _start_of_system()), ("inode", index.inode)):
            index.note(fact, value)


def is_old(index: Index) -> bool:
    """Whether the last look at all logs has become old."""
    return abs(time.time() - index.fact("looked")) >= _LOOK_AGAIN_S


def _may_trust(index: Index) -> bool:
    """Whether the index knows of all that happened since the last look at all logs."""
    start = _start_of_system()
    return start != 0 and (index.fact("start"), index.fact("inode")) == (start, index.inode)


@cache
def _start_of_system() -> int:
    """A number for this start of the operating system; 0 if it does not tell."""
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb") as told:
            return crc32(told.read()) or 1
    except OSError:
        return 0


def look(folder: int, names: Sequence[str]) -> dict[str, File]:
    """The logs of these names that are there."""
    found = dict[str, File]()
    for name in names:
        file = file_of(folder, name)
        if file is not None:
            found[name] = (_place(file.st_mtime_ns), mark_of(file))
    return found


def _place(at_ns: int) -> str:
    return f"{at_ns + 10**22:0{PLACE_LENGTH}d}"


def place_of(at: datetime) -> str:
    """Where a session of that time stands in lists."""
    return _place((at - _EPOCH) // timedelta(microseconds=1) * 1000)


def file_of(folder: int, name: str) -> os.stat_result | None:
    try:
        file = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return file if stat.S_ISREG(file.st_mode) else None


def mark_of(file: os.stat_result) -> str:
    return f"{file.st_ino}.{file.st_size}.{file.st_ctime_ns}"


def is_settled(mark: str) -> bool:
    return int(mark.rpartition(".")[2]) < time.time_ns() - _SETTLED_NS


def _behind(folder: int, names: Iterable[str], known: Mapping[str, str]) -> dict[str, str]:
    """Those of these logs whose marks are not the known ones, and their places as far as their files tell."""
    behind, stat_of, known_of = dict[str, str](), os.stat, known.get
    for name in names:
        try:
            file = stat_of(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            continue
        if known_of(name) != f"{file.st_ino}.{file.st_size}.{file.st_ctime_ns}":  # as mark_of makes it
            behind[name] = _place(file.st_mtime_ns)
    return behind

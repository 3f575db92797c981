"""Looks at a folder of histories: what is damaged, what it would cost to mend it, and the mending."""

from __future__ import annotations

import os
import stat
import time
from contextlib import suppress
from datetime import datetime
from secrets import token_hex
from typing import Final, Protocol, TextIO

from histories.base import now
from histories.files.disk import Disk
from histories.files.index_file import INDEX, look_anew
from histories.files.locks import FileLock, is_held
from histories.files.log import Log
from histories.files.notes import NOTES
from histories.files.salvage import Salvage, salvage

_OPEN_TO_OTHERS: Final = 0o077
_WAIT_S: Final = 5.0
"""How long a session is waited for that another process writes to."""


def check_main(
    path: str, repair: bool, out: TextIO, *, disk: Disk | None = None, progress: Progress | None = None
) -> int:
    """Writes a line to `out` for each thing that is wrong with the histories in the folder `path`, and a summary.

    `progress` is told after each file how far it is.

    With `repair`, saves what can be saved: the damaged original stays beside it, as `<session>.damaged-<time>`.
    Safe beside a running server: a session whose turn runs is only looked at.
    Returns 0 when all is well, 1 when something is damaged, and was not repaired. Raises `OSError` for a folder that
    can't be read.
    """
    disk = disk or Disk()
    if not os.path.lexists(path):
        print("There are no histories yet.", file=out)
        return 0
    check = _Check(disk, repair, out, progress)
    root = disk.folder(path, create=False)
    try:
        check.root(root)
        for name in sorted(os.listdir(root)):
            if name != ".stops":
                check.user(root, name)
                if repair:  # what told of changes is gone, and some of them are its own
                    with suppress(OSError):
                        _look_anew(disk, root, name, path)
    finally:
        os.close(root)
    return check.summary()


def _look_anew(disk: Disk, root: int, user: str, path: str | os.PathLike[str]) -> None:
    folder = disk.subfolder(root, user, create=False)
    try:
        look_anew(folder, os.path.join(path, user))
    finally:
        os.close(folder)


class Progress(Protocol):
    """Who is told how far it is. `clear`: before anything else is said."""

    def __call__(self, text: str) -> None: ...

    def clear(self) -> None: ...


class _Check:
    def __init__(self, disk: Disk, repair: bool, out: TextIO, progress: Progress | None) -> None:
        self._disk, self._repair, self._out, self._progress = disk, repair, out, progress
        self._told: list[str] = []
        self._users = self._sessions = self._turns = self._damaged = self._repaired = 0

    def _say(self, where: str, what: str) -> None:
        self._told.append(f"{where}: {what}")

    def _print(self) -> None:
        """Prints what was found. Whoever reads it may take long, so no lock is held meanwhile."""
        told, self._told = self._told, []
        if self._progress is not None:
            if told:
                self._progress.clear()
            self._progress(f"{self._users} users, {self._sessions} sessions, {self._turns} turns")
        for line in told:
            print(line, file=self._out)

    def _damage(self, where: str, what: str, *, repaired: str | None) -> None:
        """Says what is damaged; `repaired` is what was, or could be, done about it (None: nothing)."""
        if repaired is None:
            self._say(where, f"{what}. This can't be repaired here.")
        elif self._repair:
            self._say(where, f"{what}. Repaired: {repaired}.")
        else:
            self._say(where, f"{what}. To be repaired: {repaired}.")
        if repaired is not None and self._repair:
            self._repaired += 1
        else:
            self._damaged += 1

    def summary(self) -> int:
        """Says how it all came out, and gives the exit status."""
        self._print()
        if self._progress is not None:
            self._progress.clear()
        said = f"{self._users} users, {self._sessions} sessions, {self._turns} turns: "
        if self._damaged:
            hint = "" if self._repair else ", see `admin.py check --repair`"
            print(f"{said}{self._damaged} damaged{hint}, {self._repaired} repaired.", file=self._out)
            return 1
        print(said + (f"{self._repaired} repaired." if self._repaired else "all is well."), file=self._out)
        return 0

    def root(self, descriptor: int) -> None:
        mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
        if mode & _OPEN_TO_OTHERS:  # the operator's own to decide
            self._say("the folder of histories", f"others than its owner may see who has some (mode {mode:o}).")

    def permissions(self, descriptor: int, where: str, wanted: int) -> None:
        mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
        if mode & _OPEN_TO_OTHERS:
            if self._repair:
                os.fchmod(descriptor, wanted)
            self._damage(where, f"others than its owner may use it (mode {mode:o})", repaired=f"mode {wanted:o}")

    def user(self, root: int, name: str) -> None:
        """Looks at the folder of one user."""
        try:
            folder = self._disk.subfolder(root, name, create=False)
        except OSError:
            self._damage(name, "not a folder, which all that is here has to be", repaired=None)
            return
        try:
            self._users += 1
            self.permissions(folder, name, 0o700)
            for file in sorted(os.listdir(folder)):
                self._file(folder, name, file)
                self._print()
        finally:
            os.close(folder)

    def _file(self, folder: int, user: str, name: str) -> None:
        session, _, kind = name.partition(".")
        where = f"{user}/{name}"
        if name == NOTES or name.startswith(INDEX) or kind.endswith(".json"):
            return
        if kind == "jsonl":
            self._session(folder, user, session)
        elif kind.startswith("damaged-"):
            self._say(where, "a damaged original that a repair has kept: remove it when nobody needs it any more.")
        elif kind == "turn":
            self._lock_file(folder, where, name)
        elif kind == "journal":
            if not is_held(self._disk, folder, f"{session}.turn"):
                self._say(where, "what a killed process's turn had come to: it is kept when that turn is settled.")
        elif kind == "next" or kind.endswith("tmp"):
            self._leftover(folder, where, name, session)
        else:
            self._say(where, "nothing that Recollect has put there.")

    def _lock_file(self, folder: int, where: str, name: str) -> None:
        lock = FileLock(self._disk, name)
        with suppress(OSError):
            if not self._repair:
                if not is_held(self._disk, folder, name):
                    self._say(where, "kept by a server that is running, or left behind by one that was killed.")
            elif lock.try_acquire(folder):  # who holds it may remove it
                lock.release(folder)
                self._say(where, "left behind by a process, removed.")

    def _leftover(self, folder: int, where: str, name: str, session: str) -> None:
        with suppress(OSError):
            if is_held(self._disk, folder, f"{session}.turn") or self._has_waiters(folder, f"{session}.next"):
                return
            if self._repair:
                self._remove(folder, name)
            self._say(where, f"left behind by a process that was killed, {'removed' if self._repair else 'harmless'}.")

    def _has_waiters(self, folder: int, line: str) -> bool:
        try:
            places = self._disk.subfolder(folder, line, create=False)
        except FileNotFoundError:
            return False
        try:
            return any(is_held(self._disk, places, place) for place in os.listdir(places))
        finally:
            os.close(places)

    def _remove(self, folder: int, name: str) -> None:
        if not name.endswith(".next"):
            self._disk.unlink(folder, name)
            return
        line = self._disk.subfolder(folder, name, create=False)
        try:
            for place in os.listdir(line):
                self._disk.unlink(line, place)
        finally:
            os.close(line)
        self._disk.rmdir(folder, name)

    def _session(self, folder: int, user: str, session: str) -> None:
        where = f"{user}/{session}.jsonl"
        lock = FileLock(self._disk, f"{session}.turn")
        mine = self._repair and lock.try_acquire(folder)
        try:
            flags = os.O_RDWR if self._repair else os.O_RDONLY
            log = Log(self._disk, self._disk.open(folder, f"{session}.jsonl", flags))
        except FileNotFoundError:  # forgotten in this moment
            return
        except OSError as error:
            self._damage(where, f"not a file that can be read ({error.strerror or error})", repaired=None)
            return
        else:
            try:
                if not _is_ours(log):
                    self._say(where, "another process writes to it, and does not get on: it was not looked at.")
                    return
                self.permissions(log.descriptor, where, 0o600)
                found = salvage(self._disk.read(log.descriptor, log.size(), 0), user, session)
                self._report(folder, session, where, found, mine)
            finally:
                log.close()
        finally:
            lock.release(folder)

    def _report(self, folder: int, session: str, where: str, found: Salvage, mine: bool) -> None:
        self._sessions += 1
        self._turns += found.turns
        runs = not mine and is_held(self._disk, folder, f"{session}.turn")
        if found.empty:
            self._say(where, "empty: a process was killed, or the disk full, before its first turn.")
        elif found.open_turn is not None and not found.findings and not runs:
            self._say(where, f"nobody runs the turn {found.open_turn}: the next turn settles it as interrupted.")
        repairable = found.repaired is not None
        if found.findings and repairable and self._repair and not mine:
            self._say(where, "a turn of it runs: it is not repaired now.")
            repairable = False
        if repairable and found.repaired is not None and mine:
            self._replace(folder, session, found.repaired, found.updated_at)
        for finding in found.findings:
            cost = f"the rest is kept; lost is {finding.lost}" if finding.lost else "at no loss"
            self._damage(where, finding.what, repaired=cost if repairable else None)

    def _replace(self, folder: int, session: str, content: bytes, updated_at: datetime | None) -> None:
        """Puts the repaired file in the place of the damaged one, which is kept: at no instant is there neither."""
        log, kept = f"{session}.jsonl", f"{session}.damaged-{now():%Y%m%dT%H%M%S.%fZ}"
        self._disk.link(folder, log, kept)
        if not content:
            self._disk.unlink(folder, log)
        else:
            name = f"{session}.{token_hex(4)}.tmp"
            descriptor = self._disk.open(folder, name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND)
            try:
                Log(self._disk, descriptor).append(content, at=updated_at or now(), sync=True)
                self._disk.rename(folder, name, log)
            finally:
                os.close(descriptor)
        self._disk.sync(folder)


def _is_ours(log: Log) -> bool:
    """Whether nobody else writes to the log until it is closed; soon, unless another process was stopped meanwhile."""
    deadline = time.monotonic() + _WAIT_S
    while not log.try_alone():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True

"""Browsers that are signed in: each is a file that a hash of its id names, so that its end is known to every server."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from auth.files import KeyFileError, create, digest, make_folder, read_private

GRAIN_S: Final = 60.0
"""How exactly it is known when one was last used."""


class SignIns:
    """The sign-ins of a data folder. One ends by `end`, or when it is not used for `idle_s` seconds (0: never so)."""

    def __init__(self, folder: Path, *, idle_s: float, now: Callable[[], float] = time.time) -> None:
        self._folder, self._idle_s, self._now = folder / "sign-ins", idle_s, now

    def begin(self, life_s: float, user: str = "", key_id: str | None = None) -> str:
        """The id of a new one, of a browser of that user, which came by that key. Raises KeyFileError."""
        name = secrets.token_urlsafe(16)
        try:
            make_folder(self._folder)
            self._sweep(life_s)
            with create(self._folder / digest(name), os.O_EXCL) as file:
                file.write(f"{digest(user)} {key_id or '-'}\n".encode())
            self._touch(self._folder / digest(name))
        except OSError as error:
            raise KeyFileError(f"the sign-in can't be kept: {error.strerror}") from error
        return name

    def use(self, name: str) -> bool:
        """Whether it stands. To ask is to use it. Raises KeyFileError."""
        path = self._folder / digest(name)
        try:
            unused_s = self._now() - path.stat().st_mtime
            if self._idle_s and unused_s > self._idle_s:
                return False
            if unused_s > min(GRAIN_S, self._idle_s / 10 if self._idle_s else GRAIN_S):
                self._touch(path)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise KeyFileError(f"the sign-ins can't be read: {error.strerror}") from error
        return True

    def end(self, name: str) -> None:
        """It is over, for every server. May raise OSError."""
        with suppress(FileNotFoundError):
            (self._folder / digest(name)).unlink()

    def end_all(self, *, user: str | None = None, key_id: str | None = None) -> int:
        """Ends those of a user, or those that came by a key; gives how many stood. May raise OSError.

        Those of an earlier version do not say whose they are: they end by the user's or the key's own mark.
        """
        whose, ended = None if user is None else digest(user), 0
        for path in self._all():
            with suppress(FileNotFoundError):
                theirs, _, by = _read(path).strip().partition(" ")
                if by and whose in (None, theirs) and key_id in (None, by):
                    stood = not self._idle_s or self._now() - path.stat().st_mtime <= self._idle_s
                    path.unlink()
                    ended += stood
        return ended

    def _all(self) -> list[Path]:
        try:
            return [path for path in self._folder.iterdir() if path.is_file() and not path.is_symlink()]
        except FileNotFoundError:
            return []

    def _touch(self, path: Path) -> None:
        os.utime(path, (self._now(), self._now()))

    def _sweep(self, life_s: float) -> None:
        for path in self._folder.iterdir():
            with suppress(FileNotFoundError):
                if path.stat().st_mtime + life_s < self._now():
                    path.unlink()


def _read(path: Path) -> str:
    return read_private(path).decode("ascii", errors="replace")

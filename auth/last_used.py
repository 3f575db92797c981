"""When something was last used: the time stamp of an empty file, renewed once a minute at most."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from auth.files import create, make_folder

GRAIN_S: Final = 60.0
"""How exact it is: a write for each request would cost more than it tells."""


class LastUsed:
    """The times of last use of what has an id, for all processes of a data folder. It never raises OSError."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._noted = folder, dict[str, float]()

    def note(self, name: str) -> None:
        """It is used now."""
        now = time.time()
        if now - self._noted.get(name, 0.0) < GRAIN_S:
            return
        self._noted[name] = now
        with suppress(OSError):
            try:
                os.utime(self._folder / name)
            except FileNotFoundError:
                make_folder(self._folder)
                with create(self._folder / name):
                    pass

    def at(self, name: str) -> float | None:
        """When it was last used, in seconds since 1970, to the minute; None for never."""
        with suppress(OSError):
            return (self._folder / name).stat().st_mtime
        return None

    def forget(self, name: str) -> None:
        with suppress(OSError):
            (self._folder / name).unlink()

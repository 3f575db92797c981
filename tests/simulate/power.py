"""What is left after a power cut: what was synced, and of the rest whatever happened to reach the disk."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from random import Random
from typing import Final

_SECTOR: Final = 512

_Entry = tuple[int, bool]
"""An inode, and whether it is a folder's."""


class Platter:
    """What of a folder has surely reached the disk: the content of files, and the names in folders, by inode."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        os.mkdir(folder)
        self._files: dict[int, bytes] = {}
        self._names: dict[int, dict[str, _Entry]] = {}

    def syncing(self, descriptor: int) -> Callable[[], None]:
        """To be called when the sync that begins now has come to its end: what is written meanwhile is not in it."""
        file = os.fstat(descriptor)
        if stat.S_ISDIR(file.st_mode):
            names = _names(descriptor)
            return lambda: self._names.update({file.st_ino: names})
        content = os.pread(descriptor, file.st_size, 0)
        return lambda: self._files.update({file.st_ino: content})

    def after_a_cut(self, folder: str, random: Random) -> Platter:
        """A folder as it may be found when power is back; all in it is on the disk."""
        after = Platter(folder)
        self._restore(self.folder, os.stat(self.folder).st_ino, folder, random)
        for path, _, names in os.walk(folder):
            after._names[os.stat(path).st_ino] = _names(path)
            for name in names:
                with open(f"{path}/{name}", "rb") as file:
                    after._files[os.fstat(file.fileno()).st_ino] = file.read()
        return after

    def _restore(self, source: str, inode: int, target: str, random: Random) -> None:
        safe, now = self._names.get(inode, {}), _names(source) if os.path.isdir(source) else {}
        for name in sorted(safe.keys() | now.keys()):
            kept = random.choice([safe.get(name), now.get(name)])
            if kept is None:
                continue
            place = f"{source}/{name}" if now.get(name) == kept else ""
            inode, is_folder = kept
            if is_folder:
                os.mkdir(f"{target}/{name}")
                self._restore(place, inode, f"{target}/{name}", random)
            else:
                with open(f"{target}/{name}", "wb") as file:
                    file.write(self._content(inode, place, random))

    def _content(self, inode: int, path: str, random: Random) -> bytes:
        safe, now = self._files.get(inode, b""), b""
        if path:
            with open(path, "rb") as file:
                now = file.read()
        if not now.startswith(safe):
            return random.choice([safe, now])
        length = random.randint(len(safe), len(now))
        if random.random() < 0.5:
            return now[:length]
        hole = random.choice([len(safe), -(-length // _SECTOR) * _SECTOR])  # its length was written, and not all of it
        return now[:hole].ljust(len(now), b"\0")


def _names(folder: int | str) -> dict[str, _Entry]:
    with os.scandir(folder) as entries:
        return {entry.name: (entry.inode(), entry.is_dir()) for entry in entries}

"""What is known of the sessions' files in users' folders, so that a list need not look at each of them each time.

In a folder that can be watched, only files that have changed are looked at again. In any other all are, and what a file
said holds for as long as its inode, its size and its times stay what they were.

What is known takes at most 64 MiB, of at most 1,024 folders. Those that were listed longest ago are forgotten first,
and what does not fit is read from the files each time. What a file said that was removed or changed is forgotten when
its folder is listed next.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import Final

from histories.files.watch import Watch

_BYTES: Final = 64 * 1024 * 1024
_FOLDERS: Final = 1024
_FILE_BYTES: Final = 640
"""What a file takes besides its words, or the name of a changed one: rather more than less."""

_SETTLED_S: Final = 2.0
"""A file that changed less than this ago may change again and look the same: times are coarse, inodes are reused."""


@dataclass(slots=True, eq=False)
class File:
    """A session's file as it was when it was looked at."""

    place: tuple[int, str]
    """The time of its last change in ns, which is that of its last record, and its name: lists are in this order."""

    mark: tuple[int, int, int]
    """Its inode, its size, and the time at which anything about it changed."""

    settled: bool
    """Whether all that its name may stand for later looks different."""

    words: bytes | None = None
    """What it says, if that was read (`histories.words`)."""


_place_of = attrgetter("place")


class Folder:
    """What is known of the files in one folder."""

    def __init__(self, key: tuple[int, int], watched_as: int | None) -> None:
        self.key, self.watched_as = key, watched_as
        self.files: list[File] = []
        """In order. It is replaced, never changed: who has it may go through it."""
        self.changed: set[str] | None = None
        """The names of the files to look at again; None for all that there are."""
        self.weight = 0
        self.looking = threading.Lock()

    def newest_first(self, before: tuple[int, str] | None) -> Iterator[File]:
        """The files whose place is before this one."""
        files = self.files
        end = len(files) if before is None else bisect_left(files, before, key=_place_of)
        return reversed(files[:end])


class Folders:
    """What is known of all folders. Its users may be on any thread."""

    def __init__(
        self,
        watch: Watch | None = None,
        *,
        most_bytes: int = _BYTES,
        most_folders: int = _FOLDERS,
        settled_s: float = _SETTLED_S,
    ) -> None:
        self._watch, self._most_bytes, self._most_folders = watch or Watch(), most_bytes, most_folders
        self._settled_ns = int(settled_s * 1e9)
        self._folders: OrderedDict[tuple[int, int], Folder] = OrderedDict()
        self._watched: dict[int, Folder] = {}
        self._guard = threading.Lock()  # held for moments: nobody asks the disk meanwhile
        self.weight = 0
        """About how many bytes all this takes."""

    def __len__(self) -> int:
        return len(self._folders)

    def clear(self) -> None:
        """Forgets everything, and watches nothing until a folder is looked at again."""
        with self._guard:
            self._forget_all()
            self._watch.close()

    def look(self, descriptor: int) -> Folder:
        """The open folder, with its files as they are now. Raises `OSError`."""
        with self._guard:
            self._heed_changes()
            folder = self._get(descriptor)
        with folder.looking:
            with self._guard:
                changed, folder.changed = folder.changed, None if folder.watched_as is None else set()
            try:
                files = _look_again(descriptor, folder.files, changed, time.time_ns() - self._settled_ns)
            except BaseException:
                with self._guard:
                    folder.changed = None
                raise
            with self._guard:
                self._put(folder, files)
        return folder

    def keep_words(self, folder: Folder, file: File, words: bytes) -> None:
        """Keeps what a file says, as it was read after the folder was looked at, if there is room for it."""
        with self._guard:
            if file.words is None and self._has_room(folder, len(words)):
                file.words = words
                self._weigh(folder, folder.weight + len(words))

    def _heed_changes(self) -> None:
        for number, name in self._watch.changes():
            if number is None:
                self._forget_all()
            elif (folder := self._watched.get(number)) is not None:
                if name is None:
                    self._forget(folder)
                elif folder.changed is not None and name.endswith(".jsonl") and name not in folder.changed:
                    folder.changed.add(name)
                    self._weigh(folder, folder.weight + _FILE_BYTES)

    def _get(self, descriptor: int) -> Folder:
        status = os.fstat(descriptor)
        key = (status.st_dev, status.st_ino)
        folder = self._folders.get(key)
        if folder is None:
            folder = self._folders[key] = Folder(key, self._watch.add(descriptor))
            if folder.watched_as is not None:
                self._watched[folder.watched_as] = folder
        self._folders.move_to_end(key)
        if len(self._folders) > self._most_folders:
            self._forget(next(iter(self._folders.values())))
        return folder

    def _put(self, folder: Folder, files: list[File]) -> None:
        if files is not folder.files:
            folder.files = files
            words = sum(len(file.words) for file in files if file.words is not None)
            self._weigh(folder, words + (len(files) + len(folder.changed or ())) * _FILE_BYTES)
        if not self._has_room(folder, 0):
            self._forget(folder)

    def _weigh(self, folder: Folder, weight: int) -> None:
        if self._is_known(folder):
            self.weight += weight - folder.weight
            folder.weight = weight

    def _has_room(self, folder: Folder, weight: int) -> bool:
        """Whether the folder may take so many bytes more, once others have been forgotten for it."""
        while self.weight + weight > self._most_bytes:
            oldest = next((other for other in self._folders.values() if other is not folder), None)
            if oldest is None:
                return False
            self._forget(oldest)
        return self._is_known(folder)

    def _is_known(self, folder: Folder) -> bool:
        return self._folders.get(folder.key) is folder

    def _forget(self, folder: Folder) -> None:
        if self._is_known(folder):
            del self._folders[folder.key]
            self.weight -= folder.weight
            if folder.watched_as is not None:
                del self._watched[folder.watched_as]
                self._watch.remove(folder.watched_as)

    def _forget_all(self) -> None:
        for folder in list(self._folders.values()):
            self._forget(folder)


def log_names(folder: int) -> list[str]:
    """The names of all logs in a folder."""
    return [name for name in os.listdir(folder) if name.endswith(".jsonl")]


def _look_again(folder: int, files: list[File], changed: set[str] | None, settled_ns: int) -> list[File]:
    """The files of a folder, in order, from those that were there; the same list if none has changed."""
    if changed is None:
        known = {file.place: file for file in files}
        seen = [_as_known(file, known.get(file.place)) for file in _look_at(folder, log_names(folder), settled_ns)]
    elif changed:
        seen = [file for file in files if file.place[1] not in changed]
        seen += _look_at(folder, changed, settled_ns)
    else:
        return files
    seen.sort(key=_place_of)
    return seen


def _as_known(file: File, known: File | None) -> File:
    """The file with what it is known to say, if it is still the same."""
    return known if known is not None and known.settled and known.mark == file.mark else file


def _look_at(folder: int, names: Iterable[str], settled_ns: int) -> Iterator[File]:
    """The files of these names: those that are there, and are files. They are settled if changed before that time."""
    for name in names:
        try:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            continue
        if stat.S_ISREG(status.st_mode):
            mark = (status.st_ino, status.st_size, status.st_ctime_ns)
            yield File((status.st_mtime_ns, name), mark, status.st_ctime_ns < settled_ns)

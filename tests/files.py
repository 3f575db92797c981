"""What the tests of the file store have in common."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path

from typing_extensions import override

from histories.files.disk import Disk
from histories.files.index_file import INDEX
from histories.files.names import file_name
from histories.files.store import FileStore
from tests.stores import all_sessions


def log_of(folder: Path, session: str = "s1") -> Path:
    """The file of the session, of whichever user."""
    (path,) = folder.rglob(f"{file_name(session)}.jsonl")
    return path


def folder_of(store: FileStore) -> Path:
    """The folder of alice."""
    return Path(store.path) / file_name("alice")


def bytes_of_index(store: FileStore, user: str = "alice") -> bytes:
    """All that the index of a user is made of."""
    folder = Path(store.path) / file_name(user)
    found = list[bytes]()
    for path in sorted(folder.glob(f"{INDEX}*")):
        with suppress(FileNotFoundError):  # SQLite's journal comes and goes
            found.append(path.read_bytes())
    return b"".join(found)


async def found(store: FileStore, query: str | None = None, user: str = "alice") -> list[str]:
    """The sessions that are listed, or found."""
    return [session.session_id for session in await all_sessions(store, user, limit=2, query=query)]


async def recalled(store: FileStore, query: str, session: str | None = None) -> list[str]:
    """The turn_ids that a recall gives."""
    return [one.turn.turn_id for one in await store.recall("alice", query, session_id=session)]


class WatchedDisk(Disk):
    """Counts what is asked of the disk, and holds up or fails what it is told to."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.writing, self.going = threading.Event(), threading.Event()
        self.going.set()
        self.fails = 0

    @override
    def open(self, folder: int, name: str, flags: int) -> int:
        self.calls.append("open")
        return super().open(folder, name, flags)

    @override
    def read(self, descriptor: int, size: int, offset: int) -> bytes:
        self.calls.append("read")
        return super().read(descriptor, size, offset)

    @override
    def write(self, descriptor: int, data: bytes) -> None:
        self.calls.append("write")
        self.writing.set()
        assert self.going.wait(60)
        if self.fails:
            self.fails -= 1
            raise OSError(5, "broken")
        super().write(descriptor, data)

    @override
    def unlink(self, folder: int, name: str) -> None:
        self.calls.append("unlink")
        super().unlink(folder, name)

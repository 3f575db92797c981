"""What the tests of the file store have in common."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from histories.files.names import file_name
from histories.files.store import FileStore


def log_of(folder: Path, session: str = "s1") -> Path:
    """The file of the session, of whichever user."""
    (path,) = folder.rglob(f"{file_name(session)}.jsonl")
    return path


def folder_of(store: FileStore) -> Path:
    """The folder of alice."""
    return Path(store.path) / file_name("alice")


def no_descriptor_is_left_open() -> Iterator[None]:
    """The body of a fixture that holds a test to closing what it opens."""
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) <= before + 2  # those of an event loop

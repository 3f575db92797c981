"""What the tests of the file store have in common."""

from __future__ import annotations

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

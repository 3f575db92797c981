"""The file store of a test, in a folder of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from histories.base import SessionHistory
from histories.files.store import FileStore


@pytest.fixture
async def store(tmp_path: Path) -> FileStore:
    return FileStore(tmp_path / "histories", fsync=False)


@pytest.fixture
def history(store: FileStore) -> SessionHistory:
    return store.history("alice", "s1")


@pytest.fixture
def closes_what_it_opens() -> Iterator[None]:
    """Holds a test to leaving no descriptor open."""
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) <= before + 2  # those of an event loop

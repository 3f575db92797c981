"""Zeros that are not used yet take no memory, and stay zeros; what is no row of zeros is left as it is."""

from __future__ import annotations

import mmap
import os
import re
from pathlib import Path

import pytest

from chat_models.unused_memory import give_back, mappings

MB = 1024 * 1024

pytestmark = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="the system can't tell what is mapped")


def resident_mb() -> float:
    found = re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def test_a_long_row_of_zeros_takes_no_memory_until_it_is_written_to() -> None:
    before = mappings()
    with mmap.mmap(-1, 96 * MB, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.write(bytes(96 * MB))
        memory[64 * MB : 64 * MB + 5] = b"hello"
        full = resident_mb()
        assert give_back(before) >= 60 * MB
        assert full - resident_mb() > 55
        assert memory[64 * MB : 64 * MB + 5] == b"hello"
        memory[64 * MB : 64 * MB + 5] = bytes(5)
        memory[10 * MB] = 7
        assert memory[10 * MB] == 7
        memory[10 * MB] = 0
        assert memory[:] == bytes(96 * MB)


def test_what_was_there_before_and_what_holds_anything_is_let_alone() -> None:
    with mmap.mmap(-1, 64 * MB, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.write(bytes(64 * MB))
        assert give_back(mappings()) == 0
    before, noise = mappings(), os.urandom(4096)
    with mmap.mmap(-1, 64 * MB, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        for at in range(0, 64 * MB, MB):
            memory[at : at + 4096] = noise
        give_back(before)
        assert all(memory[at : at + 4096] == noise for at in range(0, 64 * MB, MB))


def test_where_the_system_can_not_tell_nothing_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chat_models.unused_memory._MAPS", Path("/nowhere/maps"))
    assert mappings() == frozenset()
    assert give_back(frozenset()) == 0

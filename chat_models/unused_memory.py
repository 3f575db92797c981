"""Memory that a library has filled with zeros and not used yet goes back to the system, until something is written.

llama.cpp clears all that its replies may ever need when it loads a model: 188 MB, of which a conversation of usual
length uses a tenth. Pages of zeros that are given back read as zeros all the same.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_MAPS: Final = Path("/proc/self/maps")
_PIECE: Final = 2 * 1024 * 1024
_LEAST: Final = 16 * _PIECE
"""Only so long a row of zeros counts: no heap of another library has one, so that nobody writes there meanwhile."""

_DONTNEED, _NOHUGEPAGE = 4, 15
"""Of Linux's madvise(2). Large pages would bring back 2 MB where a token writes 400 bytes."""


def mappings() -> frozenset[tuple[int, int]]:
    """The process's writable anonymous memory, as first and last address; nothing where the system can't tell."""
    try:
        lines = _MAPS.read_text().splitlines()
    except OSError:
        return frozenset()
    fields = [line.split() for line in lines]
    places = [one[0].split("-") for one in fields if one[1] == "rw-p" and len(one) == 5]
    return frozenset((int(first, 16), int(last, 16)) for first, last in places)


def give_back(before: frozenset[tuple[int, int]]) -> int:
    """Gives back long rows of zeros in what has been mapped since `before`, and tells how many bytes that were.

    Nobody may be about to write there.
    """
    given = 0
    libc = ctypes.CDLL(None)
    for first, last in mappings() - before:
        for start, size in _rows_of_zeros(first, last) if last - first >= _LEAST else ():
            libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), _NOHUGEPAGE)
            if libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), _DONTNEED) == 0:
                given += size
    return given


def _rows_of_zeros(first: int, last: int) -> Iterator[tuple[int, int]]:
    """Start and size of each row of zeros that is long enough, in whole pieces."""
    zeros, start = bytes(_PIECE), first
    compare = ctypes.CDLL(None).memcmp
    for piece in range(first, last, _PIECE):
        size = min(_PIECE, last - piece)
        if size == _PIECE and compare(ctypes.c_void_p(piece), zeros, ctypes.c_size_t(_PIECE)) == 0:
            continue
        if piece - start >= _LEAST:
            yield start, piece - start
        start = piece + _PIECE
    if last - start >= _LEAST:
        yield start, last - start

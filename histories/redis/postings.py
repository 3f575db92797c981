"""Which turns of a session have which words, in memory: a recall in a long session looks at those alone that matter."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections.abc import Sequence
from typing import Final, Protocol

from histories.search import Index

_AT_LEAST: Final = 200
"""So many turns come in each time, so that one recall after the other gets on."""


class Said(Protocol):
    """A turn of a line: what it says, and its number."""

    @property
    def number(self) -> int: ...
    @property
    def turn_id(self) -> str: ...
    @property
    def is_complete(self) -> bool: ...
    @property
    def has_ended(self) -> bool: ...
    @property
    def text(self) -> str: ...


class Postings:
    """Of one line, to which turns are only added: at its end, and, as more of it is read, at its beginning.

    Its users may be on any thread.
    """

    def __init__(self) -> None:
        self._index = Index[str]()
        self._low, self._high = 1, 0  # all from the one number to the other is in the index
        self._guard = threading.Lock()

    def rank(self, said: Sequence[Said], query: str, limit: int, until: float) -> list[tuple[str, float]]:
        """The turn_ids of complete turns of the line that have words of the query, with their scores, best first.

        `said` is the line, oldest first. What is not in the index by `until` (of `time.monotonic`) is left out for now,
        the oldest of it first.
        """
        with self._guard:
            self._read_on(said, until)
            return self._index.rank(query, limit=limit)

    def _read_on(self, said: Sequence[Said], until: float) -> None:
        ended = len(said)
        while ended and not said[ended - 1].has_ended:
            ended -= 1
        if not ended:
            return
        newest = said[ended - 1].number
        if not len(self._index):
            self._low, self._high = newest + 1, newest
        for one in said[bisect_left(said, self._high + 1, key=_number) : ended]:
            self._add(one)
        self._high, added = newest, 0
        for one in reversed(said[: bisect_left(said, self._low, key=_number)]):
            if added >= _AT_LEAST and time.monotonic() >= until:
                break
            self._add(one)
            self._low, added = one.number, added + 1

    def _add(self, one: Said) -> None:
        if one.is_complete and one.turn_id not in self._index:
            self._index.add(one.turn_id, one.text)


def _number(one: Said) -> int:
    return one.number

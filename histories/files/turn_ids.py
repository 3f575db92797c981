"""Which turn_ids are on the record of a session: remembered, so that a new one need not be looked for each time."""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final, overload

from histories.files.log import Log

_TURN: Final = re.compile(rb'"r":"turn","id":("(?:[^"\\]|\\.)*")')
_SCAN: Final = 1024 * 1024
_MARK: Final = 64
"""So many bytes at the end of a record, with its checksum, tell whether a file is the one that was read before."""


@dataclass
class _Known:
    ids: set[int] = field(default_factory=set)
    size: int = 0
    mark: bytes = b""

    @property
    def weight(self) -> int:
        return 8 + len(self.ids)


class TurnIds:
    """What the logs that were used last mention; a log is read once, and from then on just what was added to it."""

    def __init__(self, most: int = 200_000) -> None:
        self._most, self._weight = most, 0
        self._logs: OrderedDict[tuple[int, int, str], _Known] = OrderedDict()
        self._guard = threading.Lock()

    def mention(self, log: Log, turn_id: str) -> bool:
        """Whether a turn of that id may be in the log; False is certain. For who sees to it that nobody writes."""
        known = self._take(log.identity)
        if log.disk.read(log.descriptor, len(known.mark), known.size - len(known.mark)) != known.mark:
            known = _Known()  # another file that came by the same number
        self._read_on(log, known)
        self._put(log.identity, known)
        return _hash(turn_id) in known.ids

    def recall(self, log: Log, size: int, turn_id: str) -> bool | None:
        """The same of an open log of this size without a look at it; None if all of it is not known."""
        with self._guard:
            known = self._logs.get(log.identity)
            return _hash(turn_id) in known.ids if known is not None and known.size == size else None

    def note(self, log: Log, size: int, lines: bytes) -> None:
        """What was just appended to a log that had this size; of no matter if that was not all known."""
        known = self._take(log.identity, size)
        if known is not None:
            self._learn(known, lines)
            self._put(log.identity, known)

    @overload
    def _take(self, key: tuple[int, int, str]) -> _Known: ...
    @overload
    def _take(self, key: tuple[int, int, str], size: int) -> _Known | None: ...
    def _take(self, key: tuple[int, int, str], size: int | None = None) -> _Known | None:
        """What is known of a log, which is nobody else's then; with a size, only if it is all of that."""
        with self._guard:
            known = self._logs.get(key)
            if size is not None and (known is None or known.size != size):
                return None
            self._logs.pop(key, None)
            self._weight -= known.weight if known else 0
        return known or _Known()

    def _put(self, key: tuple[int, int, str], known: _Known) -> None:
        with self._guard:
            self._logs[key] = known
            self._weight += known.weight
            while self._weight > self._most and len(self._logs) > 1:
                self._weight -= self._logs.popitem(last=False)[1].weight

    def _read_on(self, log: Log, known: _Known) -> None:
        part, offset = b"", known.size
        while more := log.disk.read(log.descriptor, _SCAN, offset):
            part, offset = part + more, offset + len(more)
            end = part.rfind(b"\n") + 1
            if end:
                self._learn(known, part[:end])
                part = part[end:]

    @staticmethod
    def _learn(known: _Known, lines: bytes) -> None:
        known.ids.update(hash(found[1]) for found in _TURN.finditer(lines))
        known.mark, known.size = (known.mark + lines)[-_MARK:], known.size + len(lines)


def _hash(turn_id: str) -> int:
    return hash(json.dumps(turn_id).encode("ascii"))

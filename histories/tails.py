"""What the next turn needs of the sessions that were used last, so that the tail of a file is not parsed each time."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Final

from langchain_core.messages import BaseMessage

from histories.log import Log
from histories.records import Sums

_MARK: Final = 64
"""So many bytes at the end of a record, with its checksum, tell whether a file is the one that was left."""

_SESSIONS: Final = 256
_MESSAGES: Final = 400
"""Of each session. What is shown of a longer past is read from the file."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A turn that a model is shown: the token count before it, and its messages."""

    tokens_before: int
    messages: Sequence[BaseMessage]


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of a log whose last turn has ended: its sums, and all turns that are shown from the count `floor` on."""

    sums: Sums
    floor: int
    shown: Sequence[Shown]

    def past(self, floor: int) -> list[BaseMessage]:
        """The messages from a token count on. They are copies: chains do with them what they like."""
        return [_copy(m) for turn in self.shown if turn.tokens_before >= floor for m in turn.messages]


def _copy(message: BaseMessage) -> BaseMessage:
    """A copy that shares nothing that can be changed. Of most messages, all but the text is empty."""
    copy = message.model_copy()
    for name, value in copy.__dict__.items():
        if isinstance(value, (dict, list)):
            copy.__dict__[name] = deepcopy(value) if value else type(value)()
    return copy


class Tails:
    """The tails of the logs that were written last, each good as long as nobody else has written to its file."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._tails: OrderedDict[str, tuple[int, bytes, Tail]] = OrderedDict()

    def get(self, key: str, log: Log) -> Tail | None:
        """The tail of a log, unless it has changed since it was kept."""
        with self._guard:
            kept = self._tails.pop(key, None)
        if kept is None or kept[:2] != _mark(log):
            return None
        return kept[2]

    def keep(self, key: str, log: Log, tail: Tail) -> None:
        """Keeps the tail of a log as it is now."""
        if sum(len(turn.messages) for turn in tail.shown) > _MESSAGES:
            return
        size, mark = _mark(log)
        with self._guard:
            self._tails[key] = (size, mark, tail)
            if len(self._tails) > _SESSIONS:
                self._tails.popitem(last=False)


def _mark(log: Log) -> tuple[int, bytes]:
    size = log.size()
    return size, log.disk.read(log.descriptor, _MARK, max(0, size - _MARK))

"""Turns on their way out: pages bounded in bytes, and whole sessions that are never in memory whole."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

from api.sessions.models import turn_info
from api.slow_lane import SlowLane
from histories.base import SessionHistory, Turn
from turns.shares import ShareRules, Shares
from turns.sizes import size_of

PAGE_BYTES: Final = 1024 * 1024
"""About how large a page of turns is at most, unless one turn alone is larger."""

_FIRST, _MOST = 2, 200
"""How many turns are read from the store at first, when nobody knows how long they are, and later."""

_GROWTH: Final = 4
"""How many times as many as before: short turns may be followed by long ones."""

_MANY_MESSAGES: Final = 64
_LONG: Final = 256 * 1024
"""More messages than these, or longer ones, are made JSON off the event loop."""

_reading = Shares(ShareRules(at_once=32, each=1), "requests for turns")
"""Who reads turns now. A large one takes several times its size in memory, and Python's lock for a tenth of a second at
a time: of one user's, one after another."""

_pages = Shares(ShareRules(at_once=32, each=2), "requests for turns")
"""Whose pages are made now. A page comes together in slices, between which others read: a thousand of one user's, each
with some of its slices, would be in memory at once."""

_SPOOL_BYTES: Final = 1024 * 1024
_WRITE_BYTES: Final = 64 * 1024


def reading(user: str) -> AbstractAsyncContextManager[None]:
    """To be held while turns are read from the store, and written down."""
    return _reading.share(user)


def is_long(turns: Sequence[Turn]) -> bool:
    """Whether it takes long to write them down."""
    if sum(len(turn.input) + len(turn.output) for turn in turns) > _MANY_MESSAGES:
        return True
    return sum(size_of([*turn.input, *turn.output]) for turn in turns) > _LONG


async def one_turn(turn: Turn, lane: SlowLane) -> bytes:
    """A turn as JSON."""
    if is_long([turn]):
        return await lane.run(lambda: to_json(turn_info(turn)))
    return to_json(turn_info(turn))


def to_json(content: Any) -> bytes:
    """JSON in ASCII: messages may hold lone surrogates, which UTF-8 has not. What JSON has no number for is null."""
    try:
        text = json.dumps(content, allow_nan=False)
    except ValueError:
        text = json.dumps(_finite(content))
    return text.encode("ascii")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Slices:
    """A session's turns, written down by `encode`, in slices from the newest to the oldest: none takes long."""

    def __init__(
        self, history: SessionHistory, lane: SlowLane, encode: Callable[[Turn], bytes], *, slice_bytes: int = 256 * 1024
    ) -> None:
        self._history, self._lane, self._encode, self._slice_bytes = history, lane, encode, slice_bytes
        self.next: str | None = None
        """The cursor of what follows the last slice."""

    async def read(self, before: str | None = None, limit: int | None = None) -> AsyncIterator[list[bytes]]:
        """The turns before the cursor, each slice the oldest first, until there are `limit` of them."""
        size, left = _FIRST, math.inf if limit is None else limit
        while left > 0:
            async with reading(self._history.user_id):
                page = await self._history.turns(limit=min(size, int(min(left, _MOST))), before=before)
                texts = await self._encoded(page.items)
            self.next = before = page.next
            del page
            yield texts
            if before is None:
                return
            left -= len(texts)
            average = sum(map(len, texts)) / max(1, len(texts))
            size = max(1, min(_MOST, _GROWTH * size, int(self._slice_bytes / max(1.0, average))))

    async def _encoded(self, turns: Sequence[Turn]) -> list[bytes]:
        if not is_long(turns):
            return [self._encode(turn) for turn in turns]
        return await self._lane.run(lambda: [self._encode(turn) for turn in turns])


async def page_of_turns(history: SessionHistory, lane: SlowLane, *, limit: int, before: str | None) -> bytes | None:
    """A page as JSON: at most `limit` turns, and no more than PAGE_BYTES if they are several. None if it is empty."""
    slices, texts = Slices(history, lane, lambda turn: to_json(turn_info(turn))), list[bytes]()
    async with _pages.share(history.user_id):
        async for older in slices.read(before, limit):
            texts = older + texts
            if sum(map(len, texts)) >= PAGE_BYTES:
                break
    if not texts:
        return None
    return b'{"turns": [%s], "next": %s}' % (b", ".join(texts), to_json(slices.next))


class Spool:
    """A session's turns, written down and put aside, on the disk if they are many."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES)  # noqa: SIM115 - closed when it was read
        self._places: list[tuple[int, int]] = []

    @classmethod
    async def of(cls, history: SessionHistory, lane: SlowLane, encode: Callable[[Turn], bytes]) -> Spool:
        """All turns. Whatever goes wrong with the store is raised here, before anything was sent."""
        spool = cls()
        async for texts in Slices(history, lane, encode).read():
            for text in reversed(texts):
                spool._places.append((spool._file.tell(), len(text)))
                spool._file.write(text)
        return spool

    def pieces(self, head: bytes, joint: Callable[[int], bytes], tail: bytes) -> Iterator[bytes]:
        """Head, turns and tail, the oldest turn first; `joint` gives what stands before the turn of a number from 0.

        The spool is gone after it.
        """
        buffer = bytearray(head)
        with self._file:
            for number, (offset, length) in enumerate(reversed(self._places)):
                self._file.seek(offset)
                buffer += joint(number)
                while length:  # a turn may be as long as it likes
                    piece = self._file.read(min(length, _WRITE_BYTES))
                    length -= len(piece)
                    buffer += piece
                    if len(buffer) >= _WRITE_BYTES:
                        yield bytes(buffer)
                        buffer.clear()
        yield bytes(buffer + tail)

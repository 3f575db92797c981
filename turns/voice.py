"""What a running turn says, piece by piece, for any number of readers; none hears a piece before the store has it."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from typing import Any, Final

from pydantic import BaseModel

from histories.base import Event, OpenTurn, TurnDetails, jsonable, text_lengths
from turns.merging import Several, merged
from turns.pieces import Pieces

log = logging.getLogger("recollect.turns")

PULSE_S: Final = 15.0
"""Every so many seconds a stream shows that it is alive: sse-starlette's interval."""

JOURNAL_S: Final = 0.05
"""The first piece is journaled at once; then what has gathered, every so often. A write for each token costs more than
the token."""

_BREATH: Final = 4
"""Rounds of the event loop after the first piece in which a chain that says all in one breath comes to its end."""

_LONGEST_S: Final = 0.5
"""A write that took long, since many streams have one, is followed by as long a rest, at the most so long: streams
that are too many for a machine bring more tokens with each write, and are not late by more and more."""

Encode = Callable[[Any], bytes]
"""A chunk as clients get it: JSON on one line."""


def encode(chunk: Any) -> bytes:
    """The JSON of a chunk, where no server says how its clients get it."""
    value = chunk.model_dump(warnings=False) if isinstance(chunk, BaseModel) else chunk
    return json.dumps(jsonable(value), separators=(",", ":")).encode("ascii")


class Voice:
    """The pieces of one turn, in their order.

    `journals` is false for a turn that says everything at once: when its only piece is there, so is its end. `hear` is
    told of each piece at once, before it is journaled: for who listens to each step of a chain, which no gate holds.
    """

    def __init__(self, encode: Encode, *, journals: bool, hear: Callable[[Any], None] | None = None) -> None:
        self.chunks = Pieces(encode)
        self._encode, self._journals, self._hear = encode, journals, hear
        self._data: list[bytes | None] = []
        """Those that were journaled; None for one whose bytes are easily made again."""
        self._released = 0
        self._turn: OpenTurn | None = None
        self._writer: asyncio.Task[None] | None = None
        self._is_closing = False
        self._pause: asyncio.Future[None] | None = None
        self._readers: set[asyncio.Future[None]] = set()
        self._is_over = False

    def output(self) -> Any:
        """The pieces as one output; the only one as it is, several of different kinds as a list."""
        output = self.chunks[0] if len(self.chunks) == 1 else merged(self.chunks.joined())
        return list(output.outputs) if isinstance(output, Several) else output

    # For the turn that speaks.

    def journal_to(self, turn: OpenTurn) -> None:
        """From now on the pieces are journaled, and released when they are."""
        if self._journals:
            self._turn = turn

    def say(self, chunk: Any) -> None:
        self.chunks.append(chunk)
        if self._hear is not None:
            self._hear(chunk)
        if not self._journals:
            return  # released when the turn has ended
        if self._turn is None:
            self._release(len(self.chunks))
        if self._turn is not None and self._writer is None:
            self._writer = asyncio.create_task(self._write(self._turn), name="recollect-journal")

    @property
    def is_writing(self) -> bool:
        """Whether something is being written to the journal, which `close` waits for."""
        return self._writer is not None

    def close(self) -> Coroutine[Any, Any, None]:
        """Begins no more writes to the journal; what it gives returns when nothing is written any more.

        What the journal does not have is released with the end: so a reply that was said in one breath is written once.
        """
        self._is_closing = True
        if self._pause is not None:
            _wake(self._pause)
        return self._written()

    async def _written(self) -> None:
        if self._writer is not None:
            await asyncio.wait([self._writer])

    def finish(self, *, kept: bool = True) -> None:
        """The turn has ended, and all that it said is on the record (or, if that was not `kept`, is not to be told)."""
        self._is_over = True
        self._release(len(self.chunks) if kept else self._released)

    def _encoded(self, place: int) -> bytes:
        """A chunk as clients get it; one that a server can't write down, as well as can be."""
        try:
            return self.chunks.encoded(place)
        except Exception:  # noqa: BLE001 - a chain may say anything
            return encode(self.chunks[place])

    def details(self) -> TurnDetails:
        """What the record needs to tell the rest to who has heard some of it."""
        if not self._journals or len(self.chunks) < 2:
            return TurnDetails()
        details = TurnDetails(events=len(self.chunks))
        lengths = self._text_lengths()
        if lengths:
            details["lengths"] = lengths
        return details

    def _text_lengths(self) -> list[int]:
        """`text_lengths` of all events; what is plainly text is not read again as JSON."""
        lengths = list[int]()
        for place in range(len(self.chunks)):
            text = self.chunks.text(place)
            some = text_lengths(self.data(place, place + 1)) if text is None else [len(text)]
            if not some:
                break
            lengths += some
        return lengths

    async def _write(self, turn: OpenTurn) -> None:
        """Journals what is there, and after a moment what has come meanwhile, until the turn is about to end."""
        if not self._data:
            for _ in range(_BREATH):
                await asyncio.sleep(0)
        loop = asyncio.get_running_loop()
        while len(self._data) < len(self.chunks) and not self._is_closing:
            began = loop.time()
            places = range(len(self._data), len(self.chunks))
            data = [self._encoded(place) for place in places]
            try:
                await turn.journal(data)
            except Exception as error:  # noqa: BLE001 - whatever it is, the turn goes on
                # Nothing is said any more that the record might not hold; the end tells all, or that it was lost.
                log.warning("turn %s: what it says can't be journaled: %s", turn.turn_id, error)
                return
            is_short = self.chunks.is_short
            self._data += [None if is_short(place) else one for place, one in zip(places, data, strict=True)]
            self._release(len(self._data))
            await self._rest(max(JOURNAL_S, min(loop.time() - began, _LONGEST_S)))
        self._writer = None

    async def _rest(self, seconds: float) -> None:
        """Waits so long, or until the turn is about to end."""
        if not self._is_closing:
            loop = asyncio.get_running_loop()
            self._pause = loop.create_future()
            timer = loop.call_later(seconds, _wake, self._pause)
            try:
                await self._pause
            finally:
                timer.cancel()
                self._pause = None

    def _release(self, upto: int) -> None:
        self._released = max(upto, self._released)
        self.wake()

    # For who hears it.

    def data(self, start: int, end: int) -> list[bytes]:
        """Pieces as clients get them."""
        kept = self._data[start:end]
        made = [self._encoded(start + place) if data is None else data for place, data in enumerate(kept)]
        return made + [self._encoded(place) for place in range(start + len(kept), min(end, len(self.chunks)))]

    def wake(self) -> None:
        """Lets all who wait look again."""
        readers, self._readers = self._readers, set()
        for reader in readers:
            if not reader.done():
                reader.set_result(None)

    async def read(self, after: int = -1) -> AsyncGenerator[tuple[int, int], None]:
        """From which piece to before which one there is something to hear; ends when the turn has ended.

        Every PULSE_S without anything, there are none between the two: who listens can show that it lives.
        """
        position, loop = after + 1, asyncio.get_running_loop()
        while True:
            if position < self._released:
                start, position = position, self._released
                yield start, position
            elif self._is_over:
                return
            else:
                news: asyncio.Future[None] = loop.create_future()
                self._readers.add(news)
                pulse = loop.call_later(PULSE_S, _wake, news)
                try:
                    await news
                finally:
                    pulse.cancel()
                    self._readers.discard(news)
                if position >= self._released and not self._is_over:
                    yield position, position


def _wake(news: asyncio.Future[None]) -> None:
    if not news.done():
        news.set_result(None)


def events_of(voice: Voice, start: int, end: int) -> Sequence[Event]:
    return [Event(start + place, data) for place, data in enumerate(voice.data(start, end))]

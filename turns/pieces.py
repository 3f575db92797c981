"""All that a turn says, piece by piece, in little room: of a long stream of text no message is kept for each token.

A message of LangChain's takes more than a kilobyte, whatever it says. Pieces that are alike but for their text are
kept as texts, and made messages again for who asks for them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, overload
from uuid import uuid4

from langchain_core.messages import AIMessageChunk

from histories.base import copied

_ALIKE: Final = 8
"""So many in a row are kept as they are before the next ones are kept as texts: most replies are no longer streams."""

_MARK: Final = uuid4().hex
"""A text that no piece has."""


@dataclass(slots=True)
class _Run:
    """Pieces that are like `first` but for their text: from a number on to before another one.

    `frame` is what stands before and after the text in their JSON, where that is the same for all; None: not known.
    """

    start: int
    end: int
    first: AIMessageChunk
    frame: tuple[bytes, bytes] | None


class Pieces:
    """A list of pieces, to which others are added. `encode` makes the JSON that clients get of one."""

    def __init__(self, encode: Callable[[Any], bytes]) -> None:
        self._encode = encode
        self._kept: list[Any] = []
        self._runs: list[_Run] = []
        self._last: AIMessageChunk | None = None
        self._rest: dict[str, Any] = {}
        self._alike = 0

    def append(self, piece: Any) -> None:
        if type(piece) is AIMessageChunk and self._is_like_the_last(piece):
            run = self._runs[-1] if self._runs else None
            if run is not None and run.end == len(self._kept):
                run.end += 1
                self._kept.append(piece.content)
                return
            if self._alike == _ALIKE and text_alone(piece) is not None and _adds_text_alone(piece):
                self._runs.append(_Run(len(self._kept), len(self._kept) + 1, piece, frame_of(piece, self._encode)))
                self._kept.append(piece.content)
                return
        self._kept.append(piece)

    def extend(self, pieces: Iterable[Any]) -> None:
        for piece in pieces:
            self.append(piece)

    def _is_like_the_last(self, piece: AIMessageChunk) -> bool:
        """Whether it differs in its text alone from the one before it; counts how many in a row do."""
        rest = {**piece.__dict__, "content": ""}
        if type(piece.content) is str and rest == self._rest and piece.model_extra == (self._last or piece).model_extra:
            self._alike += 1
            return True
        self._last, self._rest, self._alike = piece, rest, 0
        return False

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[Any]:
        return iter(self[:])

    @overload
    def __getitem__(self, place: int) -> Any: ...
    @overload
    def __getitem__(self, place: slice) -> list[Any]: ...
    def __getitem__(self, place: int | slice) -> Any:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self._kept)))]
        run = self._run_of(place)
        return self._kept[place] if run is None else with_text(run.first, self._kept[place])

    def _run_of(self, place: int) -> _Run | None:
        after = bisect_right(self._runs, place, key=lambda run: run.start)
        run = self._runs[after - 1] if after else None
        return run if run is not None and place < run.end else None

    def encoded(self, place: int) -> bytes:
        """The JSON of a piece. Raises what the encoder raises."""
        run = self._run_of(place)
        if run is None or run.frame is None:
            return self._encode(self[place])
        before, after = run.frame
        return before + self._encode(self._kept[place]) + after

    def is_short(self, place: int) -> bool:
        """Whether the JSON of this piece is easily made again."""
        run = self._run_of(place)
        return run is not None and run.frame is not None

    def joined(self) -> list[Any]:
        """The same with each run of texts as one piece: it comes to the same when all are put together."""
        pieces, place = list[Any](), 0
        for run in self._runs:
            pieces += self._kept[place : run.start]
            pieces.append(with_text(run.first, "".join(self._kept[run.start : run.end])))
            place = run.end
        return pieces + self._kept[place:]

    def text(self, place: int) -> str | None:
        """The text of a piece that plainly says nothing else."""
        return self._kept[place] if self._run_of(place) is not None else text_alone(self._kept[place])


def frame_of(piece: AIMessageChunk, encode: Callable[[Any], bytes]) -> tuple[bytes, bytes] | None:
    """What stands before and after the text in a piece's JSON; None if that can't be told."""
    try:
        before, _, after = encode(with_text(piece, _MARK)).partition(b'"%s"' % _MARK.encode())
        is_frame = before + encode(piece.content) + after == encode(piece)
    except Exception:  # noqa: BLE001 - each is encoded as well as can be, then
        return None
    return (before, after) if is_frame else None


def text_alone(piece: Any) -> str | None:
    """The text of a piece that plainly says nothing else."""
    if type(piece) is AIMessageChunk:
        told = piece.tool_call_chunks or piece.additional_kwargs or piece.usage_metadata
        piece = None if told or "finish_reason" in piece.response_metadata else piece.content
    return piece if type(piece) is str else None


def _adds_text_alone(piece: AIMessageChunk) -> bool:
    """Whether two like it together are like it, but for the text."""
    both = piece + piece
    return type(both) is AIMessageChunk and both == with_text(piece, f"{piece.content}{piece.content}")


def with_text(piece: AIMessageChunk, text: str) -> AIMessageChunk:
    made = copied(piece)
    made.__dict__["content"] = text
    return made  # type: ignore[return-value]  # of the same class

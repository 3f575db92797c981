"""What was said in sessions, for search and recall: read from Redis once, then as much as is new.

Postings in Redis would take at least as much of its memory as the histories (docs/redis.md has the figures). So each
process keeps the texts that it has looked at, within a bound, and looks through them from the newest session on.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from histories.base import Hit, Recalled, Session, SessionNotFound, TurnNotFound, TurnStatus
from histories.redis.history import NEWEST, RedisHistory
from histories.redis.postings import Postings
from histories.redis.records import read_text
from histories.search import Text, fold, hits, rank, terms, words

_KEPT: Final = 32 * 1024 * 1024
"""How many characters of texts a process keeps."""
_RECALL_S: Final = 0.25
"""How long a recall reads sessions, newest first: a turn waits for it."""
_RANKED: Final = 2000
"""How many texts a recall compares at most, newest first."""
_BATCH: Final = 200
_BATCH_BYTES: Final = 512 * 1024


@dataclass(frozen=True, slots=True)
class _Said:
    """A turn's text; `folded` is what a word must stand in to stand in the text."""

    number: int
    turn_id: str
    is_complete: bool
    has_ended: bool
    text: str
    folded: str


@dataclass(frozen=True, slots=True)
class _Line:
    """The texts of a session's shown line, oldest first, from the turn `older` on (0: all of them).

    `shape` changes when turns in its midst are taken away.
    """

    updated_at: datetime
    shape: str
    said: Sequence[_Said]
    older: int
    postings: Postings = field(default_factory=Postings)
    size: int = 0


class Texts:
    """The texts that this process has looked at; those that were not looked at for longest go first."""

    def __init__(self) -> None:
        self._lines: OrderedDict[str, _Line] = OrderedDict()
        self._size = 0

    async def find(
        self, history: RedisHistory, session: Session, query: str, until: float = math.inf
    ) -> list[Hit] | None:
        """Where the query's words stand in the session, newest first; None if one of them does not.

        Raises `TimeoutError` if that can't be told of as much as can be read until then: the next one reads on.
        """
        wanted = set(words(query))
        line = await self._line(history, session, until)
        title, said = fold(session.title), line.said
        found: list[Hit] | None = None
        if wanted and all(word in title or any(word in one.folded for one in said) for word in wanted):
            texts = [Text(one.turn_id, one.text) for one in said if any(word in one.folded for word in wanted)]
            found = await asyncio.to_thread(hits, query, session.title, texts)
        if wanted and found is None and line.older:
            raise TimeoutError
        return found

    async def recall(
        self,
        sessions: Iterable[tuple[RedisHistory, Session]],
        query: str,
        exclude: Collection[tuple[str, str]],
        limit: int,
    ) -> list[Recalled]:
        """The complete turns of these sessions that bear on the query, best first."""
        wanted, loop = set(terms(query)), asyncio.get_running_loop()
        until, texts = loop.time() + _RECALL_S, list[Text[tuple[RedisHistory, str]]]()
        for history, session in sessions:
            for one in reversed((await self._line(history, session, until)).said):
                if one.is_complete and any(word in one.folded for word in wanted):
                    texts.append(Text((history, one.turn_id), one.text))
            if loop.time() > until or len(texts) > _RANKED:
                break
        return await _turns(await asyncio.to_thread(rank, query, texts[:_RANKED]), exclude, limit)

    async def recall_in(
        self, history: RedisHistory, session: Session, query: str, exclude: Collection[tuple[str, str]], limit: int
    ) -> list[Recalled]:
        """The same of one session, however long it is."""
        until = time.monotonic() + _RECALL_S
        line = await self._line(history, session, asyncio.get_running_loop().time() + _RECALL_S)
        ranked = await asyncio.to_thread(line.postings.rank, line.said, query, limit + len(exclude), until)
        return await _turns([((history, turn_id), score) for turn_id, score in ranked], exclude, limit)

    async def _line(self, history: RedisHistory, session: Session, until: float) -> _Line:
        """The texts of the shown line, or as many of the newest of them as can be read until then."""
        name = f"{history.key}\0{session.created_at}"  # a later session of the same name is another one
        line = self._lines.pop(name, None)
        self._size -= line.size if line is not None else 0
        if line is None or line.updated_at != session.updated_at:
            line = await _renewed(history, session, line, until)
        if line.older:
            line = await _extended(history, line, until)
        self._lines[name] = line
        self._size += line.size
        while self._size > _KEPT and len(self._lines) > 1:
            self._size -= self._lines.popitem(last=False)[1].size
        return line


async def _turns(
    ranked: Iterable[tuple[tuple[RedisHistory, str], float]], exclude: Collection[tuple[str, str]], limit: int
) -> list[Recalled]:
    """The turns of a ranking: those that are still there, without the excluded ones."""
    found = list[Recalled]()
    for (history, turn_id), score in ranked:
        if len(found) == limit:
            break
        if (history.session_id, turn_id) not in exclude:
            with suppress(SessionNotFound, TurnNotFound):  # deleted in this moment
                found.append(Recalled(history.session_id, await history.turn(turn_id), score))
    return found


def _size(said: Iterable[_Said]) -> int:
    """How much of what is kept these are, with the words of theirs that are looked up."""
    return sum(2 * len(one.text) + len(one.folded) + 400 for one in said)


async def _renewed(history: RedisHistory, session: Session, line: _Line | None, until: float) -> _Line:
    """The line as it is now: its newest texts, and what is known of those before them."""
    shape, loop = await history.shape(), asyncio.get_running_loop()
    known = line.said if line is not None and line.shape == shape else ()
    places = {one.number: place for place, one in enumerate(known) if one.has_ended}
    newer, older = list[_Said](), NEWEST
    while older and (older == NEWEST or loop.time() < until):
        older, page = await _page(history, older)
        for one in reversed(page):
            if line is not None and one.number in places:
                return _grown(line, known[: places[one.number] + 1], newer[::-1], session.updated_at)
            newer.append(one)
    return _Line(session.updated_at, shape, newer[::-1], older, size=_size(newer))


def _grown(line: _Line, kept: Sequence[_Said], newer: Sequence[_Said], updated_at: datetime) -> _Line:
    """The line with newer turns after those that are kept of it."""
    gone = line.said[len(kept) :]
    postings = Postings() if any(one.has_ended for one in gone) else line.postings
    size = line.size - _size(gone) + _size(newer)
    return _Line(updated_at, line.shape, [*kept, *newer], line.older, postings, size)


async def _extended(history: RedisHistory, line: _Line, until: float) -> _Line:
    """The line with the texts before those that are known: some of them in any case, so that each look gets on."""
    pages, older, loop = [line.said], line.older, asyncio.get_running_loop()
    while older and (len(pages) == 1 or loop.time() < until):
        older, page = await _page(history, older)
        pages.append(page)
    said = [one for page in reversed(pages) for one in page]
    size = line.size + sum(map(_size, pages[1:]))
    return _Line(line.updated_at, line.shape, said, older, line.postings, size)


async def _page(history: RedisHistory, before: int) -> tuple[int, list[_Said]]:
    """Some texts, oldest first, and before which number there are older ones (0: there are none)."""
    older, parts = await history.raw_turns(_BATCH, before, size=_BATCH_BYTES)
    return older, [_said(number, begun, ended) for number, _, (begun, ended, *_) in parts]


def _said(number: int, begun: str, ended: str) -> _Said:
    turn_id, status, text = read_text(begun, ended)
    return _Said(number, turn_id, status == TurnStatus.COMPLETE, bool(ended), text, fold(text))

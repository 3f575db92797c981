"""What was said in all of a user's sessions: found by its words, and recalled for what it says of a question."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import Final, ParamSpec, TypeVar

from histories import codec
from histories.base import HistoryDamaged, Hit, Page, Recalled, Session, StoreUnavailable
from histories.postgres import statements
from histories.postgres.driver import Row
from histories.postgres.link import Link
from histories.postgres.rows import (
    TOP,
    cursor_after,
    messages_from,
    pack,
    place_of,
    queries,
    session_from,
    turn_from,
    unpack,
    words_of,
)
from histories.search import Text, rank, snippet, terms, words
from histories.waiting import WaitQueue

_WAIT_S: Final = 5.0
_INDEX_S: Final = 1.0
"""How long a search brings into the index what it lacks, before it tells who asks to go on."""
_RECALL_S: Final = 0.1
"""How long a recall does so, which then finds what is there: a turn waits for it."""
_LONG: Final = 200_000
"""Bytes of messages from which on reading them would hold the event loop up."""
_MOST: Final = 2000
"""Of how many turns a recall looks at each word: one that stands in more of them tells little."""
_CANDIDATES: Final = 100
_PART: Final = 200
"""How many turns come into the index at once."""

P = ParamSpec("P")
T = TypeVar("T")


class Search:
    """One search of a user at a time, and one recall, and a few of all users: the rest of the pool is for turns."""

    def __init__(self) -> None:
        self._queue = WaitQueue()

    async def sessions(self, link: Link, user_id: str, query: str, cursor: str | None, limit: int) -> Page[Session]:
        """The sessions in which the words of the query stand.

        As long as not all is in the index, those that are newer than all that is not, and where to go on: each time
        more of it is.
        """
        place = place_of(cursor)
        wanted = queries(user_id, query, prefixes=True)
        if not wanted:
            return Page([])
        params = {"user": pack(user_id), "at": place[0], "session": place[1], "limit": limit + 1, "queries": wanted}
        async with self._turn_of(f"search {user_id}", link.searches):
            end = await _index_newest(link, user_id, place, _INDEX_S)
            params |= {"end_at": end and end[0], "end": end and end[1]}
            # Planned for these very words: what is common is found otherwise than what is rare.
            rows = await link.fetch(statements.SESSIONS_THAT_SAY, params, prepare=False)
            page = [session_from(row) for row in rows[:limit]]
            sessions = [row[0] for row in rows[:limit]]
            found = {"user": pack(user_id), "sessions": sessions, "any": " | ".join(wanted), "all": " & ".join(wanted)}
            hits = await link.fetch(statements.HITS, found, prepare=False) if sessions else []
        where = await _in_time(hits, _hits, query, hits)
        following = None
        if len(rows) > limit or end is not None:
            following = cursor_after(page[-1]) if page else cursor or TOP
        return Page([replace(session, hits=where[session.session_id]) for session in page], following)

    async def recall(
        self,
        link: Link,
        user_id: str,
        query: str,
        session_id: str | None,
        exclude: Collection[tuple[str, str]],
        limit: int,
    ) -> list[Recalled]:
        """The turns that bear on the query, best first."""
        wanted = queries(user_id, " ".join(terms(query)), prefixes=True)
        if not wanted:
            return []
        params = {
            "user": pack(user_id),
            "session": None if session_id is None else pack(session_id),
            "queries": wanted,
            "most": _MOST,
            "limit": max(limit, _CANDIDATES),
            "but_sessions": [pack(session) for session, _ in exclude],
            "but_turns": [pack(turn) for _, turn in exclude],
        }
        async with self._turn_of(f"recall {user_id}", link.recalls):
            await _index(link, user_id, _RECALL_S)
            rows = await link.fetch(statements.CANDIDATES, params, prepare=False)
        return (await _in_time(rows, _ranked, query, rows))[:limit]

    @asynccontextmanager
    async def _turn_of(self, key: str, few: asyncio.Semaphore) -> AsyncIterator[None]:
        try:
            await self._queue.enter(key, _WAIT_S)
        except TimeoutError:
            raise StoreUnavailable("Too many searches of yours are under way: try again later.") from None
        try:
            try:
                async with asyncio.timeout(_WAIT_S):
                    await few.acquire()
            except TimeoutError:
                raise StoreUnavailable("Too many searches are under way: try again later.") from None
            try:
                yield
            finally:
                few.release()
        finally:
            self._queue.leave(key)


Place = tuple[datetime, str]
"""Where a session stands in the list: when it changed last, and its id as the table has it."""


async def _index_newest(link: Link, user_id: str, place: Place, limit_s: float) -> Place | None:
    """Brings what is after a place in the list into the index, the newest first, some of it in any case.

    Gives the place of the first session that is not in it; None if all are, or somebody else is at the others.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + limit_s
    while True:
        params = {"user": pack(user_id), "at": place[0], "session": place[1], "limit": _PART}
        unread = await link.fetch(statements.UNREAD_SESSIONS, params)
        for part in _parts(unread):
            is_whole = await _index_sessions(link, user_id, part, until)
            place = part[-1][1], part[-1][0]
            if not is_whole:
                return part[0][1], part[0][0]
            if loop.time() >= until and place != (unread[-1][1], unread[-1][0]):
                following = unread[unread.index(part[-1]) + 1]
                return following[1], following[0]
        if len(unread) < _PART:
            return None


def _parts(unread: Sequence[Row]) -> list[list[Row]]:
    """Sessions whose turns come into the index at once."""
    parts, size = list[list[Row]](), _PART
    for row in unread:
        if size + row[2] > _PART:
            parts.append([])
            size = 0
        parts[-1].append(row)
        size += row[2]
    return parts


async def _index_sessions(link: Link, user_id: str, sessions: Sequence[Row], until: float) -> bool:
    """Brings the titles and turns of sessions into the index, some of them in any case: are they?"""
    user = {"user": pack(user_id)}
    titles = [(session, title) for session, _, _, title in sessions if title is not None]
    if titles:
        found = _words(user_id, [unpack(title) for _, title in titles])
        named = {"sessions": [session for session, _ in titles], "words": found}
        await link.fetch(statements.INDEX_TITLES, {**user, **named})
    params = {**user, "sessions": [row[0] for row in sessions], "limit": _PART}
    while rows := await link.fetch(statements.UNREAD_TURNS, params):
        if not await _index_turns(link, user_id, rows) or len(rows) < _PART:
            break
        if asyncio.get_running_loop().time() >= until:
            return False
    return True


async def _index_turns(link: Link, user_id: str, rows: Sequence[Row]) -> bool:
    """Brings the words of these turns into the index; False if somebody else is at some of them."""
    found = await _in_time(rows, _words_of_turns, user_id, rows)
    params = {"sessions": [row[0] for row in rows], "turns": [row[1] for row in rows], "words": found}
    return len(await link.fetch(statements.INDEX_TURNS, {"user": pack(user_id), **params})) == len(rows)


async def _index(link: Link, user_id: str, limit_s: float) -> None:
    """Brings turns that this index lacks into it: imports, what an earlier version wrote, what a dead owner left.

    Some of it in any case, the rest as far as the time allows.
    """
    user, loop = {"user": pack(user_id), "limit": _PART}, asyncio.get_running_loop()
    until = loop.time() + limit_s
    while rows := await link.fetch(statements.UNREAD, user):
        if not await _index_turns(link, user_id, rows) or len(rows) < _PART or loop.time() >= until:
            return  # all of it is there, or somebody else is at the rest, or it is for the next one


def _words_of_turns(user_id: str, rows: Sequence[Row]) -> list[str]:
    texts = list[str]()
    for _, _, given, output in rows:
        try:
            texts.append(_text(given, output))
        except HistoryDamaged:  # what can't be read is found by nobody, and hides nothing else
            texts.append("")
    return _words(user_id, texts)


def _words(user_id: str, texts: Sequence[str]) -> list[str]:
    return [" ".join(words_of(user_id, text)) for text in texts]


def _text(given: str, output: str) -> str:
    return codec.text_of([*messages_from(given), *messages_from(output)])


def _hits(query: str, rows: Sequence[Row]) -> dict[str, list[Hit]]:
    found, wanted = defaultdict[str, list[Hit]](list), set(words(query))
    for session_id, turn_id, given, output in rows:
        found[unpack(session_id)].append(Hit(unpack(turn_id), snippet(_text(given, output), wanted)))
    return found


def _ranked(query: str, rows: Sequence[Row]) -> list[Recalled]:
    turns = {row[:2]: (unpack(row[0]), turn_from(row[1:])) for row in rows}
    texts = [Text(key, codec.text_of([*turn.input, *turn.output])) for key, (_, turn) in turns.items()]
    return [Recalled(*turns[key], score) for key, score in rank(query, texts)]


async def _in_time(rows: Sequence[Row], work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The result of work on these rows: in a thread, if it would hold the event loop up."""
    size = sum(len(value) for row in rows for value in row if isinstance(value, str))
    return await asyncio.to_thread(work, *args, **kwargs) if size > _LONG else work(*args, **kwargs)

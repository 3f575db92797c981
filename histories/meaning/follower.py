"""Keeps the vectors in step with the histories: in the background, after what was said is durable, from any store.

What has to be brought in is noted by session. A turn that has ended is added; of all else the session is compared with
what is there. What a crash, an outage or another process left out, a look at all sessions finds, by their heads.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from histories.base import (
    HistoryError,
    HistoryStore,
    NewTurn,
    Reply,
    Session,
    SessionNotFound,
    Turn,
    TurnStatus,
    text_of,
)
from histories.meaning.vectors import MeaningUnavailable, Piece, Vector, Vectors, hashed

log = logging.getLogger("recollect.recall")

Embed = Callable[[Sequence[str]], Awaitable[Sequence[Vector]]]
"""The vectors of texts, in their order. Raises `MeaningUnavailable`."""

Place = tuple[str, str]
"""A session: of whom, and its id."""

_GATHER_S: Final = 0.05
_AGAIN_S, _AGAIN_MOST_S = 1.0, 60.0
_PAGE: Final = 100
_TEXTS: Final = 32
"""How many texts are embedded at once."""
_PART, _PARTS = 1_500, 8
"""Characters of a part of what was said, which every embedder reads, and how many parts of one turn there are at most:
words find the rest."""


@dataclass(frozen=True, slots=True)
class Said:
    """A turn that has ended: without `text`, if it is none to recall."""

    turn_id: str
    text: str


class Follower:
    """Brings what is noted into the vectors, one session after the other."""

    def __init__(self, store: HistoryStore, vectors: Vectors, embed: Embed) -> None:
        self._store, self._vectors, self._embed = store, vectors, embed
        self._waiting: dict[Place, list[Said] | None] = {}
        self._doubted: set[Place] = set()
        self._forgotten: set[str] = set()
        self._is_behind = False
        self.sessions = self.turns = 0
        """How many sessions were compared, and how many turns brought in."""

        self._all = False
        self._has_removed = False
        self._news = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    # Notes.

    def ended(self, place: Place, new: NewTurn, reply: Reply) -> None:
        """A turn has ended, and is durable."""
        is_complete = reply.status is TurnStatus.COMPLETE
        waiting = self._waiting.setdefault(place, None if self._is_behind else [])
        if waiting is not None:
            waiting.append(Said(new.turn_id, text_of([*new.input, *reply.output]) if is_complete else ""))
        self._wake()

    def changed(self, place: Place) -> None:
        """The session is not what it was: turns are shown, or gone, or all of it is."""
        self._waiting[place] = None
        self._wake()

    def forgotten(self, user_id: str) -> None:
        """All of the user's is gone."""
        self._forgotten.add(user_id)
        self._wake()

    def look_at_all(self) -> None:
        """Whatever has been left out is to be found."""
        self._all = True
        self._wake()

    def check(self) -> None:
        """Whether the vectors are there is to be looked at: a call has failed."""
        self._wake()

    def _wake(self) -> None:
        self._idle.clear()
        self._news.set()

    async def settled(self) -> None:
        """Returns when nothing is noted that was not brought in."""
        await self._idle.wait()

    # Work.

    async def run(self) -> None:
        """Brings in what is noted, until it is cancelled."""
        again_s = _AGAIN_S
        while True:
            await self._news.wait()
            await asyncio.sleep(_GATHER_S)
            self._news.clear()
            try:
                await self.bring_in()
                again_s, self._is_behind = _AGAIN_S, False
            except Exception as error:  # noqa: BLE001 - whatever it is, it must not end for ever
                if again_s == _AGAIN_S:
                    log.warning("recall by meaning is behind, words are found meanwhile: %s", told(error))
                self._is_behind = True
                await asyncio.sleep(again_s)
                again_s = min(_AGAIN_MOST_S, 2 * again_s)
                self._wake()

    async def bring_in(self) -> None:
        """Brings in all that is noted; what fails stays noted.

        Raises `MeaningUnavailable`, and what the store raises.
        """
        await self._be_ready()
        while self._all or self._forgotten or self._waiting or self._doubted:
            await self._be_ready()
            for user_id in [*self._forgotten]:
                await self._vectors.remove_user(hashed(user_id))
                await self._doubt(user_id)  # a session in which a turn ran is still there
                self._forgotten.discard(user_id)
                self._has_removed = True
            if self._all:
                await self._note_what_differs()
                self._all = False
            for place in [*self._waiting]:
                await self._bring(place)
            for place in [*self._doubted]:
                await self._make_sure(place)
        if self._has_removed:
            await self._vectors.compact()
            self._has_removed = False
        if not self._news.is_set():
            self._idle.set()

    async def _be_ready(self) -> None:
        if not await self._vectors.is_there():
            await self._vectors.make(len((await self._embed(["Recollect"]))[0]))
            self._all = True

    async def remove(self) -> None:
        """Brings in deletions alone; the rest of what is noted is left to a server."""
        if not (self._forgotten or self._waiting) or not await self._vectors.is_there():
            return
        for user_id in [*self._forgotten]:
            await self._vectors.remove_user(hashed(user_id))
        for place in [*self._waiting]:
            await self._vectors.remove(*place)
        await self._vectors.compact()

    async def _bring(self, place: Place) -> None:
        """One session. What fails is looked at as a whole the next time: that takes no memory meanwhile."""
        said = self._waiting.pop(place)
        try:
            if said is None:
                await self._compare(place)
            else:
                await self._add(place, said)
        except BaseException:
            self._waiting[place] = None
            raise

    async def _make_sure(self, place: Place) -> None:
        """Compares a session, unless another process has done so meanwhile."""
        info = await self._info(place)
        if info is None or await self._vectors.head(*place) != _mark(info):
            await self._compare(place)
        self._doubted.discard(place)

    async def _note_what_differs(self) -> None:
        """Notes the sessions that are not what their heads say, and forgets the users who have none."""
        users = set[str]()
        async for user_id in self._store.users():
            users.add(hashed(user_id))
            await self._doubt(user_id)
        for user in await self._vectors.users() - users:
            await self._vectors.remove_user(user)
            self._has_removed = True

    async def _doubt(self, user_id: str) -> None:
        heads, cursor = await self._vectors.heads(user_id), None
        while True:
            page = await self._store.sessions(user_id, limit=_PAGE, cursor=cursor)
            differ = [one for one in page.items if heads.pop(one.session_id, None) != _mark(one)]
            self._doubted.update((user_id, session.session_id) for session in differ)
            cursor = page.next
            if cursor is None:
                break
        self._doubted.update((user_id, session_id) for session_id in heads)

    async def _add(self, place: Place, said: Sequence[Said]) -> None:
        await self._put(place, [(one.turn_id, one.text) for one in said if one.text])
        head, session = await self._vectors.head(*place), await self._info(place)
        if session is None:
            await self._compare(place)  # deleted meanwhile
        elif head is not None and _turns_of(head) + len(said) == session.turns:
            await self._vectors.put_head(*place, _mark(session))

    async def _compare(self, place: Place) -> None:
        """Makes the vectors of a session those of the complete turns of its shown line."""
        before = await self._info(place)
        if before is None:
            await self._vectors.remove(*place)
            self._has_removed = True
            return
        there, history, cursor = await self._vectors.turns(*place), self._store.history(*place), None
        shown = set[str]()
        self.sessions += 1
        while True:
            page = await history.turns(limit=_PAGE, before=cursor)
            complete = [turn for turn in page.items if turn.status is TurnStatus.COMPLETE]
            shown.update(turn.turn_id for turn in complete)
            await self._put(place, [(one.turn_id, _text(one)) for one in complete if one.turn_id not in there])
            cursor = page.next
            if cursor is None:
                break
        if gone := there - shown:
            await self._vectors.remove(*place, gone)
            self._has_removed = True
        after = await self._info(place)
        if after == before:
            await self._vectors.put_head(*place, _mark(before))
        elif after is None or after.turns < before.turns:
            self._waiting.setdefault(place, None)  # it was changed meanwhile, perhaps by another process

    async def _put(self, place: Place, turns: Sequence[tuple[str, str]]) -> None:
        self.turns += len(turns)
        parts = [(turn_id, part, text) for turn_id, said in turns for part, text in enumerate(parts_of(said))]
        for start in range(0, len(parts), _TEXTS):
            some = parts[start : start + _TEXTS]
            vectors = await self._embed([text for _, _, text in some])
            pieces = [Piece(turn_id, part, one) for (turn_id, part, _), one in zip(some, vectors, strict=True)]
            await self._vectors.put(*place, pieces)

    async def _info(self, place: Place) -> Session | None:
        with suppress(SessionNotFound):
            return await self._store.history(*place).info()
        return None


def parts_of(text: str) -> list[str]:
    """What is embedded of a text: parts of it, the first ones."""
    flat = " ".join(text.split())
    return [flat[at : at + _PART] for at in range(0, min(len(flat), _PART * _PARTS), _PART)]


def _text(turn: Turn) -> str:
    return text_of([*turn.input, *turn.output])


def _mark(session: Session) -> str:
    return f"{session.turns} {session.created_at.isoformat()} {session.updated_at.isoformat()}"


def _turns_of(mark: str) -> int:
    return int(mark.partition(" ")[0])


def told(error: Any) -> str:
    """What went wrong, without a secret."""
    return str(error) if isinstance(error, (MeaningUnavailable, HistoryError)) else type(error).__name__

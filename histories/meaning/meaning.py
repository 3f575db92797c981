"""A store whose recalls know what is meant, too: words and vectors, ranked together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, Final, cast

from histories.base import (
    HistoryStore,
    NewTurn,
    OpenTurn,
    Recalled,
    SessionHistory,
    SessionNotFound,
    Turn,
    TurnNotFound,
    TurnStatus,
)
from histories.meaning.follower import Embed, Follower, told
from histories.meaning.vectors import MeaningUnavailable, Vectors

log = logging.getLogger("recollect.recall")

WITHIN_S: Final = 0.2
"""How long a recall waits for vectors: less than a turn waits for a recall, so that words are found all the same."""

_AGAIN_S, _AGAIN_MOST_S = 1.0, 30.0
"""How long words alone are asked after vectors failed, or took too long, and at most if they do again and again: turns
wait for them now and then, not each time."""

_AT_ONCE: Final = 16
_LOOKED_AT: Final = 24
_RANKS: Final = 60
"""The usual constant of reciprocal rank fusion: how little the first places stand out."""


class Meaning:
    """Recall by meaning over a store. `store` is that store, which brings each change of it into the vectors."""

    def __init__(
        self, inner: HistoryStore, vectors: Vectors, embed: Embed, close: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        self._inner, self._vectors, self._embed, self._close = inner, vectors, embed, close
        self.follower = Follower(inner, vectors, embed)
        self.store = cast(HistoryStore, _Store(inner, self))
        self._asking = 0
        self._not_before, self._again_s = 0.0, _AGAIN_S

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Meanwhile the vectors follow the histories. What was left out before is found first."""
        self.follower.look_at_all()
        task = asyncio.create_task(self.follower.run(), name="recollect-meaning")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
            await self.close()

    async def close(self) -> None:
        """Lets go of its connections."""
        await self._vectors.close()
        if self._close is not None:
            await self._close()

    async def rebuild(self) -> tuple[int, int]:
        """Makes all vectors anew from the histories; gives how many sessions and turns that were.

        Raises `MeaningUnavailable`, and what the store raises.
        """
        self.follower.sessions = self.follower.turns = 0
        await self._vectors.drop()
        self.follower.look_at_all()
        await self.follower.bring_in()
        return self.follower.sessions, self.follower.turns

    async def removes(self, within_s: float = 30.0) -> bool:
        """Takes what was deleted meanwhile out of the vectors; False if that can't be done now."""
        try:
            async with asyncio.timeout(within_s):
                await self.follower.remove()
        except (MeaningUnavailable, TimeoutError):
            return False
        return True

    async def recall(
        self,
        user_id: str,
        query: str,
        *,
        session_id: str | None = None,
        exclude: Collection[tuple[str, str]] = (),
        limit: int = 8,
    ) -> list[Recalled]:
        """See `HistoryStore`: what the store finds by words, and what is near, ranked together."""
        loop = asyncio.get_running_loop()
        until, near = loop.time() + WITHIN_S, None
        if loop.time() >= self._not_before and self._asking < _AT_ONCE:
            near = asyncio.create_task(self._near(user_id, query, session_id, exclude))
        try:
            asked = {"session_id": session_id, "exclude": exclude, "limit": max(limit, _LOOKED_AT)}
            found: list[Recalled] = await self._inner.recall(user_id, query, **asked)  # type: ignore[arg-type]
            by_meaning = [] if near is None else await self._in_time(near, until - loop.time())
        finally:
            if near is not None:
                near.cancel()
        return fused(found, by_meaning)[:limit] if by_meaning else found[:limit]

    async def _in_time(self, near: asyncio.Task[list[Recalled]], timeout: float) -> list[Recalled]:
        await asyncio.wait({near}, timeout=max(0.0, timeout))
        if near.done():
            try:
                found = near.result()
                self._again_s = _AGAIN_S
                return found
            except Exception as error:  # noqa: BLE001 - whatever it is, there are words
                why = told(error)
        else:
            why = f"it took longer than {WITHIN_S:g} seconds"
        log.warning("nothing is recalled by meaning for %g seconds: %s", self._again_s, why)
        self._not_before = asyncio.get_running_loop().time() + self._again_s
        self._again_s = min(_AGAIN_MOST_S, 2 * self._again_s)
        self.follower.check()
        return []

    async def _near(
        self, user_id: str, query: str, session_id: str | None, exclude: Collection[tuple[str, str]]
    ) -> list[Recalled]:
        self._asking += 1
        try:
            if not self._vectors.is_ready:  # who follows makes them so
                return []
            (vector,) = await self._embed([" ".join(query.split())])
            wanted = _LOOKED_AT + len(exclude)
            near = await self._vectors.near(user_id, session_id, vector, wanted)
            named = [one for one in near if (one.session_id, one.turn_id) not in exclude][:_LOOKED_AT]
            turns = await asyncio.gather(*(self._shown(user_id, one.session_id, one.turn_id) for one in named))
            return [Recalled(one.session_id, turn, one.score) for one, turn in zip(named, turns, strict=True) if turn]
        finally:
            self._asking -= 1

    async def _shown(self, user_id: str, session_id: str, turn_id: str) -> Turn | None:
        """The turn as the store has it: what is not shown there any more is not recalled, whatever Milvus says."""
        with suppress(SessionNotFound, TurnNotFound):
            turn = await self._inner.history(user_id, session_id).turn(turn_id, shown=True)
            if turn.status is TurnStatus.COMPLETE:
                return turn
        self.follower.changed((user_id, session_id))
        return None


async def removed_only(texts: Sequence[str]) -> list[list[float]]:
    """The embeddings of who only deletes."""
    raise MeaningUnavailable("nothing is brought in here")


def fused(*rankings: Sequence[Recalled]) -> list[Recalled]:
    """Several rankings as one: reciprocal rank fusion, best first."""
    scores, turns = dict[tuple[str, str], float](), dict[tuple[str, str], Recalled]()
    for ranking in rankings:
        for rank, one in enumerate(ranking, start=1):
            key = one.session_id, one.turn.turn_id
            turns[key] = one
            scores[key] = scores.get(key, 0.0) + 1 / (_RANKS + rank)
    best = sorted(scores, key=lambda key: scores[key], reverse=True)
    return [Recalled(turns[key].session_id, turns[key].turn, scores[key]) for key in best]


class _Store:
    """Stands in for the store."""

    def __init__(self, inner: HistoryStore, meaning: Meaning) -> None:
        self._inner, self._meaning = inner, meaning
        self.recall = meaning.recall

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def history(self, user_id: str, session_id: str) -> SessionHistory:
        history = self._inner.history(user_id, session_id)
        return cast(SessionHistory, _History(history, self._meaning.follower))

    async def forget(self, user_id: str) -> None:
        try:
            await self._inner.forget(user_id)
        finally:
            self._meaning.follower.forgotten(user_id)

    async def tidy(self) -> int:
        self._meaning.follower.look_at_all()
        return await self._inner.tidy()


class _History:
    """Stands in for a history, and notes what changes it."""

    def __init__(self, inner: SessionHistory, follower: Follower) -> None:
        self._inner, self._follower = inner, follower
        self._place = inner.user_id, inner.session_id

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        return partial(self._changing, name, found) if name in _CHANGES else found

    async def _changing(self, name: str, change: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return await change(*args, **kwargs)
        finally:
            user_id, session_id = self._place
            changed = (kwargs.get("session_id") or args[0]) if name == "fork" else session_id
            self._follower.changed((user_id, changed))

    async def begin(self, new: NewTurn, **how: Any) -> OpenTurn | Turn:
        begun = await self._inner.begin(new, **how)
        if isinstance(begun, OpenTurn):
            is_plain = new.version_of is None
            begun.heard = partial(self._follower.ended, self._place, new) if is_plain else self._version_ended
        return begun

    def _version_ended(self, reply: object) -> None:
        self._follower.changed(self._place)


_CHANGES: Final = frozenset(
    {"rewind", "choose", "delete_turn", "fork", "restore", "delete", "adelete", "aclear", "aadd_messages"}
)

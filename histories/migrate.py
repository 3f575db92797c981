"""Brings all histories from one store to another, and looks at each turn of them there."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from typing import Final

from histories.base import (
    HistoryDamaged,
    HistoryError,
    HistoryStore,
    Session,
    SessionExists,
    SessionHistory,
    SessionNotFound,
    StoreUnavailable,
    Turn,
    TurnStatus,
)
from histories.redis.records import settled

AT_ONCE: Final = 16
_PAGE: Final = 500


@dataclass
class Migrated:
    """What came of it: how many sessions, by their outcome, and how many turns stand in the target, verified."""

    turns: int = 0
    sessions: Counter[str] = field(default_factory=Counter)

    @property
    def complete(self) -> bool:
        """Whether everything is in the target: nothing differs, could not be read, or was still running."""
        return not any(self.sessions[outcome] for outcome in ("differ", "failed", "running"))

    def __str__(self) -> str:
        said = ", ".join(
            f"{self.sessions[outcome]} {words}"
            for outcome, words in {
                "copied": "copied",
                "replaced": "brought up to date",
                "there": "there already",
                "differ": "differ",
                "failed": "failed",
                "running": "without a turn that runs",
            }.items()
        )
        return f"{self.sessions.total()} sessions, {self.turns} turns verified: {said}."


def _silent(line: str) -> None:
    return


async def migrate(
    source: HistoryStore,
    target: HistoryStore,
    tell: Callable[[str], None],
    progress: Callable[[str], None] = _silent,
) -> Migrated:
    """Copies what the target does not have yet, and compares every turn with what is read back from there.

    May be broken off at any instant, and run again. A session that is in the target is left alone if it is the same,
    brought up to date if it is an earlier state of the source's that nobody has changed since, and told of otherwise.
    `tell` gets a line for each session that can't be brought over, `progress` one after each, of how far it is.
    Raises `StoreUnavailable` when either store can't be reached.
    """
    run = _Run(source, target, tell, progress)
    under_way: set[asyncio.Task[None]] = set()
    try:
        async for user, session in run.sessions():
            if len(under_way) == AT_ONCE:
                done, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            under_way.add(asyncio.create_task(run.bring(user, session)))
        await asyncio.gather(*under_way)
    finally:
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
    return run.migrated


class _Run:
    def __init__(
        self,
        source: HistoryStore,
        target: HistoryStore,
        tell: Callable[[str], None],
        progress: Callable[[str], None],
    ) -> None:
        self._source, self._target, self._tell, self._progress = source, target, tell, progress
        self.migrated = Migrated()

    async def sessions(self) -> AsyncIterator[tuple[str, Session]]:
        """All sessions of all users of the source."""
        try:
            async for user in self._source.users():
                cursor: str | None = None
                while True:
                    page = await self._source.sessions(user, limit=_PAGE, cursor=cursor)
                    for session in page.items:
                        yield user, session
                    cursor = page.next
                    if cursor is None:
                        break
        except HistoryDamaged as error:
            self._count("failed", f"a session that nobody can be found for: {error}")

    def _count(self, outcome: str, why: str | None = None) -> None:
        self.migrated.sessions[outcome] += 1
        if why is not None:
            self._tell(why)
        self._progress(str(self.migrated))

    async def bring(self, user: str, session: Session) -> None:
        """One session. Raises `StoreUnavailable` when a store can't be reached."""
        where = f"{user}, session {session.session_id}"
        try:
            outcome = await self._bring(user, session)
        except SessionNotFound:  # deleted meanwhile
            return
        except HistoryDamaged as error:
            self._count("failed", f"{where}: {error}")
        except StoreUnavailable:
            raise
        except HistoryError as error:
            self._count("failed", f"{where}: {error}")
        else:
            differs = "the target has another history of that name, which was left alone"
            self._count(outcome, f"{where}: {differs}" if outcome == "differ" else None)

    async def _bring(self, user: str, session: Session) -> str:
        there = self._target.history(user, session.session_id)
        turns = await _turns(self._source.history(user, session.session_id))
        runs = bool(turns) and turns[-1].status is TurnStatus.RUNNING
        turns = [settled(turn) for turn in (turns[:-1] if runs else turns)]
        outcome = "copied"
        try:
            await there.restore(turns, title=session.title, created_at=session.created_at)
        except SessionExists:
            outcome = await self._bring_up_to_date(there, session, turns)
        if outcome in ("copied", "replaced") and not _same(await there.info(), await _turns(there), session, turns):
            raise HistoryError("what was read back from the target is not what was written there")
        if outcome != "differ":
            self.migrated.turns += len(turns)
        return "running" if runs and outcome != "differ" else outcome

    async def _bring_up_to_date(self, there: SessionHistory, session: Session, turns: list[Turn]) -> str:
        """For a session that the target has: there | differ | replaced."""
        have, known = await _turns(there), await there.info()
        if _same(known, have, session, turns):
            return "there"
        if not _is_earlier(known, have, session, turns):
            return "differ"
        await there.delete()  # the source has all of it: if this is where it ends, the next run copies it
        await there.restore(turns, title=session.title, created_at=session.created_at)
        return "replaced"


async def _turns(history: SessionHistory) -> list[Turn]:
    pages: list[list[Turn]] = []
    before: str | None = None
    while True:
        page = await history.turns(limit=_PAGE, before=before)
        pages.append(page.items)
        before = page.next
        if before is None:
            return [turn for items in reversed(pages) for turn in items]


def _same(known: Session, have: list[Turn], session: Session, turns: list[Turn]) -> bool:
    """Whether the target has the session as it is in the source."""
    entry = (known.title, known.created_at) == (session.title, session.created_at)
    return entry and [settled(turn) for turn in have] == turns


def _is_earlier(known: Session, have: list[Turn], session: Session, turns: list[Turn]) -> bool:
    """Whether the target has what an earlier run brought there, and nobody has touched since."""
    ended = [known.created_at, *(turn.ended_at or turn.started_at for turn in have[-1:])]
    untouched = known.created_at == session.created_at and known.updated_at <= max(ended)
    return untouched and list(map(_gist, have)) == list(map(_gist, turns[: len(have)]))


def _gist(turn: Turn) -> Turn:
    """The turn, but for the time at which a dead owner's was settled, which its next turn decides."""
    turn = settled(turn)
    lost = turn.status is TurnStatus.INTERRUPTED and not turn.output
    return replace(turn, ended_at=turn.started_at) if lost else turn

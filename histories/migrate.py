"""Brings all histories from one store to another, and looks at each turn of them there."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

from histories.base import (
    HistoryDamaged,
    HistoryError,
    HistoryMoved,
    HistoryStore,
    Session,
    SessionBusy,
    SessionExists,
    SessionHistory,
    SessionNotFound,
    StoreUnavailable,
    Turn,
    TurnStatus,
    TurnTree,
)
from histories.ledger import Ledger, mark_of, mark_of_notes

AT_ONCE: Final = 16

_SAID: Final = {
    "copied": "copied",
    "replaced": "brought up to date",
    "there": "there already",
    "deleted": "deleted as in the source",
    "differ": "differ",
    "failed": "failed",
    "running": "without a turn that runs",
}
_DIFFERS: Final = "the target has another history of that name, which was left alone"
_GONE: Final = (
    "it was deleted in the target since it was brought there, and was left so (without DATA_DIR/migrations it is "
    "brought again)"
)


@dataclass
class Migrated:
    """What came of it: how many sessions, by their outcome, and how many turns stand in the target, verified."""

    turns: int = 0
    sessions: Counter[str] = field(default_factory=Counter)
    written: int = 0
    """How many sessions of the source have changed while they were brought over."""

    notes_differ: int = 0
    """Of how many users."""

    @property
    def complete(self) -> bool:
        """Whether everything is in the target: nothing differs, could not be read, was still running or has changed."""
        missing = any(self.sessions[outcome] for outcome in ("differ", "failed", "running"))
        return not (missing or self.written or self.notes_differ)

    def __str__(self) -> str:
        said = ", ".join(f"{self.sessions[outcome]} {words}" for outcome, words in _SAID.items())
        return f"{self.sessions.total()} sessions, {self.turns} turns verified: {said}."


async def migrate(
    source: HistoryStore,
    target: HistoryStore,
    tell: Callable[[str], None],
    progress: Callable[[str], object] = lambda line: None,
    ledger: Ledger | None = None,
) -> Migrated:
    """Copies what the target does not have yet, and compares every turn with what is read back from there.

    * May be broken off at any instant, and run again.
    * A session that is in the target is left alone if it is the same; brought up to date if it is as an earlier run
      left it, or an earlier state of the source's; and told of otherwise. What somebody writes to the target is never
      undone, not even if it comes while this runs.
    * With the `ledger` of earlier runs, what was deleted in the source since is deleted in the target, too.
    * Sessions of the source that change meanwhile are told of: then the run is not complete, and is to be repeated.

    `tell` gets a line for each session that can't be brought over, `progress` one after each, of how far it is.
    Raises `StoreUnavailable` when either store can't be reached.
    """
    run = _Run(source, target, tell, progress, ledger or Ledger())
    under_way: set[asyncio.Task[None]] = set()
    try:
        async for user, session in run.sessions():
            if len(under_way) == AT_ONCE:
                done, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            under_way.add(asyncio.create_task(run.bring(user, session)))
        await asyncio.gather(*under_way)
        await run.delete_the_deleted()
        await run.see_what_has_changed()
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
        progress: Callable[[str], object],
        ledger: Ledger,
    ) -> None:
        self._source, self._target, self._tell, self._progress = source, target, tell, progress
        self._ledger, self.migrated = ledger, Migrated()
        self._seen: dict[tuple[str, str], datetime] = {}

    async def sessions(self) -> AsyncIterator[tuple[str, Session]]:
        """All sessions of all users of the source, and on the way the notes of these users."""
        try:
            async for user in self._source.users():
                await self._bring_notes(user)
                async for session in self._source.all_sessions(user):
                    self._seen[user, session.session_id] = session.updated_at
                    yield user, session
        except HistoryDamaged as error:
            self._count("failed", f"a session that nobody can be found for: {error}")

    async def _bring_notes(self, user: str) -> None:
        notes, have = await self._source.notes(user), await self._target.notes(user)
        if notes != have:
            if have and self._ledger.mark(user, None) != mark_of_notes(have):
                self.migrated.notes_differ += 1
                self._tell(f"{user}: the target has other notes of this user, which were left alone")
                return
            await self._target.set_notes(user, notes)
        self._ledger.note(user, None, mark_of_notes(notes))

    def _count(self, outcome: str, why: str | None = None) -> None:
        self.migrated.sessions[outcome] += 1
        if why is not None:
            self._tell(why)
        self._progress(str(self.migrated))

    async def bring(self, user: str, session: Session) -> None:
        """One session. Raises `StoreUnavailable` when a store can't be reached."""
        where = f"{user}, session {session.session_id}"
        try:
            outcome, why = await self._bring(user, session)
        except SessionNotFound:  # deleted meanwhile
            return
        except HistoryDamaged as error:
            self._count("failed", f"{where}: {error}")
        except StoreUnavailable:
            raise
        except HistoryError as error:
            self._count("failed", f"{where}: {error}")
        else:
            self._count(outcome, f"{where}: {why}" if why else None)

    async def _bring(self, user: str, session: Session) -> tuple[str, str]:
        """The outcome, and a sentence about it if it needs one."""
        there = self._target.history(user, session.session_id)
        whole = await self._source.history(user, session.session_id).tree()
        tree = _ended(whole)
        brought = self._ledger.mark(user, session.session_id)
        if brought and await _state(there) is None:
            return "differ", _GONE
        outcome = "copied"
        try:
            await there.restore(tree, title=session.title, created_at=session.created_at)
        except SessionExists:
            outcome = await self._bring_up_to_date(user, there, session, tree)
        if outcome == "differ":
            return outcome, _DIFFERS
        mark = mark_of(session, tree)
        if outcome != "there" and await _mark(there) != mark:
            raise HistoryError("what was read back from the target is not what was written there")
        await _bring_summary(self._source.history(user, session.session_id), there, anew=outcome != "there")
        self._ledger.note(user, session.session_id, mark)
        self.migrated.turns += len(tree.turns)
        return ("running" if len(tree.turns) < len(whole.turns) else outcome), ""

    async def _bring_up_to_date(self, user: str, there: SessionHistory, session: Session, tree: TurnTree) -> str:
        """For a session that the target has: there | differ | replaced."""
        state = await _state(there)
        if state is None:  # deleted meanwhile
            return "differ"
        known, have = state
        if mark_of(known, have) == mark_of(session, tree):
            return "there"
        brought = self._ledger.mark(user, session.session_id)
        if mark_of(known, have) != brought if brought else not _is_earlier(known, have, session, tree):
            return "differ"
        # The source has all of it: if this is where it ends, the next run copies it.
        self._ledger.note(user, session.session_id, "")
        try:
            await there.delete(if_updated_at=known.updated_at)
            await there.restore(tree, title=session.title, created_at=session.created_at)
        except (HistoryMoved, SessionBusy, SessionExists, SessionNotFound):  # somebody talks there
            return "differ"
        return "replaced"

    async def delete_the_deleted(self) -> None:
        """Deletes in the target what earlier runs have brought there and is not in the source any more."""
        async for user in self._target.users():
            await self._forget_notes(user)
            gone = [
                session
                async for session in self._target.all_sessions(user)
                if self._ledger.mark(user, session.session_id) and (user, session.session_id) not in self._seen
            ]
            for session in gone:
                await self._delete(user, session.session_id)

    async def _forget_notes(self, user: str) -> None:
        if self._ledger.mark(user, None) and not any(user == seen for seen, _ in self._seen):
            await self._bring_notes(user)

    async def _delete(self, user: str, session_id: str) -> None:
        if await _state(self._source.history(user, session_id)) is not None:
            return  # it has come meanwhile
        there = self._target.history(user, session_id)
        state = await _state(there)
        try:
            if state is None or mark_of(*state) != self._ledger.mark(user, session_id):
                raise HistoryMoved
            await there.delete(if_updated_at=state[0].updated_at)
        except (HistoryMoved, SessionBusy, SessionNotFound):
            told = "it was deleted in the source, and has changed in the target since it was brought there"
            self._count("differ", f"{user}, session {session_id}: {told}: it was left alone")
        else:
            self._ledger.note(user, session_id, "")
            self._count("deleted")

    async def see_what_has_changed(self) -> None:
        """Counts the sessions of the source that are not any more as they were when they were brought over."""
        now: dict[tuple[str, str], datetime] = {}
        try:
            async for user in self._source.users():
                async for session in self._source.all_sessions(user):
                    now[user, session.session_id] = session.updated_at
        except HistoryDamaged:  # it was told of
            pass
        self.migrated.written = sum(self._seen.get(name) != now.get(name) for name in self._seen.keys() | now.keys())
        if self.migrated.written:
            told = f"{self.migrated.written} sessions of the source have changed meanwhile"
            self._tell(f"{told}: stop the servers that write to it, and run this again.")


async def _bring_summary(source: SessionHistory, there: SessionHistory, *, anew: bool) -> None:
    """Brings the summary of a session along, unless the target has a newer one."""
    summary, have = await source.summary(), await there.summary()
    if summary is None or summary == have or not (anew or have is None or have.made_at < summary.made_at):
        return
    await there.set_summary(summary)


async def _state(history: SessionHistory) -> tuple[Session, TurnTree] | None:
    """A session with all that is in it; None if there is none."""
    try:
        return await history.info(), _ended(await history.tree())
    except SessionNotFound:
        return None


async def _mark(history: SessionHistory) -> str:
    state = await _state(history)
    return "" if state is None else mark_of(*state)


def _ended(tree: TurnTree) -> TurnTree:
    """The tree without a turn that still runs, each turn as it is kept by who runs none."""
    kept = [place for place, turn in enumerate(tree.turns) if turn.status is not TurnStatus.RUNNING]
    last = tree.last
    for place in range(len(tree.turns)):
        if place not in kept and tree.turns[place].turn_id == last:
            last = tree.after[place]
    return TurnTree([tree.turns[place].at_rest() for place in kept], [tree.after[place] for place in kept], last)


def _is_earlier(known: Session, have: TurnTree, session: Session, tree: TurnTree) -> bool:
    """Whether the target has what an earlier run brought there, and nobody has touched since."""
    untouched = known.created_at == session.created_at and known.updated_at <= have.updated_at(known.created_at)
    after = {turn.turn_id: (_gist(turn), before) for turn, before in zip(tree.turns, tree.after, strict=True)}
    there = zip(have.turns, have.after, strict=True)
    return untouched and all(after.get(turn.turn_id) == (_gist(turn), before) for turn, before in there)


def _gist(turn: Turn) -> Turn:
    """The turn, but for the time at which a dead owner's was settled, which its next turn decides."""
    turn = replace(turn.at_rest(), versions=())
    lost = turn.status is TurnStatus.INTERRUPTED and not turn.output
    return replace(turn, ended_at=turn.started_at) if lost else turn

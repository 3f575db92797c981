"""Changes of a session's record, and the summary of its beginning, which no change may leave untrue."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from histories import codec
from histories.errors import SessionNotFound, StoreUnavailable, TurnNotFound
from histories.model import Summary, Turn, TurnTree

_SUMMARY: Final = "summary"


class Changes(ABC):
    """How the record of a session is changed. What takes turns away is refused while a turn runs."""

    @abstractmethod
    async def turn(self, turn_id: str, *, shown: bool = False) -> Turn:
        """The turn of that id: with `shown`, only if it is on the shown line. `TurnNotFound`; `SessionNotFound`."""

    @abstractmethod
    async def rename(self, title: str) -> None:
        """Gives the session a title (1 to 200 characters), while a turn runs, too. `SessionNotFound`."""

    async def rewind(self, turn_id: str, *, keep: bool = False, if_last: str | None = None) -> None:
        """The history ends before that turn of the shown line.

        With `keep`, what followed is not shown, but can be chosen again; without, it is forgotten.

        Raises: `SessionNotFound`, `TurnNotFound`, `SessionBusy`, `HistoryMoved`.
        """
        since = await self._since(turn_id)
        await self._rewind(turn_id, keep=keep, if_last=if_last)
        await self._forget_summary(since)

    async def choose(self, turn_id: str, *, if_last: str | None = None) -> None:
        """Shows the line on which that version of a turn stands, with what followed it when it was last shown.

        Raises: `SessionNotFound`, `TurnNotFound`, `SessionBusy`, `HistoryMoved`.
        """
        since = await self._since(turn_id)
        await self._choose(turn_id, if_last=if_last)
        await self._forget_summary(since)

    async def delete_turn(self, turn_id: str, *, if_last: str | None = None) -> None:
        """Forgets one turn, shown or not; what followed it follows what was before it.

        If other versions stand at its place and it was shown, what followed it is still what is shown.

        Raises: `SessionNotFound`, `TurnNotFound`, `SessionBusy`, `HistoryMoved`.
        """
        since = await self._since(turn_id)
        await self._delete_turn(turn_id, if_last=if_last)
        await self._forget_summary(since)

    async def fork(self, session_id: str, turn_id: str) -> None:
        """A new session of the same user, with the past up to and with that turn of the shown line.

        `SessionNotFound`, `TurnNotFound`, `SessionExists`, and `SessionBusy` when that turn still runs.
        """
        summary = await self.summary()
        await self._fork(session_id, turn_id)
        if summary is not None:
            # The session is there now, whatever becomes of its summary: another one can be made.
            with suppress(SessionNotFound, TurnNotFound, StoreUnavailable):
                other = self._sibling(session_id)
                await other.turn(summary.up_to)
                await other.set_summary(summary)

    async def restore(self, turns: Sequence[Turn] | TurnTree, *, title: str, created_at: datetime) -> None:
        """Writes a whole session at once, as an import does: turns that follow each other, or all of a tree.

        Of the versions that are not shown, and of what follows them, the newest count as shown last. A turn that runs
        is written as an interrupted one.

        Raises: `SessionExists`; `InvalidId` if two have one turn_id.
        """
        tree = TurnTree.of(turns)
        tree = replace(tree, turns=[turn.at_rest() for turn in tree.turns])
        await self._restore(tree, title=title, created_at=created_at)

    # The summary.

    async def summary(self) -> Summary | None:
        """What sums up the turns of the shown line up to one of them. None if nothing does, or the session is absent.

        A change of one of those turns (rewind, choose, delete_turn, another version) forgets it; a fork takes it along.
        """
        text = await self._document(_SUMMARY)
        if text is None:
            return None
        told: Any = codec.load(text)
        at, made_at = (datetime.fromisoformat(told[name]) for name in ("at", "made_at"))
        return Summary(told["text"], told["up_to"], at, made_at, told["made_by"])

    async def set_summary(self, summary: Summary | None) -> None:
        """Puts it in the place of the one there, while a turn runs, too; None forgets it. `SessionNotFound`."""
        if summary is None:
            return await self._set_document(_SUMMARY, None)
        times = {"at": summary.at.isoformat(), "made_at": summary.made_at.isoformat()}
        told = {"text": summary.text, "up_to": summary.up_to, **times, "made_by": summary.made_by}
        return await self._set_document(_SUMMARY, codec.dump(told))

    async def version_begins(self, version_of: str) -> None:
        """Another version of that turn begins."""
        with suppress(SessionNotFound, TurnNotFound):
            await self._since(version_of)

    async def _since(self, turn_id: str) -> datetime | None:
        """When the oldest of the turns at that place began, where there is a summary that may speak of them.

        A summary that does is forgotten: before the change, and (see the callers) after it, as one may have been made
        meanwhile. What follows a turn has begun after it, on each line.
        """
        if await self.summary() is None:
            return None
        turn = await self.turn(turn_id)
        others = [await self.turn(one) for one in turn.versions if one != turn_id]
        since = min(one.started_at for one in (turn, *others))
        await self._forget_summary(since)
        return since

    async def _forget_summary(self, since: datetime | None) -> None:
        """Forgets one that speaks of turns since then; any one, if there was none before (None)."""
        summary = await self.summary()
        if summary is not None and (since is None or summary.at >= since):
            await self.set_summary(None)

    # What a store fills in.

    @abstractmethod
    async def _rewind(self, turn_id: str, *, keep: bool, if_last: str | None) -> None: ...

    @abstractmethod
    async def _choose(self, turn_id: str, *, if_last: str | None) -> None: ...

    @abstractmethod
    async def _delete_turn(self, turn_id: str, *, if_last: str | None) -> None: ...

    @abstractmethod
    async def _fork(self, session_id: str, turn_id: str) -> None: ...

    @abstractmethod
    async def _restore(self, tree: TurnTree, *, title: str, created_at: datetime) -> None:
        """Writes the session, whose turns are at rest; `SessionExists`."""

    @abstractmethod
    def _sibling(self, session_id: str) -> Changes:
        """Another session of the same user."""

    @abstractmethod
    async def _document(self, name: str) -> str | None:
        """What is kept of the session under that name beside its turns: a text in ASCII, which goes with it."""

    @abstractmethod
    async def _set_document(self, name: str, text: str | None) -> None:
        """Keeps it; None forgets it. `SessionNotFound`."""

"""The contract that every store keeps.

A history is the record of one session's turns, in the order in which they ran. A turn is begun (from then on the
user's words are durable), runs, and is ended (from then on the reply is durable). Whoever begins a turn owns the
session until the turn ends or the owner dies; everybody else waits, in order of arrival, or is refused.

A turn may have versions, which stand at the same place: the turns of a session form a tree, of which one line is
shown, to the user and to the model. All the rest is still there, and can be chosen again.

What all stores do alike stands here, in methods that are public and concrete. A store fills in the hooks, whose names
begin with an underscore.

Its words stand in modules of their own (errors, model, codec, gate, journal, open_turn, window), and are named here,
too: who uses a store imports `histories.base`, and nothing behind it.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from datetime import datetime

from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import BaseMessage
from typing_extensions import override

from histories.attendance import Attended as Attended
from histories.blocking import run_blocking as run_blocking
from histories.blocking import see_through as see_through
from histories.changes import Changes
from histories.codec import UnknownMessage as UnknownMessage
from histories.codec import copied as copied
from histories.codec import dump as dump
from histories.codec import jsonable as jsonable
from histories.codec import message_from_json as message_from_json
from histories.codec import message_to_json as message_to_json
from histories.codec import storable as storable
from histories.codec import text_of as text_of
from histories.codec import undump as undump
from histories.codec import whole as whole
from histories.errors import HistoryDamaged as HistoryDamaged
from histories.errors import HistoryError as HistoryError
from histories.errors import HistoryMoved as HistoryMoved
from histories.errors import InvalidCursor as InvalidCursor
from histories.errors import InvalidId as InvalidId
from histories.errors import SessionBusy as SessionBusy
from histories.errors import SessionExists as SessionExists
from histories.errors import SessionNotFound as SessionNotFound
from histories.errors import StoreFull as StoreFull
from histories.errors import StoreUnavailable as StoreUnavailable
from histories.errors import TurnLost as TurnLost
from histories.errors import TurnNotFound as TurnNotFound
from histories.errors import TurnRunning as TurnRunning
from histories.gate import ATTENDED_S as ATTENDED_S
from histories.gate import Attempt as Attempt
from histories.gate import Gate as Gate
from histories.journal import CRASHED as CRASHED
from histories.journal import text_lengths as text_lengths
from histories.kept import Counted as Counted
from histories.kept import Kept as Kept
from histories.model import Event as Event
from histories.model import Failure as Failure
from histories.model import Feedback as Feedback
from histories.model import Hit as Hit
from histories.model import NewTurn as NewTurn
from histories.model import Note as Note
from histories.model import Page as Page
from histories.model import Recalled as Recalled
from histories.model import RecalledTurn as RecalledTurn
from histories.model import Reply as Reply
from histories.model import Session as Session
from histories.model import ShownTurn as ShownTurn
from histories.model import Summary as Summary
from histories.model import Turn as Turn
from histories.model import TurnDetails as TurnDetails
from histories.model import TurnStatus as TurnStatus
from histories.model import TurnTree as TurnTree
from histories.model import Usage as Usage
from histories.model import check_id as check_id
from histories.model import now as now
from histories.model import title_of as title_of
from histories.open_turn import OpenTurn as OpenTurn
from histories.search import passage as passage
from histories.unique import new_id as new_id
from histories.unique import new_name as new_name
from histories.unique import new_uuid as new_uuid
from histories.waiting import Wait as Wait
from histories.window import MOST_TOKENS as MOST_TOKENS
from histories.window import PART_TOKENS as PART_TOKENS
from histories.window import estimate_tokens as estimate_tokens
from histories.window import text_tokens as text_tokens


class SessionHistory(Changes, Attended, BaseChatMessageHistory, ABC):
    """The history of one session. Every method is safe from any task, thread, process and machine."""

    user_id: str
    session_id: str
    gate: Gate
    key: str
    """The session's name at the gate."""

    # Turns.

    async def begin(
        self,
        new: NewTurn,
        *,
        wait_s: float = 60.0,
        window_tokens: int = 0,
        on_stop: Callable[[], None] | None = None,
        if_last: str | None = None,
    ) -> OpenTurn | Turn:
        """Makes the user's words durable, and gives the turn that now owns the session.

        * Waits up to `wait_s` seconds for the turns before it, in order of arrival.
        * With `new.given`, a turn of that id that is complete is returned as it is on the record (a `Turn`), before
          any wait; one that runs is refused at once; any other one is replaced.
        * With `new.version_of`, it stands in the place of that turn, and what followed that one is not shown. If it
          ends as nothing that a model is shown, the line that was shown before is shown again.
        * `window_tokens` bounds the window (0: no past is read). `on_stop` is called, from any thread, when somebody
          asks for this turn to be stopped.
        * What a dead owner left running is ended first, as its journal says: see `histories.journal.settled`.
        * Cancelled, it leaves either nothing, or a turn that is interrupted.

        Raises: `SessionBusy` when the wait ran out, `TurnRunning` (one of its kinds) for a given turn_id that runs,
        `TurnNotFound` for a `version_of` that is not on the shown line, `HistoryMoved` when the last turn of that
        line is not `if_last`, `StoreUnavailable`.
        """
        gate, key = self.gate, self.key
        attempt = Attempt(new, asyncio.get_running_loop().time() + wait_s, window_tokens, on_stop, if_last)
        recorded = await self._wait_in_line(new, wait_s)
        if recorded is not None:
            return recorded
        try:
            begun = await self._begin_next(attempt)
        except BaseException:
            gate.queue.leave(key)
            raise
        if isinstance(begun, Turn):
            gate.queue.leave(key)
        else:
            gate.open(key, attempt)
        return begun

    async def _begin_next(self, attempt: Attempt) -> OpenTurn | Turn:
        if attempt.new.version_of is not None:
            await self.version_begins(attempt.new.version_of)
        return await self._begin(attempt)

    async def _wait_in_line(self, new: NewTurn, wait_s: float) -> Turn | None:
        """Returns when no turn of this process is before it; with its own turn, if that is complete meanwhile."""
        try:
            await self.gate.queue.enter(self.key, 0)
        except TimeoutError:
            recorded = await self._answered(new.turn_id) if new.given else None
            if recorded is not None:
                return recorded
            await self.gate.enter(self.key, wait_s)
        return None

    async def _answered(self, turn_id: str) -> Turn | None:
        """The turn of that id, if it is complete. Raises `TurnRunning` if it runs, wherever it does."""
        if self.gate.runs(self.key, turn_id):
            raise TurnRunning
        try:
            turn = await self.turn(turn_id)
        except (SessionNotFound, TurnNotFound):
            return None
        if turn.status is TurnStatus.RUNNING:
            raise TurnRunning
        return turn if turn.status is TurnStatus.COMPLETE else None

    @abstractmethod
    async def _begin(self, attempt: Attempt) -> OpenTurn | Turn:
        """Begins the turn for who is first in line in this process: waits for those of others until the deadline.

        Cancelled, or when it raises, it leaves nothing that is held, and no turn that is not interrupted.
        """

    async def stop(self) -> bool:
        """Asks for the running turn to be stopped, wherever it runs. False when none runs. `SessionNotFound`."""
        return self.gate.stop(self.key) or await self._ask_stop()

    @abstractmethod
    async def _ask_stop(self) -> bool:
        """Asks the process that runs a turn of this session to stop it."""

    @abstractmethod
    def events(self, turn_id: str, *, after: int = -1) -> AsyncIterator[Sequence[Event]]:
        """What a running turn says, from the event after that number on: as it comes, some at a time.

        * Ends when the turn has ended, or its owner is dead: from then on the record tells how.
        * A turn that does not run any more has none, and neither has one that is not there.
        * Any number may read, each at its own pace; none holds the turn up.

        Raises: `StoreUnavailable`.
        """

    # The record.

    @abstractmethod
    async def info(self) -> Session:
        """The session's entry in the list of sessions, and which turn of it runs. `SessionNotFound`."""

    @abstractmethod
    async def turns(self, *, limit: int = 50, before: str | None = None) -> Page[Turn]:
        """The newest turns of the shown line, oldest of them first; `next` is the `before` of the page of older ones.

        * An unknown session has none.
        * A page holds fewer than `limit` when they are large: it ends after some PAGE_BYTES, and holds one at least.

        Raises: `InvalidCursor` for a `before` that is not one.
        """

    @abstractmethod
    async def tree(self) -> TurnTree:
        """All turns of the session, shown or not, for who takes the whole of it elsewhere. `SessionNotFound`."""

    # Changes of the record: see histories.changes, too.

    @abstractmethod
    async def feedback(self, turn_id: str, feedback: Feedback) -> None:
        """Puts what the user thinks of a reply on the record, while a turn runs, too. `TurnNotFound`."""

    @abstractmethod
    async def delete(self, *, if_updated_at: datetime | None = None) -> None:
        """Forgets the session: with `if_updated_at`, only if it has not changed since then.

        Raises: `SessionNotFound`; `SessionBusy` while a turn runs; `HistoryMoved` if it has changed.
        """

    # What LangChain's own RunnableWithMessageHistory calls.

    @override
    async def aget_messages(self) -> list[BaseMessage]:
        """All messages of all turns that a model may be shown, oldest first."""
        pages: list[list[Turn]] = []
        before: str | None = None
        while True:
            page = await self.turns(limit=500, before=before)
            pages.append(page.items)
            before = page.next
            if before is None:
                break
        kept = [turn for page in reversed(pages) for turn in page if turn.shown]
        return [message for turn in kept for message in (*turn.input, *turn.output)]

    @override
    async def aadd_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Records the messages as one complete turn: what comes before the first reply is its input."""
        if not messages:
            return
        split = next((i for i, m in enumerate(messages) if m.type in ("ai", "AIMessageChunk")), len(messages))
        turn = await self.begin(NewTurn(input=messages[:split]))
        assert isinstance(turn, OpenTurn)  # noqa: S101 - only a given turn_id is answered from the record
        await turn.end(Reply(status=TurnStatus.COMPLETE, output=messages[split:]))

    @override
    async def aclear(self) -> None:
        """Forgets the session; one that is not there is no error."""
        try:
            await self.delete()
        except SessionNotFound:
            return

    @property
    def messages(self) -> list[BaseMessage]:  # type: ignore[override]  # LangChain declares an attribute
        """The blocking twin of `aget_messages`."""
        return run_blocking(self.aget_messages)

    @override
    def add_messages(self, messages: Sequence[BaseMessage]) -> None:
        """The blocking twin of `aadd_messages`."""
        run_blocking(lambda: self.aadd_messages(messages))

    @override
    def clear(self) -> None:
        """The blocking twin of `aclear`."""
        run_blocking(self.aclear)


class HistoryStore(Counted):
    """Where histories live. Every method is safe from any task, thread, process and machine that shares the store."""

    async def open(self) -> None:
        """Gets ready; a store that can't be reached is no error yet (see `ping`)."""

    async def close(self) -> None:
        """Lets go of connections and threads."""

    @abstractmethod
    async def ping(self) -> None:
        """Returns when the store can read and write; raises `StoreUnavailable` otherwise."""

    @abstractmethod
    def history(self, user_id: str, session_id: str) -> SessionHistory:
        """The history of one session. Binds without I/O; an unknown session is empty."""

    @abstractmethod
    @override
    async def sessions(
        self, user_id: str, *, limit: int = 50, cursor: str | None = None, query: str | None = None
    ) -> Page[Session]:
        """The user's sessions, newest first; with `query`, those in whose shown line or title all its words stand.

        Case, accents and widths make no difference, nor does the order of the words; a word of the query may be the
        beginning of one that was said. `hits` of each session are turns in which they stand. A search takes a bounded
        time: its page may be short, or empty, and `next` goes on where it ended. `InvalidCursor`.
        """

    @abstractmethod
    async def recall(
        self,
        user_id: str,
        query: str,
        *,
        session_id: str | None = None,
        exclude: Collection[tuple[str, str]] = (),
        limit: int = 8,
    ) -> list[Recalled]:
        """The user's complete turns that bear on the query, best first: of one session, or of all.

        * Only turns of shown lines; none whose (session_id, turn_id) is in `exclude`.
        * A turn that has just ended may be missing for a moment; one that is deleted is never given.

        Raises: `StoreUnavailable`.
        """

    @abstractmethod
    async def notes(self, user_id: str) -> list[Note]:
        """The user's notes, oldest first."""

    @abstractmethod
    async def set_notes(self, user_id: str, notes: Sequence[Note], *, if_notes: Sequence[Note] | None = None) -> None:
        """Puts these in the place of all notes of the user: `HistoryMoved` if those are not `if_notes` any more."""

    @abstractmethod
    def users(self) -> AsyncIterator[str]:
        """All who have a session, each once, in no order; who comes meanwhile may be left out. No request needs this.

        Raises `HistoryDamaged`, after all the others, if the record of a session does not tell whose it is.
        """

    @abstractmethod
    async def forget(self, user_id: str) -> None:
        """Deletes all sessions and notes of the user. `SessionBusy` when a turn runs: what could be deleted then is."""

    def waits(self) -> list[Wait]:
        """Who waits in this process for what the store keeps, and for how long: for who watches over a server."""
        gate: Gate | None = getattr(self, "gate", None)
        return [] if gate is None else gate.queue.waits("a session")

    async def tidy(self) -> int:
        """Takes from the disk what was rewound, replaced or deleted and still lies there; gives how many turns it was.

        For a server to call now and then. A store that forgets at once has nothing to do.
        """
        return 0


PAGE_BYTES = 4 * 1024 * 1024
"""About how many bytes of turns a page may come to: so that no request takes the memory of a whole history."""

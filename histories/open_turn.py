"""A turn that runs, as its store gives it: what it says is journaled, then it is ended, once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from datetime import datetime

from langchain_core.messages import BaseMessage

from histories.blocking import see_through
from histories.codec import copied
from histories.errors import TurnLost
from histories.gate import Gate
from histories.model import Reply, ShownTurn


class OpenTurn(ABC):
    """A turn that runs. Its session belongs to it until `end` returns or raises."""

    turn_id: str
    started_at: datetime | None = None
    window: Sequence[ShownTurn] = ()
    """The turns that the model is to be shown, oldest first. Their messages are not to be changed."""

    has_older: bool = True
    """Whether turns that a model may be shown stand before the window, as far as is known."""

    heard: Callable[[Reply], None] | None = None
    """Hears of the reply once it is durable: for what is kept in step with a history. It must not raise."""

    gate: Gate
    key: str
    _is_over = False
    _events = 0

    @property
    def past(self) -> list[BaseMessage]:
        """The messages of the window, oldest first: copies, with which a caller may do what he likes."""
        return [copied(message) for turn in self.window for message in turn.messages]

    async def journal(self, events: Sequence[bytes]) -> None:
        """Puts what the turn has said meanwhile where every process that shares the store can read it.

        * Each event is JSON in UTF-8 on one line, with no NUL: a text, a message or a part of one as pydantic dumps it,
          or any other value. They are numbered in the order in which they come, from 0.
        * On return they survive the death of this process. A power cut may cost them; never the reply once it ended.
        * They are gone when the turn has ended: its record is the truth then.
        * Calls of one turn come one after the other.

        Raises: `StoreUnavailable` (the turn may go on, and its end is recorded all the same), `TurnLost`.
        """
        if self._is_over:
            raise TurnLost("This turn has ended already.")
        first, self._events = self._events, self._events + len(events)
        await self._journal(first, events)

    async def end(self, reply: Reply) -> None:
        """Makes the reply durable and frees the session.

        * Runs to its end even if the caller is cancelled meanwhile.
        * Whatever it raises, the session is free again, and the record then shows this turn as interrupted.

        Raises: `StoreUnavailable` or one of its kinds; `TurnLost` if it has ended already.
        """
        if self._is_over:
            raise TurnLost("This turn has ended already.")
        self._is_over = True
        try:
            await see_through(self._end(reply))
        finally:
            self.gate.close(self.key)
        if self.heard is not None:
            self.heard(reply)

    @abstractmethod
    async def _journal(self, first: int, events: Sequence[bytes]) -> None:
        """Appends events, of which `first` is the number of the first one; to its end, if the caller is cancelled."""

    @abstractmethod
    async def _end(self, reply: Reply) -> None:
        """Writes the end and frees the session among all processes. Is not cancelled, and called once."""

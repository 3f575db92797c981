"""Who is told of turns: when each was asked for, began, spoke first, and how it ended.

Turns know nothing of logs and metrics: what watches them is handed in, and can't harm them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from langchain_core.messages import AIMessage, BaseMessage

from histories.base import OpenTurn, Reply, Turn, Usage

log = logging.getLogger("recollect.turns")


@dataclass(slots=True, kw_only=True)
class WatchedTurn:
    """A turn as it goes. Times are those of `time.monotonic`, None for what has not come about."""

    user_id: str
    session_id: str
    turn_id: str
    chain: str
    input: Sequence[BaseMessage]
    asked_at: float = field(default_factory=time.monotonic)
    began_at: float | None = None
    spoke_at: float | None = None
    ended_at: float | None = None
    past: Sequence[BaseMessage] = ()
    """What the model was shown of the session."""
    outcome: str = "refused"
    """`refused` (it never began), `replayed` (answered from the record), `unsaved`, or the status on the record."""
    reply: Reply | None = None
    error: BaseException | None = None
    """Why there is no whole reply."""

    @property
    def usage(self) -> Usage | None:
        """The tokens that the model counted."""
        return None if self.reply is None else self.reply.usage

    @property
    def model(self) -> str | None:
        """The model that answered, as it names itself."""
        for message in self.reply.output if self.reply is not None else ():
            if isinstance(message, AIMessage) and message.response_metadata.get("model_name"):
                return str(message.response_metadata["model_name"])
        return None


class TurnObserver(Protocol):
    """Is told of each turn of this process, on its event loop. It must not wait."""

    def asked(self, turn: WatchedTurn) -> None:
        """Somebody asks for the turn: it waits for those before it."""

    def began(self, turn: WatchedTurn) -> None:
        """The turn owns its session, and the user's words are durable; or it is answered from the record."""

    def spoke(self, turn: WatchedTurn) -> None:
        """The first part of the reply is there."""

    def ended(self, turn: WatchedTurn) -> None:
        """The turn is over, whatever came of it. It is told of every turn that was asked for, once."""


class Watch:
    """What one turn tells its observers. An observer that fails is logged, and the turn goes on."""

    def __init__(self, observers: Sequence[TurnObserver], turn: WatchedTurn) -> None:
        self._observers, self.turn = observers, turn
        self._tell("asked")

    def began(self, begun: OpenTurn | Turn) -> None:
        self.turn.began_at = time.monotonic()
        self.turn.outcome = "replayed" if isinstance(begun, Turn) else "unsaved"
        self.turn.past = () if isinstance(begun, Turn) else [m for one in begun.window for m in one.messages]
        self._tell("began")

    def spoke(self) -> None:
        if self.turn.spoke_at is None:
            self.turn.spoke_at = time.monotonic()
            self._tell("spoke")

    def kept(self, reply: Reply) -> None:
        """The turn's end is on the record."""
        self.turn.outcome, self.turn.reply = reply.status.value, reply

    def ended(self, error: BaseException | None) -> None:
        self.turn.ended_at, self.turn.error = time.monotonic(), error
        self._tell("ended")

    def _tell(self, what: str) -> None:
        for observer in self._observers:
            try:
                getattr(observer, what)(self.turn)
            except Exception:
                log.exception("an observer of turns failed")

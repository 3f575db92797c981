"""A line for each turn that ended: whose, in which session, how long, what it cost, and why it failed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from api.ops.logs import Names, event, in_words, without_words
from api.ops.reasons import reason_of
from histories.base import StoreUnavailable
from turns.errors import ChainFailed, InvalidInput, TurnTooLong
from turns.failures import innermost, summary
from turns.observer import WatchedTurn

log = logging.getLogger("recollect.turns")

_OPERATORS = (ChainFailed, TurnTooLong, StoreUnavailable)
"""What an operator has to look into. The rest is a client's, or how turns end."""


class TurnLog:
    """Writes the log of turns. Words of people are in it only with `content`."""

    def __init__(self, names: Names, *, model: str | None = None, content: bool = False) -> None:
        self._names, self._model, self._content = names, model, content

    def asked(self, turn: WatchedTurn) -> None:
        """Nothing to say yet."""

    def began(self, turn: WatchedTurn) -> None:
        """The start is worth a line only for who looks for what never ended."""
        if log.isEnabledFor(logging.DEBUG):
            event(log, logging.DEBUG, "turn began", **self._who(turn))

    def spoke(self, turn: WatchedTurn) -> None:
        """Told with the end."""

    def ended(self, turn: WatchedTurn) -> None:
        error = turn.error
        level = logging.INFO if error is None or isinstance(error, InvalidInput) else logging.WARNING
        if error is not None and (isinstance(error, _OPERATORS) or reason_of(error) == "server"):
            level = logging.ERROR
        if not log.isEnabledFor(level):
            return
        told = in_words(error, _words(turn), content=self._content) if level == logging.ERROR and error else None
        event(log, level, f"turn {turn.outcome}", told, **self._who(turn), **self._what(turn), cause=self._cause(turn))

    def _cause(self, turn: WatchedTurn) -> str | None:
        """What went wrong, in one line."""
        if turn.error is None:
            return None
        told = summary(innermost(turn.error.__cause__ or turn.error))
        return told if self._content else without_words(told, _words(turn))

    def _who(self, turn: WatchedTurn) -> dict[str, Any]:
        return {
            "user": self._names(turn.user_id),
            "session": self._names(turn.session_id),
            "turn": turn.turn_id,
            "chain": turn.chain,
        }

    def _what(self, turn: WatchedTurn) -> dict[str, Any]:
        usage, error = turn.usage, turn.error
        status = getattr(error.__cause__, "status_code", None) if error is not None else None
        fields: dict[str, Any] = {
            "model": turn.model or self._model,
            "waited_ms": _ms(turn.asked_at, turn.began_at),
            "first_token_ms": _ms(turn.began_at, turn.spoke_at),
            "duration_ms": _ms(turn.asked_at, turn.ended_at),
            "input_tokens": usage and usage["input_tokens"],
            "output_tokens": usage and usage["output_tokens"],
            "reason": None if error is None else reason_of(error),
            "model_status": status,
        }
        if self._content:
            fields |= {"said": " ".join(str(message.text) for message in turn.input)}
            fields |= {"replied": " ".join(str(message.text) for message in turn.reply.output) if turn.reply else None}
        return fields


def _ms(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else round((end - start) * 1000, 1)


def _words(turn: WatchedTurn) -> Iterator[str]:
    """What people and models have said in what this turn's model was shown."""
    for message in (*turn.input, *turn.past[-10:]):
        yield str(message.text)[:4000]

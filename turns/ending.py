"""How a turn ends: what of it goes on the record."""

from __future__ import annotations

import logging

from histories.base import Failure, NewTurn, Reply, TurnDetails, TurnStatus
from turns.errors import ChainError, ShuttingDown, TurnStopped
from turns.merging import merged
from turns.outputs import Recorded, as_text
from turns.rules import Explain, Speech, Stop
from turns.voice import Voice

log = logging.getLogger("recollect.turns")

_REASONS = {Stop.ASKED: "stopped", Stop.LEFT: "left", Stop.SHUTDOWN: "shutdown", None: "shutdown"}


class Ending:
    """What a turn that has said all that it will comes to."""

    def __init__(self, new: NewTurn, voice: Voice, speech: Speech, explain: Explain) -> None:
        self._new, self._voice, self._speech, self._explain = new, voice, speech, explain

    def reply(self, error: ChainError | None, stop: Stop | None) -> Reply:
        """The turn's end, for its record; `error` is what kept it from its own, `stop` why it was stopped."""
        if not self._voice.chunks:
            status = TurnStatus.COMPLETE if error is None else TurnStatus.FAILED
            if isinstance(error, (TurnStopped, ShuttingDown)):
                status = TurnStatus.INTERRUPTED
            return Reply(status=status, details=self._details(error, stop, TurnDetails()))
        done = self._kept(cut=error is not None)
        return Reply(
            status=TurnStatus.COMPLETE if error is None else TurnStatus.INTERRUPTED,
            output=done.messages,
            usage=done.usage,
            tokens=done.tokens,
            kind=done.kind,
            details=self._details(error, stop, {**done.details, **self._voice.details()}),
        )

    def _kept(self, *, cut: bool) -> Recorded:
        """What was said as it goes on the record; the bare text of it rather than nothing."""
        try:
            return self._speech.record(merged(self._voice.chunks.joined()), cut)
        except Exception:
            log.exception("turn %s on /%s: its output is kept as text", self._new.turn_id, self._new.chain)
            return as_text(self._voice.chunks.joined())

    def _details(self, error: ChainError | None, stop: Stop | None, details: TurnDetails) -> TurnDetails:
        """The details with the reason why the turn ended before its reply did."""
        if error is None:
            return details
        if isinstance(error, (TurnStopped, ShuttingDown)):
            return {**details, "finish_reason": _REASONS[stop]}
        told = self._explain(error)
        reason = told.reason if told.reason != "cut" or self._voice.chunks else "error"
        problem = Failure(status_code=told.status_code, message=told.message)
        return {**details, "finish_reason": reason, "error": problem}

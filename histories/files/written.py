"""What this process has written to the end of a log, as an index takes it: so that it need not be read back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from langchain_core.messages import BaseMessage

from histories.base import Session, text_of
from histories.files.index import Said
from histories.files.records import Sums

_MOST: Final = 4 * 1024 * 1024
"""How many bytes of logs are kept in memory, for all indices together: what is beyond that is read back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A turn that came to the end of a log, and how far that went before ("": it was not there) and goes now.

    It goes from the byte `start` to `stop`. Its `messages` are those that would be read. `sums` are those at its end.
    """

    before: str
    end: str
    session_id: str
    start: int
    stop: int
    turn_id: str
    is_complete: bool
    messages: Sequence[BaseMessage]
    sums: Sums
    began_at: datetime
    ended_at: datetime

    @property
    def said(self) -> Said:
        """What an index has of it."""
        return Said(self.start, self.stop, self.is_complete, self.turn_id, text_of(self.messages))

    def session(self, created_at: datetime) -> Session:
        """The session's entry in lists when it has ended."""
        sums = self.sums
        return Session(
            session_id=self.session_id, title=sums.title, chain=sums.chain, created_at=created_at,
            updated_at=self.ended_at, turns=sums.turns,
        )  # fmt: skip


@dataclass(slots=True)
class Changes:
    """The logs that have changed, by their users' folders: of each what was written to it, None for one to be read."""

    of: dict[str, dict[str, list[Written] | None]] = field(default_factory=dict)
    _size: int = 0

    def add(self, user: str, name: str, written: Written | None) -> None:
        """Notes that a log has changed, and how, if that is all."""
        logs = self.of.setdefault(user, {})
        known = logs.setdefault(name, [])
        if known is None:
            return
        self._size += 0 if written is None else written.stop - written.start
        if written is None or self._size > _MOST or (known and known[-1].end != written.before):
            logs[name] = None
        else:
            known.append(written)

    def names(self, user: str) -> Sequence[str]:
        """The logs of a user."""
        return sorted(self.of.get(user, ()))

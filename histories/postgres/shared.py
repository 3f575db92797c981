"""What the histories and turns of one PostgreSQL store have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from histories.base import (
    Gate,
    HistoryError,
    HistoryMoved,
    SessionBusy,
    SessionExists,
    SessionNotFound,
    TurnNotFound,
    TurnRunning,
)
from histories.journal import Journal
from histories.postgres.link import Link
from histories.postgres.rows import pack

REFUSALS: Final[Mapping[str, type[HistoryError]]] = {
    "absent": SessionNotFound,
    "exists": SessionExists,
    "held": SessionBusy,
    "moved": HistoryMoved,
    "running": TurnRunning,
    "unknown": TurnNotFound,
}
"""What the functions of the database answer instead of `done`."""


@dataclass(frozen=True, slots=True)
class Shared:
    """`link` gives the connections of the running event loop; `journals` are those of this process, by session."""

    link: Callable[[], Link]
    save_limit_s: float
    gate: Gate = field(default_factory=Gate)
    journals: dict[str, Journal] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SessionName:
    """Whose session, and which: for people, for the gate (`key`), and as parameters of statements."""

    user_id: str
    session_id: str

    @property
    def key(self) -> str:
        return f"{len(self.user_id)}:{self.user_id}{self.session_id}"

    @property
    def params(self) -> dict[str, object]:
        return {"user": pack(self.user_id), "session": pack(self.session_id)}

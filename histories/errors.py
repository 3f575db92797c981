"""What a history can't do. These know nothing of HTTP: the edge gives each of them its status."""

from __future__ import annotations


class HistoryError(Exception):
    """What a history can't do. The message says what to do about it, and carries no path and no secret."""

    usual = ""
    """What it says unless it is told otherwise."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message or self.usual)


class InvalidId(HistoryError, ValueError):
    """A session_id or turn_id outside the alphabet."""


class InvalidCursor(HistoryError, ValueError):
    """A page's cursor that this store did not give out."""

    usual = "Send `cursor` as the `next` of an earlier page."


class SessionNotFound(HistoryError):
    """The user has no such session."""

    usual = "There is no such session."


class TurnNotFound(HistoryError):
    """The session has no such turn."""

    usual = "The session has no such turn."


class SessionExists(HistoryError):
    """The name that a new session should get is taken."""

    usual = "There is a session of that name already: choose another one."


class SessionBusy(HistoryError):
    """A turn of the session is running, and the wait for it ran out."""

    usual = "Another turn of this session is running: try again when it has ended, or stop it."


class TurnRunning(SessionBusy):
    """The turn of a turn_id that the client chose still runs: it can be watched, or waited for."""

    usual = "The turn of this turn_id is still running: wait for it, or stop it."


class HistoryMoved(HistoryError):
    """The history does not end any more with the turn that the caller saw last."""

    usual = "The conversation has moved on since you saw it: look at it again."


class StoreUnavailable(HistoryError):
    """The store can't be reached, or can't write. Nothing that was asked for has been done."""


class StoreFull(StoreUnavailable):
    """The store has no space left."""


class HistoryDamaged(StoreUnavailable):
    """The stored record can't be read as it is: nothing is written to it until it is repaired."""


class TurnLost(StoreUnavailable):
    """The session was removed or taken over while this turn ran: what it said was not recorded."""

    usual = "The session was removed or taken over while this turn ran: its reply was not recorded, send it again."

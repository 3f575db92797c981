"""The cursors of pages, which are opaque to clients, and alike wherever a store counts turns and microseconds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

from histories.errors import InvalidCursor

BEFORE: Final = "Send `before` as the `next` of an earlier page."
"""What is said of a page of turns whose cursor is not one."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def to_micros(at: datetime) -> int:
    """A time in microseconds since 1970."""
    return (at - _EPOCH) // timedelta(microseconds=1)


def from_micros(micros: int) -> datetime:
    """The time, in UTC; `OverflowError` for one that no calendar has."""
    return _EPOCH + timedelta(microseconds=micros)


def cursor_of(micros: int, session_id: str) -> str:
    """The cursor of the sessions that follow this one, which was changed last at that time."""
    return f"{micros}~{session_id}"


def parse_cursor(cursor: str) -> tuple[int, str]:
    """The time and the session_id in it. `InvalidCursor`."""
    time, tilde, session_id = cursor.partition("~")
    if not tilde or not (time.isascii() and time.removeprefix("-").isdigit() and len(time) < 20):
        raise InvalidCursor
    try:
        from_micros(int(time))
    except OverflowError:
        raise InvalidCursor from None
    return int(time), session_id


def parse_before(before: str) -> int:
    """The number in the cursor of a page of turns. `InvalidCursor`."""
    if not (before.isascii() and before.isdigit() and len(before) < 16):
        raise InvalidCursor(BEFORE)
    return int(before)

"""Between what Recollect says and what PostgreSQL stores.

PostgreSQL's text has neither NUL nor lone surrogates, and what was said may have both. Messages are stored as JSON in
ASCII, where they are escapes; short texts as they are, or, if they can't be, as such JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from langchain_core.messages import BaseMessage

from histories import codec
from histories.base import HistoryDamaged, InvalidCursor, Session, Turn, TurnStatus, Usage

_UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LIKE: Final = str.maketrans({"\\": r"\\", "%": r"\%", "_": r"\_"})


def pack(text: str) -> str:
    """`text` as PostgreSQL can hold it; no two texts become the same."""
    if text.startswith(('"', "{")) or _UNSTORABLE.search(text) is not None:
        return codec.dump(text)
    return text


def unpack(stored: str) -> str:
    """What `pack` was given."""
    return str(codec.undump(json.loads(stored))) if stored.startswith(('"', "{")) else stored


def searchable(text: str) -> str:
    """The text as search compares it: without case, and without what can't be stored."""
    return _UNSTORABLE.sub("\ufffd", text.casefold())


def said(messages: Sequence[BaseMessage]) -> str:
    """All that was said in the messages, as search compares it."""
    return searchable(codec.text_of(messages))


def like(query: str) -> str:
    """The pattern of all texts that have `query` in them."""
    return f"%{searchable(query).translate(_LIKE)}%"


def usage_to_json(usage: Usage | None) -> str | None:
    """Token counts as text."""
    return codec.dump(dict(usage)) if usage else None


def session_from(row: Sequence[Any]) -> Session:
    """A session from a row of the statements that find some."""
    session_id, title, chain, created_at, updated_at, turns = row
    return Session(
        session_id=unpack(session_id),
        title=unpack(title),
        chain=unpack(chain),
        created_at=created_at.astimezone(UTC),
        updated_at=updated_at.astimezone(UTC),
        turns=turns,
    )


def turn_from(row: Sequence[Any]) -> Turn:
    """A turn from a row of the statements that find some; raises `HistoryDamaged` when its messages are none."""
    _, turn_id, status, chain, started_at, ended_at, given, output, usage, kind, tokens = row
    try:
        return Turn(
            turn_id=unpack(turn_id),
            status=TurnStatus(status),
            chain=unpack(chain),
            started_at=started_at.astimezone(UTC),
            ended_at=None if ended_at is None else ended_at.astimezone(UTC),
            input=codec.load_messages(json.loads(given)),
            output=codec.load_messages(json.loads(output)),
            usage=None if usage is None else json.loads(usage),
            kind=unpack(kind),
            tokens=tokens,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise damaged() from error


def messages_from(stored: str) -> list[BaseMessage]:
    """The messages of a column; raises `HistoryDamaged` when they are none."""
    try:
        return codec.load_messages(json.loads(stored))
    except (KeyError, TypeError, ValueError) as error:
        raise damaged() from error


def damaged() -> HistoryDamaged:
    return HistoryDamaged("A turn of this session can't be read from PostgreSQL: what is stored are no messages.")


def cursor_after(session: Session) -> str:
    """The cursor of the sessions that follow this one."""
    return f"{(session.updated_at - _EPOCH) // timedelta(microseconds=1)}~{session.session_id}"


def place_of(cursor: str | None) -> tuple[datetime, str]:
    """Where the list of sessions goes on; raises `InvalidCursor`."""
    if cursor is None:
        return datetime.max.replace(tzinfo=UTC), ""
    time, tilde, session_id = cursor.partition("~")
    if not tilde or not (time.isascii() and time.removeprefix("-").isdigit() and len(time) < 19):
        raise InvalidCursor("Send `cursor` as the `next` of an earlier page.")
    try:
        return _EPOCH + timedelta(microseconds=int(time)), pack(session_id)
    except OverflowError:
        raise InvalidCursor("Send `cursor` as the `next` of an earlier page.") from None

"""Between what Recollect says and what PostgreSQL stores.

PostgreSQL's text has neither NUL nor lone surrogates, and what was said may have both. Messages are stored as JSON in
ASCII, where they are escapes; short texts as they are, or, if they can't be, as such JSON.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, cast

from langchain_core.messages import BaseMessage

from histories import codec
from histories.base import Feedback, HistoryDamaged, Note, Session, Turn, TurnDetails, TurnStatus, Usage
from histories.cursors import cursor_of, from_micros, parse_cursor, to_micros
from histories.search import words

_UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")
_WORD: Final = 60
"""How many characters of a word are looked at."""
_WORDS_BYTES: Final = 500_000
"""How much of a turn's words goes into the index: a tsvector holds 1 MB at most."""
_QUERY_WORDS: Final = 32
"""How many words of a query are looked for."""


def pack(text: str) -> str:
    """`text` as PostgreSQL can hold it; no two texts become the same."""
    if text.startswith(('"', "{")) or _UNSTORABLE.search(text) is not None:
        return codec.dump(text)
    return text


def unpack(stored: str) -> str:
    """What `pack` was given."""
    return str(codec.load(stored)) if stored.startswith(('"', "{")) else stored


def mark_of(user_id: str) -> str:
    """What stands before each word of this user's in the index, so that a search reads those of its own user alone."""
    return hashlib.blake2b(user_id.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest() + ":"


def words_of(user_id: str, text: str) -> list[str]:
    """The words of a text as the index holds them: each once, and no more than an entry of PostgreSQL's may have."""
    mark, size, found = mark_of(user_id), 0, list[str]()
    for word in dict.fromkeys(words(text)):
        found.append(mark + word[:_WORD])
        size += len(found[-1].encode())
        if size > _WORDS_BYTES:
            break
    return found


def queries(user_id: str, query: str, *, prefixes: bool) -> list[str]:
    """A tsquery for each word of a query: for the word itself, or for all that begin with it."""
    mark, more = mark_of(user_id), ":*" if prefixes else ""
    wanted = list(dict.fromkeys(word[:_WORD] for word in words(query)))[:_QUERY_WORDS]
    return [f"'{mark}{word}'{more}" for word in wanted]


def usage_to_json(usage: Usage | None) -> str | None:
    """Token counts as text."""
    return codec.dump(dict(usage)) if usage else None


def session_from(row: Sequence[Any]) -> Session:
    """A session from a row of the statements that find some."""
    session_id, title, chain, created_at, updated_at, turns, running = row
    return Session(
        session_id=unpack(session_id),
        title=unpack(title),
        chain=unpack(chain),
        created_at=created_at.astimezone(UTC),
        updated_at=updated_at.astimezone(UTC),
        turns=turns,
        running=None if running is None else unpack(running),
    )


def turn_from(row: Sequence[Any]) -> Turn:
    """A turn from a row of the statements that find some; raises `HistoryDamaged` when its messages are none."""
    _, is_lost, turn_id, status, chain, started_at, ended_at, given, output, usage, kind, tokens = row[:12]
    details, feedback, versions = row[12:15]
    try:
        return Turn(
            turn_id=unpack(turn_id),
            status=TurnStatus.INTERRUPTED if is_lost else TurnStatus(status),
            chain=unpack(chain),
            started_at=started_at.astimezone(UTC),
            ended_at=None if ended_at is None else ended_at.astimezone(UTC),
            input=codec.load_messages(json.loads(given)),
            output=codec.load_messages(json.loads(output)),
            usage=None if usage is None else json.loads(usage),
            kind=unpack(kind),
            tokens=tokens,
            details=cast(TurnDetails, codec.load(details)),
            feedback=None if feedback is None else cast(Feedback, codec.load(feedback)),
            versions=[unpack(version) for version in versions] if len(versions) > 1 else (),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise damaged() from error


def notes_to_json(notes: Sequence[Note]) -> str:
    """Notes as text."""
    return codec.dump([[note.note_id, note.text, note.created_at.isoformat()] for note in notes])


def notes_from(stored: str) -> list[Note]:
    """What `notes_to_json` was given; raises `HistoryDamaged`."""
    try:
        return [
            Note(text=text, created_at=datetime.fromisoformat(at), note_id=note_id)
            for note_id, text, at in cast(list[list[str]], codec.load(stored))
        ]
    except (TypeError, ValueError) as error:
        raise HistoryDamaged("The notes of this user can't be read from PostgreSQL.") from error


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
    return cursor_of(to_micros(session.updated_at), session.session_id)


_LAST: Final = datetime.max.replace(tzinfo=UTC)
TOP: Final = cursor_of(to_micros(_LAST), "")
"""The cursor of all sessions."""


def place_of(cursor: str | None) -> tuple[datetime, str]:
    """Where the list of sessions goes on; raises `InvalidCursor`."""
    if cursor is None:
        return _LAST, ""
    micros, session_id = parse_cursor(cursor)
    return from_micros(micros), pack(session_id)

"""How the Redis store names what it keeps, and writes it down."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, cast
from urllib.parse import quote, unquote

from langchain_core.messages import BaseMessage

from histories import codec
from histories.base import HistoryDamaged, NewTurn, Session, Turn, TurnStatus, Usage

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class UserKeys:
    """The names of what belongs to one user. The tag in braces keeps it together in a cluster."""

    def __init__(self, namespace: str, user_id: str) -> None:
        # No two users share a tag, and one without a name has one, too.
        self._prefix = f"{namespace}:{{{quote(user_id.encode('utf-8', 'surrogatepass'), safe='') or '%'}}}"
        self.sessions = f"{self._prefix}:sessions"

    @staticmethod
    def pattern(namespace: str) -> str:
        """What matches `sessions` of all users, and some other keys."""
        return f"{namespace}:{{*}}:sessions"

    @staticmethod
    def user_of(key: str) -> str | None:
        """Whose `sessions` this is; None of another key. No id of a session ends up in what is taken for a user."""
        found = re.fullmatch(r"[A-Za-z0-9_-]+:\{([A-Za-z0-9_.~%-]+)\}:sessions", key)
        if found is None:
            return None
        return "" if found[1] == "%" else unquote(found[1], errors="surrogatepass")

    def imported(self, token: str) -> list[str]:
        """Of a session and its window that have no name yet."""
        return [f"{self._prefix}:new-session:{token}", f"{self._prefix}:new-window:{token}"]


class Keys(UserKeys):
    """The names of what belongs to one session."""

    def __init__(self, namespace: str, user_id: str, session_id: str) -> None:
        super().__init__(namespace, user_id)
        kinds = ("session", "window", "lease", "line")
        self.session, self.window, self.lease, self.line = (f"{self._prefix}:{kind}:{session_id}" for kind in kinds)
        self.turn = [self.session, self.window, self.lease, self.line, self.sessions]
        """What the scripts that begin and end turns touch, in their order."""
        self.idle = [self.session, self.window, self.lease, self.sessions]
        """The same for those that need a session in which no turn runs."""


def to_micros(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(microseconds=1)


def from_micros(micros: str) -> datetime:
    return _EPOCH + timedelta(microseconds=int(micros))


def begun_record(turn: Turn | NewTurn, at: datetime, messages: str) -> str:
    return "\n".join([json.dumps(turn.turn_id), json.dumps(turn.chain), json.dumps(at.isoformat()), messages])


def ended_record(status: TurnStatus, token: str, at: datetime, messages: str = "[]", **details: object) -> str:
    kept = {"at": at.isoformat(), **{name: value for name, value in details.items() if value}}
    return "\n".join([status, token, json.dumps(kept, separators=(",", ":")), messages])


def read_turn(begun: str, ended: str, *, running: bool = False) -> Turn:
    """The turn of its two records; without the second one it runs, unless its holder died."""
    try:
        turn_id, chain, started, given = begun.split("\n")
        open_status = TurnStatus.RUNNING if running else TurnStatus.INTERRUPTED
        status, _, details, said = ended.split("\n") if ended else (open_status, "", "{}", "[]")
        end: dict[str, Any] = json.loads(details)
        return Turn(
            turn_id=json.loads(turn_id),
            status=TurnStatus(status),
            chain=json.loads(chain),
            started_at=datetime.fromisoformat(json.loads(started)),
            ended_at=datetime.fromisoformat(end["at"]) if end else None,
            input=codec.load_messages(json.loads(given)),
            output=codec.load_messages(json.loads(said)),
            usage=cast(Usage | None, end.get("usage")),
            kind=end.get("kind", ""),
            tokens=end.get("tokens", 0),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _damaged() from error


def read_messages(lists: str) -> list[BaseMessage]:
    """The messages in a JSON list of lists of them."""
    try:
        return [message for messages in json.loads(lists) for message in codec.load_messages(messages)]
    except (TypeError, ValueError) as error:
        raise _damaged() from error


def settled(turn: Turn) -> Turn:
    """A turn of another store, for which nobody runs it here."""
    status = TurnStatus.INTERRUPTED if turn.status is TurnStatus.RUNNING else turn.status
    ended = replace(turn, status=status, ended_at=turn.ended_at or turn.started_at)
    return replace(ended, tokens=turn.tokens if ended.shown else 0)


def fields_of(number: int, turn: Turn) -> list[object]:
    """A settled turn as fields of a session's hash."""
    begun = begun_record(turn, turn.started_at, codec.dump_messages(turn.input))
    details = {"usage": turn.usage, "kind": turn.kind, "tokens": turn.tokens}
    said = codec.dump_messages(turn.output)
    ended = ended_record(turn.status, "-", turn.ended_at or turn.started_at, said, **details)
    return [f"i{json.dumps(turn.turn_id)}", number, f"t{number}", begun, f"e{number}", ended]


def read_entry(session_id: str, fields: Sequence[str]) -> Session:
    title, chain, created, updated, turns = fields
    return Session(
        session_id=session_id,
        title=json.loads(title),
        chain=json.loads(chain),
        created_at=from_micros(created),
        updated_at=from_micros(updated),
        turns=int(turns),
    )


def _damaged() -> HistoryDamaged:
    return HistoryDamaged("This session's record is damaged: a turn of it can't be read.")

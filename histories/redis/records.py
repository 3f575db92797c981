"""How the Redis store names what it keeps, and writes it down."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, cast
from urllib.parse import quote, unquote

from histories import codec
from histories.base import (
    Feedback,
    HistoryDamaged,
    NewTurn,
    Note,
    Reply,
    Session,
    ShownTurn,
    Turn,
    TurnDetails,
    TurnStatus,
    TurnTree,
    Usage,
)
from histories.cursors import from_micros


class UserKeys:
    """The names of what belongs to one user. The tag in braces keeps it together in a cluster."""

    def __init__(self, namespace: str, user_id: str) -> None:
        # No two users share a tag, and one without a name has one, too.
        self._prefix = f"{namespace}:{{{quote(user_id.encode('utf-8', 'surrogatepass'), safe='') or '%'}}}"
        self.sessions, self.notes = f"{self._prefix}:sessions", f"{self._prefix}:notes"

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
        kinds = ("session", "window", "path", "lease", "line")
        self.session, self.window, self.path, self.lease, self.queue = (
            f"{self._prefix}:{kind}:{session_id}" for kind in kinds
        )
        self.all = [self.session, self.window, self.path, self.lease, self.queue, self.sessions]
        """What the scripts that begin, end and change turns touch, in their order (lua/keys.lua)."""

    def journal(self, token: str) -> str:
        """Of what an attempt to run a turn says."""
        return f"{self._prefix}:journal:{token}"

    def heard(self, token: str) -> str:
        """Of whether an attempt to run a turn is listened to on another server."""
        return f"{self._prefix}:heard:{token}"


def begun_record(turn: Turn | NewTurn, at: datetime) -> str:
    """What a turn began with, as four lines of JSON."""
    messages = codec.dump_messages(turn.input)
    return "\n".join([json.dumps(turn.turn_id), json.dumps(turn.chain), json.dumps(at.isoformat()), messages])


def ended_record(reply: Reply | Turn, tokens: int, token: str, at: datetime) -> str:
    """How a turn ended, as four lines. `tokens` is the last of the details, where scripts look for it."""
    details = {
        "usage": reply.usage,
        "kind": reply.kind,
        "details": json.loads(codec.dump(dict(reply.details))) if reply.details else None,
        "tokens": tokens,
    }
    kept = {"at": at.isoformat(), **{name: value for name, value in details.items() if value}}
    messages = codec.dump_messages(reply.output)
    return "\n".join([reply.status, token, json.dumps(kept, separators=(",", ":")), messages])


def read_turn(parts: Sequence[str], *, running: bool = False) -> Turn:
    """The turn of what it began with, how it ended, feedback and versions.

    Without an end it runs, unless its holder died.
    """
    begun, ended, feedback, versions = parts
    try:
        turn_id, chain, started, given = begun.split("\n")
        open_status = TurnStatus.RUNNING if running else TurnStatus.INTERRUPTED
        status, _, details, output = ended.split("\n") if ended else (open_status, "", "{}", "[]")
        end: dict[str, Any] = json.loads(details)
        return Turn(
            turn_id=json.loads(turn_id),
            status=TurnStatus(status),
            chain=json.loads(chain),
            started_at=datetime.fromisoformat(json.loads(started)),
            ended_at=datetime.fromisoformat(end["at"]) if end else None,
            input=codec.load_messages(json.loads(given)),
            output=codec.load_messages(json.loads(output)),
            usage=cast(Usage | None, end.get("usage")),
            kind=end.get("kind", ""),
            tokens=end.get("tokens", 0),
            details=cast(TurnDetails, codec.undump(end.get("details", {}))),
            feedback=cast(Feedback, codec.load(feedback)) if feedback else None,
            versions=json.loads(versions) or (),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _damaged() from error


def read_window(turns: str) -> list[ShownTurn]:
    """The turns in a JSON list of [turn_id, input, output]."""
    try:
        return [
            ShownTurn(turn_id, [*codec.load_messages(given), *codec.load_messages(output)])
            for turn_id, given, output in json.loads(turns)
        ]
    except (TypeError, ValueError) as error:
        raise _damaged() from error


def read_text(begun: str, ended: str) -> tuple[str, str, str]:
    """The turn_id, the status and all that was said in a turn, without making messages of it."""
    try:
        turn_id, _, _, given = begun.split("\n")
        status, _, _, output = ended.split("\n") if ended else ("", "", "", "[]")
        said = [part for messages in (given, output) for part in _texts(codec.load(messages))]
        return json.loads(turn_id), status, "\n".join(said)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _damaged() from error


def _texts(messages: Any) -> Iterator[str]:
    """What `histories.codec.text_of` finds, in messages as they are written down."""
    for message in messages:
        content = message["data"]["content"]
        for part in content if isinstance(content, list) else [content]:
            text = part.get("text") if isinstance(part, dict) else part
            if isinstance(text, str):
                yield text


def dump_notes(notes: Sequence[Note]) -> str:
    return codec.dump([[note.text, note.created_at.isoformat(), note.note_id] for note in notes])


def read_notes(stored: str | None) -> list[Note]:
    try:
        kept: Any = codec.load(stored or "[]")
        return [Note(text=text, created_at=datetime.fromisoformat(at), note_id=note_id) for text, at, note_id in kept]
    except (TypeError, ValueError) as error:
        raise HistoryDamaged("This user's notes are damaged: they can't be read.") from error


def fields_of(number: int, turn: Turn) -> list[object]:
    """A turn at rest as fields of a session's hash."""
    ended = ended_record(turn, turn.tokens, "-", turn.ended_at or turn.started_at)
    begun = begun_record(turn, turn.started_at)
    fields: list[object] = [f"i{json.dumps(turn.turn_id)}", number, f"t{number}", begun, f"e{number}", ended]
    if turn.feedback is not None:
        fields += [f"f{number}", codec.dump(dict(turn.feedback))]
    return fields


def tree_fields(tree: TurnTree) -> list[object]:
    """What the hash of a session that is written at once says of how its turns follow each other (lua/tree.lua)."""
    numbers = {"": 0} | {turn.turn_id: number for number, turn in enumerate(tree.turns, 1)}
    fields: list[object] = ["last", numbers[tree.last]]
    line = tree.line
    if len(line) == len(tree.turns):
        return fields
    fields += ["tree", 1, "top", len(tree.turns)]
    shown, children = {turn.turn_id for turn in line}, dict[int, list[Turn]]()
    for turn, after in zip(tree.turns, tree.after, strict=True):
        children.setdefault(numbers[after], []).append(turn)
        if numbers[after] != numbers[turn.turn_id] - 1:
            fields += [f"p{numbers[turn.turn_id]}", numbers[after]]
    for parent, following in children.items():
        if [numbers[turn.turn_id] for turn in following] != [parent + 1]:
            listed = "\n".join(f"{numbers[turn.turn_id]} {json.dumps(turn.turn_id)}" for turn in following)
            chosen = next((turn for turn in following if turn.turn_id in shown), following[-1])
            fields += [f"c{parent}", listed, f"x{parent}", numbers[chosen.turn_id]]
    return fields


def read_entry(session_id: str, fields: Sequence[str]) -> Session:
    title, chain, created, updated, turns = fields
    return Session(
        session_id=session_id,
        title=json.loads(title),
        chain=json.loads(chain),
        created_at=from_micros(int(created)),
        updated_at=from_micros(int(updated)),
        turns=int(turns),
    )


def _damaged() -> HistoryDamaged:
    return HistoryDamaged("This session's record is damaged: a turn of it can't be read.")

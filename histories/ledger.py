"""What migrations have brought from one store to another, and in which state: so that the next one can tell what was
deleted or changed since, and where. Of users and sessions it knows digests alone.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path

from histories.base import Note, Session, TurnTree, dump, message_to_json


class Ledger:
    """Kept in a file, a line for each thing that was brought or taken away; without a path, only for this run."""

    def __init__(self, path: Path | None = None) -> None:
        self._path, self._marks = path, dict[str, str]()
        with suppress(FileNotFoundError):
            for line in path.read_text("ascii").splitlines() if path is not None else []:
                with suppress(ValueError):  # a line whose writer was killed
                    name, mark = json.loads(line)
                    self._put(name, mark)

    @staticmethod
    def between(source: str, target: str, folder: Path) -> Ledger:
        """That of the way from one store to another, as their URLs name them."""
        return Ledger(folder / f"{_digest([source, target])[:32]}.jsonl")

    def mark(self, user: str, session: str | None) -> str:
        """The state in which a session, or (None) the notes of a user, were brought; empty if they were not."""
        return self._marks.get(_name(user, session), "")

    def note(self, user: str, session: str | None, mark: str) -> None:
        """They stand in the target in that state now; with an empty one, it is not known whether they do."""
        name = _name(user, session)
        if self._marks.get(name, "") == mark:
            return
        self._put(name, mark)
        if self._path is not None:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with open(descriptor, "a", encoding="ascii") as file:
                file.write(f"\n{json.dumps([name, mark])}\n")  # a line that was broken off stays by itself

    def _put(self, name: str, mark: str) -> None:
        self._marks[name] = mark
        if not mark:
            del self._marks[name]


def _name(user: str, session: str | None) -> str:
    return _digest([user, session])


def mark_of(session: Session, tree: TurnTree) -> str:
    """The state of a session."""
    turns = [
        [turn.turn_id, after, turn.status, turn.chain, str(turn.started_at), str(turn.ended_at), turn.kind, turn.tokens,
         [message_to_json(message) for message in turn.input], [message_to_json(message) for message in turn.output],
         turn.usage, dict(turn.details), turn.feedback]
        for turn, after in zip(tree.turns, tree.after, strict=True)
    ]  # fmt: skip
    return _digest([session.title, str(session.created_at), tree.last, turns])


def mark_of_notes(notes: list[Note]) -> str:
    """The state of a user's notes."""
    return _digest([[note.note_id, note.text, str(note.created_at)] for note in notes])


def _digest(what: object) -> str:
    return hashlib.sha256(dump(what).encode("ascii")).hexdigest()

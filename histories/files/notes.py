"""A user's notes: one small file beside the sessions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

from histories import codec
from histories.base import Note
from histories.files.disk import Disk
from histories.files.records import damaged

NOTES: Final = "notes.json"


def read_notes(disk: Disk, folder: int) -> list[Note]:
    """The notes in a user's folder; raises `HistoryDamaged`."""
    content = disk.content(folder, NOTES)
    if content is None:
        return []
    try:
        data: Any = codec.load(content)
        return [Note(text=n["text"], created_at=datetime.fromisoformat(n["at"]), note_id=n["id"]) for n in data]
    except (ValueError, LookupError, TypeError) as error:
        raise damaged() from error


def write_notes(disk: Disk, folder: int, notes: Sequence[Note], *, sync: bool) -> None:
    """Puts these in the place of the notes there, all or none of them."""
    data = codec.dump([{"id": note.note_id, "text": note.text, "at": note.created_at.isoformat()} for note in notes])
    disk.replace(folder, NOTES, data.encode("ascii"), sync=sync)
    if sync:
        disk.sync(folder)

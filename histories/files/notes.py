"""A user's notes: one small file beside the sessions."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import datetime
from secrets import token_hex
from typing import Any, Final

from histories import codec
from histories.base import Note
from histories.files.disk import Disk
from histories.files.records import damaged

NOTES: Final = "notes.json"


def read_notes(disk: Disk, folder: int) -> list[Note]:
    """The notes in a user's folder; raises `HistoryDamaged`."""
    try:
        descriptor = disk.open(folder, NOTES, os.O_RDONLY)
    except FileNotFoundError:
        return []
    try:
        data: Any = codec.undump(json.loads(disk.read(descriptor, os.fstat(descriptor).st_size, 0)))
        return [Note(text=n["text"], created_at=datetime.fromisoformat(n["at"]), note_id=n["id"]) for n in data]
    except (ValueError, LookupError, TypeError) as error:
        raise damaged() from error
    finally:
        os.close(descriptor)


def write_notes(disk: Disk, folder: int, notes: Sequence[Note], *, sync: bool) -> None:
    """Puts these in the place of the notes there, all or none of them."""
    data = codec.dump([{"id": note.note_id, "text": note.text, "at": note.created_at.isoformat()} for note in notes])
    name = f"notes.{token_hex(4)}.tmp"
    descriptor = disk.open(folder, name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND)
    try:
        disk.write(descriptor, data.encode("ascii"))
        if sync:
            disk.sync(descriptor)
        disk.rename(folder, name, NOTES)
        if sync:
            disk.sync(folder)
    finally:
        os.close(descriptor)

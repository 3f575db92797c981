"""What the logs in a user's folder say of themselves."""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import UTC, datetime

from histories.base import HistoryDamaged, Session
from histories.files.disk import Disk
from histories.files.log import Backward, Log
from histories.files.records import Sums


def log_names(folder: int) -> list[str]:
    """The names of all logs in a folder."""
    return [name for name in os.listdir(folder) if name.endswith(".jsonl")]


def has_logs(folder: int) -> bool:
    """Whether there is a log in a folder."""
    with os.scandir(folder) as files:
        return any(file.name.endswith(".jsonl") for file in files)


def session_entry(log: Log) -> Session:
    """The session of a log: its head says who it is, its tail what has become of it."""
    head, last = log.head(), Backward(log, None).previous()
    record = head if last is None else last[1]
    sums = Sums(**record["s"])
    return Session(
        session_id=head["session"],
        title=sums.title,
        chain=sums.chain,
        created_at=datetime.fromisoformat(head["at"]),
        updated_at=datetime.fromisoformat(record["at"]),
        turns=sums.turns,
    )


def any_entry(log: Log) -> tuple[Session | None, bool]:
    """The same of a log that may be empty (None), or damaged: is it sound?"""
    try:
        return (None if log.is_empty() else session_entry(log)), True
    except HistoryDamaged:
        return _damaged_entry(log), False


def _damaged_entry(log: Log) -> Session | None:
    """What is known of a session whose record is damaged: one such does not hide the others, nor is it hidden."""
    with suppress(HistoryDamaged):
        head = log.head()
        return Session(
            session_id=head["session"],
            title="Damaged record",
            chain="",
            created_at=datetime.fromisoformat(head["at"]),
            updated_at=datetime.fromtimestamp(os.fstat(log.descriptor).st_mtime, UTC),
            turns=0,
        )
    return None


def find_user(disk: Disk, folder: int) -> tuple[str | None, bool]:
    """Whose folder it is, as the heads of the logs in it say (None without any), and whether all of them say so."""
    user, sound = None, True
    for name in log_names(folder):
        try:
            log = Log(disk, disk.open(folder, name, os.O_RDONLY))
        except FileNotFoundError:  # deleted in this moment
            continue
        try:
            if not log.is_empty():
                user = str(log.head()["user"])
        except HistoryDamaged:
            sound = False
        finally:
            log.close()
    return user, sound

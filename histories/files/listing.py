"""A user's sessions, from the files of one folder."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime

from histories import codec
from histories.base import HistoryDamaged, InvalidCursor, Page, Session
from histories.files.disk import Disk
from histories.files.folders import File, Folder, Folders, log_names
from histories.files.log import Backward, Log
from histories.files.records import Sums
from histories.files.words import traces_of, words_of
from histories.search import Text, hits


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


def parse_cursor(cursor: str) -> tuple[int, str]:
    """The time, in ns, and the file name that a page of sessions ended with. `InvalidCursor`."""
    time, tilde, name = cursor.partition("~")
    if not tilde or not (time.isascii() and time.isdigit() and len(time) < 24):
        raise InvalidCursor("Send `cursor` as the `next` of an earlier page.")
    return int(time), name


def find_sessions(
    disk: Disk, folders: Folders, descriptor: int, *, limit: int, before: tuple[int, str] | None, query: str | None
) -> Page[Session]:
    """A page of the sessions in a folder, by the time of their last record."""
    needle = query if query and query.strip() else None
    traces = None if needle is None else traces_of(needle)
    found: list[Session] = []
    place = (0, "")
    folder = folders.look(descriptor)
    for file in folder.newest_first(before):
        if traces is not None:
            words = _words(disk, folders, descriptor, folder, file) if file.words is None else file.words
            if words is not None and not all(trace in words for trace in traces):
                continue
        session = _read(disk, descriptor, file.place[1], needle)
        if session is None:
            continue
        if len(found) == limit:
            return Page(found, f"{place[0]}~{place[1]}")
        found.append(session)
        place = file.place
    return Page(found)


def _words(disk: Disk, folders: Folders, descriptor: int, folder: Folder, file: File) -> bytes | None:
    """What a file says, as it is now; None if it has to be parsed to know."""
    try:
        log = Log(disk, disk.open(descriptor, file.place[1], os.O_RDONLY))
    except FileNotFoundError:  # deleted in this moment
        return b""
    try:
        words = words_of(disk.read(log.descriptor, log.size(), 0))
    finally:
        log.close()
    if words is not None:
        folders.keep_words(folder, file, words)
    return words


def _read(disk: Disk, folder: int, name: str, needle: str | None) -> Session | None:
    try:
        log = Log(disk, disk.open(folder, name, os.O_RDONLY))
    except FileNotFoundError:  # deleted in this moment
        return None
    try:
        if log.is_empty():
            return None
        if needle is None:
            return session_entry(log)
        found = hits(needle, log.sums().title, _texts(log))
        return None if found is None else replace(session_entry(log), hits=found)
    except HistoryDamaged:
        return None if needle is not None else _damaged_entry(log)
    finally:
        log.close()


def _damaged_entry(log: Log) -> Session | None:
    """What is known of a session whose record is damaged: one such does not hide the others, nor is it hidden."""
    try:
        head = log.head()
    except HistoryDamaged:
        return None
    return Session(
        session_id=head["session"],
        title="Damaged record",
        chain="",
        created_at=datetime.fromisoformat(head["at"]),
        updated_at=datetime.fromtimestamp(os.fstat(log.descriptor).st_mtime, UTC),
        turns=0,
    )


def _texts(log: Log) -> list[Text[str]]:
    """What was said in each turn of the shown line, oldest first."""
    turns = [entry.turn() for entry in log.entries()]
    return [Text(turn.turn_id, codec.text_of([*turn.input, *turn.output])) for turn in reversed(turns)]

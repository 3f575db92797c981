"""An index as a file: where it stands, how it is opened, made and removed, and which kind of index SQLite allows."""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import closing, suppress
from functools import cache
from secrets import token_hex
from typing import Final
from urllib.parse import quote

from histories.files.index import Index
from histories.files.plain_index import PlainIndex

INDEX: Final = "index.sqlite3"
_BUSY_S: Final = 1.0
"""How long another process is waited for: whoever writes has read its logs before, and is soon done."""


@cache
def has_fts5() -> bool:
    """Whether SQLite finds words by itself: some systems build it without."""
    with closing(sqlite3.connect(":memory:")) as db:
        try:
            db.execute("CREATE VIRTUAL TABLE said USING fts5 (words)")
        except sqlite3.OperationalError:
            return False
    return True


def kind() -> type[Index]:
    """Which kind of index there is."""
    return Index if has_fts5() else PlainIndex


def memory_index() -> Index:
    """An index that nobody shares, and that is gone when it is closed."""
    index = kind()(sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False))
    index.db.executescript(index.schema)
    return index


def open_index(folder: int, path: str, *, durable: bool) -> Index:
    """The index in a user's folder, which is made if there is none. `path` is that of the folder.

    Raises `sqlite3.Error`, `OSError`.
    """
    inode = index_inode(folder) or _create(folder)
    uri = f"file:{quote(os.path.join(path, INDEX))}?mode=rw"
    index = kind()(sqlite3.connect(uri, uri=True, timeout=_BUSY_S, isolation_level=None, check_same_thread=False))
    try:
        index.inode = inode
        _prepare(index, durable=durable)
        _give_schema(index)
    except BaseException:
        index.close()
        raise
    return index


def _prepare(index: Index, *, durable: bool) -> None:
    for name, value in (
        ("secure_delete", "ON"),
        ("temp_store", "MEMORY"),
        ("cache_size", "-512"),
        ("synchronous", "NORMAL" if durable else "OFF"),
    ):
        index.db.execute(f"PRAGMA {name} = {value}")


def _give_schema(index: Index) -> None:
    db = index.db
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version == 0:
        db.execute("PRAGMA journal_mode = WAL")
        with index.writing():
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version == 0:
                for statement in filter(str.strip, index.schema.split(";")):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {index.version}")
                version = index.version
    if version != index.version:
        raise sqlite3.DatabaseError("an index of another version")


def index_inode(folder: int) -> int:
    """The inode of the index in a folder; 0 if there is none."""
    try:
        file = os.stat(INDEX, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return 0
    if not stat.S_ISREG(file.st_mode):
        raise OSError("not a regular file")
    return file.st_ino


def _create(folder: int) -> int:
    """Puts an empty file there that nobody else may read: SQLite's other files have the mode of this one."""
    name = f"index.{token_hex(4)}.tmp"
    os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder))
    try:
        with suppress(FileExistsError):
            os.link(name, INDEX, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
    finally:
        os.unlink(name, dir_fd=folder)
    return index_inode(folder)


def look_anew(folder: int, path: str) -> None:
    """Has the next look at a user's folder be one at all logs in it, if there is an index that would know them."""
    try:
        if index_inode(folder):
            with closing(open_index(folder, path, durable=True)) as index:
                index.note("start", 0)
    except (sqlite3.Error, OSError):
        remove_index(folder)


def remove_index(folder: int) -> None:
    """Removes an index, the file itself first: SQLite leaves the other two alone then, whoever still has it open."""
    for name in (INDEX, f"{INDEX}-wal", f"{INDEX}-shm"):
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)

"""What is kept of a session beside its log: a small file for each, which goes when the session goes."""

from __future__ import annotations

import os
from contextlib import suppress
from secrets import token_hex

from histories.files.idle import present
from histories.files.log import Log
from histories.files.place import Place
from histories.files.records import damaged
from histories.files.services import Services


def read_document(store: Services, place: Place, name: str) -> str | None:
    """The text of that name; None if there is none, or if it is no text of ours."""
    with present(store, place.user) as folder:
        try:
            descriptor = store.disk.open(folder, place.document(name), os.O_RDONLY)
        except FileNotFoundError:
            return None
    try:
        return store.disk.read(descriptor, os.fstat(descriptor).st_size, 0).decode("ascii")
    except UnicodeDecodeError as error:
        raise damaged() from error
    finally:
        os.close(descriptor)


def write_document(store: Services, place: Place, log: Log, name: str, text: str | None) -> None:
    """Puts a text in the place of the one there, whole or not at all. For who alone writes to the session's log."""
    with present(store, place.user) as folder:
        if text is None:
            with suppress(FileNotFoundError):
                store.disk.unlink(folder, place.document(name))
        else:
            _replace(store, folder, place.document(name), text)
            try:
                log.check_place(place.path)
            except BaseException:  # the session was deleted in this instant
                store.disk.unlink(folder, place.document(name))
                raise
        if store.fsync:
            store.disk.sync(folder)


def _replace(store: Services, folder: int, name: str, text: str) -> None:
    temporary = f"{name.partition('.')[0]}.{token_hex(4)}.tmp"
    descriptor = store.disk.open(folder, temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND)
    try:
        store.disk.write(descriptor, text.encode("ascii"))
        if store.fsync:
            store.disk.sync(descriptor)
        store.disk.rename(folder, temporary, name)
    finally:
        os.close(descriptor)

"""What is kept of a session beside its log: a small file for each, which goes when the session goes."""

from __future__ import annotations

from contextlib import suppress

from histories.files.idle import present
from histories.files.log import Log
from histories.files.place import Place
from histories.files.records import damaged
from histories.files.services import Services


def read_document(store: Services, place: Place, name: str) -> str | None:
    """The text of that name; None if there is none. `SessionNotFound`, `HistoryDamaged`."""
    with present(store, place.user) as folder:
        content = store.disk.content(folder, place.document(name))
    try:
        return None if content is None else content.decode("ascii")
    except UnicodeDecodeError as error:
        raise damaged() from error


def write_document(store: Services, place: Place, log: Log, name: str, text: str | None) -> None:
    """Puts a text in the place of the one there, whole or not at all. For who alone writes to the session's log."""
    with present(store, place.user) as folder:
        if text is None:
            with suppress(FileNotFoundError):
                store.disk.unlink(folder, place.document(name))
        else:
            store.disk.replace(folder, place.document(name), text.encode("ascii"), sync=store.fsync)
            try:
                log.check_place(place.path)
            except BaseException:  # the session was deleted in this instant
                store.disk.unlink(folder, place.document(name))
                raise
        if store.fsync:
            store.disk.sync(folder)

"""What is done to a session, or a user, while no turn of it can begin."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from secrets import token_hex

from histories.base import SessionBusy, SessionNotFound
from histories.files.flock import NotNow, Replaced
from histories.files.locks import FileLock
from histories.files.place import Place
from histories.files.services import Services


@contextmanager
def present(store: Services, user: str) -> Iterator[int]:
    """The folder of a user; raises `SessionNotFound` if there is none."""
    try:
        folder = store.open_folder(user)
    except FileNotFoundError:
        raise SessionNotFound from None
    try:
        yield folder
    finally:
        os.close(folder)


@contextmanager
def beside_a_turn(store: Services, place: Place) -> Iterator[None]:
    """For who writes to a log and does not hold the session: who lists sessions sees that it does. See `looks`."""
    with present(store, place.user) as folder:
        name = f"{place.session}.{token_hex(4)}.tmp"
        os.close(store.disk.open(folder, name, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        try:
            yield
        finally:
            if store.indices.doubt(place.user, folder, place.log):
                _unlink(store, folder, name)


def _unlink(store: Services, folder: int, name: str) -> None:
    """Removes a file, which may stay if the disk refuses that twice."""
    for _ in range(2):
        with suppress(OSError):
            store.disk.unlink(folder, name)
            return


async def while_idle(
    store: Services, place: Place, work: Callable[[int], None], *, make_folder: bool = False, makes_room: bool = False
) -> None:
    """Does `work` on the user's folder while no turn of the session can begin. `SessionBusy`, `SessionNotFound`."""
    lock = FileLock(store.disk, place.lock)

    def locked() -> None:
        with store.folder(place.user, create=True) if make_folder else present(store, place.user) as folder:
            try:
                if not _try_acquire(lock, folder, makes_room=makes_room):
                    raise SessionBusy
                work(folder)
            except FileNotFoundError:  # the folder was removed by hand in this instant
                raise NotNow from None
            finally:
                store.free(lock, place, folder)

    async with store.gate.idle(place.key):
        kept = store.open_sessions.take(place.key)
        if kept is not None:
            kept.close()
        await store.write(place.key, locked)


def _try_acquire(lock: FileLock, folder: int, *, makes_room: bool) -> bool:
    try:
        return lock.try_acquire(folder)
    except OSError as error:
        # Not even room for an empty file: nobody has the lock then, and nobody gets it before room is made.
        if not makes_room or error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        return True


def remove_session(store: Services, place: Place, folder: int) -> None:
    """Removes all that there is of the session, the log last: who does not get that far can try again.

    For who holds the session.
    """
    remove_leftovers(store, folder, place)
    with suppress(FileNotFoundError):
        store.disk.unlink(folder, place.log)
    if store.fsync:
        store.disk.sync(folder)
    own = os.fstat(folder)
    if store.disk.file_at(os.path.join(store.path, place.user)) != (own.st_dev, own.st_ino):
        raise Replaced


def remove_leftovers(store: Services, folder: int, place: Place | None = None) -> None:
    """Removes what crashes and repairs have left of a session, or of all; durable when the folder is synced."""
    for name in os.listdir(folder):
        session, _, rest = name.partition(".")
        if (place is None or session == place.session) and (
            rest.startswith("damaged-") or rest.endswith(("tmp", ".json")) or rest == "journal"
        ):
            with suppress(FileNotFoundError):
                store.disk.unlink(folder, name)

"""How the sign-in's files are kept: readable by their owner alone, and replaced as a whole under one lock."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

SECRET_BYTES = 32

log = logging.getLogger("recollect.auth")


class KeyFileError(Exception):
    """A file of the sign-in is damaged, or can't be read or written. The text is one line for the operator."""


def digest(secret: str) -> str:
    """How a secret is kept. 256 random bits can't be guessed, so one fast hash serves."""
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()


def check_private(folder: Path) -> None:
    """Raises KeyFileError if everybody on this machine may write to a data folder, or look into its secrets.

    A folder into which they may only look, as `mkdir` makes them, is closed to them, if it is this user's to close.
    """
    if folder.exists() and not folder.is_dir():
        raise KeyFileError("RECOLLECT_DATA_DIR is no folder")  # and nobody's modes are changed
    for path in (folder, *(folder / name for name in ("secret", "secret.old", "keys.json"))):
        with suppress(FileNotFoundError):
            mode = (path.stat() if path == folder else path.lstat()).st_mode
            if stat.S_ISLNK(mode):
                raise KeyFileError(f"RECOLLECT_DATA_DIR: {path.name} is a link, which is not followed there")
            if path == folder and mode & 0o007 and not mode & 0o002:
                with suppress(PermissionError):
                    path.chmod(mode & 0o7770)
                    log.warning("RECOLLECT_DATA_DIR was open to everybody on this machine: it is closed to others now")
                    continue
            if mode & 0o007:
                name = path.name if path != folder else "the folder"
                raise KeyFileError(f"RECOLLECT_DATA_DIR: {name} is open to everybody on this machine: chmod o-rwx it")


def kept_secret(folder: Path, name: str = "secret") -> bytes:
    """A secret of a data folder, made once for all its processes. Raises KeyFileError."""
    path = folder / name
    try:
        with suppress(FileNotFoundError):
            return _checked(path)
        with alone(folder):
            if not path.exists():
                replace(path, secrets.token_bytes(SECRET_BYTES))
            return _checked(path)
    except OSError as error:
        raise KeyFileError(f"RECOLLECT_DATA_DIR can't be used for the sign-in: {error.strerror}") from error


def read_private(path: Path) -> bytes:
    """The bytes of a file of a data folder. A link there is not followed: whoever may write to the folder could make an
    operator's command, which may read more, copy what it points to. May raise OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        return file.read()


def _checked(path: Path) -> bytes:
    secret = read_private(path)
    if len(secret) < SECRET_BYTES:
        raise KeyFileError(f"the file `{path.name}` is damaged: delete it, and everybody signs in again")
    return secret


class SigningSecret:
    """The secret that signs cookies, and the one before it, whose cookies stay good. Both as they stand now.

    To sign everybody out, delete `secret` and `secret.old`, and restart. May raise KeyFileError.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: tuple[int, ...] = ()
        self._secrets: list[bytes] = []

    def all(self) -> list[bytes]:
        """The newest, which signs, and the one before it."""
        try:
            seen = signature(os.stat(self._folder / "secret"))
        except OSError:
            seen = ()
        if not self._secrets or seen != self._seen:
            self._secrets, self._seen = [kept_secret(self._folder)], seen
            with suppress(OSError):
                self._secrets.append(read_private(self._folder / "secret.old"))
        return self._secrets

    def rotate(self) -> None:
        """Signs with a new secret from now on. What the last one signed stays good; what the one before it did, not."""
        old = kept_secret(self._folder)
        with alone(self._folder):
            replace(self._folder / "secret.old", old)
            replace(self._folder / "secret", secrets.token_bytes(SECRET_BYTES))


def signature(status: os.stat_result) -> tuple[int, ...]:
    """What tells one version of a file from another."""
    return status.st_mtime_ns, status.st_size, status.st_ino


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Holds a folder's files against every other writer, in this process or another. May raise OSError."""
    os.makedirs(folder, mode=0o700, exist_ok=True)
    with create(folder / "keys.lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # freed by the close
        yield


def replace(path: Path, data: bytes) -> None:
    """Replaces a file as a whole, durably; the caller holds the folder. May raise OSError: the old file stands then."""
    new = path.with_name(f"{path.name}.new")
    with create(new, os.O_TRUNC) as file:
        file.write(data)
        file.flush()
        # The clock is finer than the kernel's stamps: two versions in one tick must not look the same to a reader.
        os.utime(file.fileno(), ns=(time.time_ns(), time.time_ns()))
        os.fsync(file.fileno())
    os.replace(new, path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def create(path: Path, flags: int = 0) -> Iterator[IO[bytes]]:
    """Opens a private file for writing, made if it is absent. May raise OSError."""
    descriptor = os.open(path, flags | os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        give_to_owner_of(path.parent, descriptor)
        yield file


def make_folder(path: Path) -> None:
    """Makes a private folder if it is absent. May raise OSError."""
    os.makedirs(path.parent, mode=0o700, exist_ok=True)
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
        give_to_owner_of(path.parent, path)


def give_to_owner_of(folder: Path, made: int | Path) -> None:
    if os.geteuid() == 0:  # an operator's `sudo` must not lock out the user that the server runs as
        owner = folder.stat()
        os.chown(made, owner.st_uid, owner.st_gid, **({} if isinstance(made, int) else {"follow_symlinks": False}))

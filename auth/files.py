"""How the sign-in's files are kept: readable by their owner alone, and replaced as a whole under one lock."""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

SECRET_BYTES = 32


class KeyFileError(Exception):
    """A file of the sign-in is damaged, or can't be read or written. The text is one line for the operator."""


def digest(secret: str) -> str:
    """How a secret is kept. 256 random bits can't be guessed, so one fast hash serves."""
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()


def signing_secret(folder: Path) -> bytes:
    """The secret that signs cookies, made once for all processes of a data folder. Raises KeyFileError.

    To sign everybody out, delete the file `secret` and restart.
    """
    path = folder / "secret"
    try:
        with suppress(FileNotFoundError):
            return _checked(path.read_bytes())
        with alone(folder):
            if not path.exists():
                replace(path, secrets.token_bytes(SECRET_BYTES))
            return _checked(path.read_bytes())
    except OSError as error:
        raise KeyFileError(f"RECOLLECT_DATA_DIR can't be used for the sign-in: {error.strerror}") from error


def _checked(secret: bytes) -> bytes:
    if len(secret) < SECRET_BYTES:
        raise KeyFileError("the file `secret` is damaged: delete it, and everybody signs in again")
    return secret


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
        _give_to_owner_of(path.parent, descriptor)
        yield file


def make_folder(path: Path) -> None:
    """Makes a private folder if it is absent. May raise OSError."""
    os.makedirs(path.parent, mode=0o700, exist_ok=True)
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
        _give_to_owner_of(path.parent, path)


def _give_to_owner_of(folder: Path, made: int | Path) -> None:
    if os.geteuid() == 0:  # an operator's `sudo` must not lock out the user that the server runs as
        owner = folder.stat()
        os.chown(made, owner.st_uid, owner.st_gid)

"""API keys: made, found, listed and revoked, all while servers run."""

from __future__ import annotations

import hmac
import logging
import os
import secrets
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from auth.files import SECRET_BYTES, KeyFileError, alone, digest, replace, signature
from auth.last_used import LastUsed
from auth.users import check_user_id

KEY_PREFIX = "rk_"
FIRST_USER = "local"
_FIRST_LABEL = "first start"

Scope = Literal["chat", "read", "metrics"]
"""What a key opens: all of its user's, or only reading it, or the server's metrics and nothing else."""

logger = logging.getLogger("recollect.auth")


class UnknownKey(ValueError):
    """No API key has that id."""


class Key(BaseModel):
    """An API key as it is kept: without the key."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    id: str
    user: Annotated[str, AfterValidator(check_user_id)]
    hash: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    created_at: str
    label: str = ""
    scopes: tuple[Scope, ...] = ("chat",)
    expires_at: str | None = None

    def expired(self, at: float) -> bool:
        """Whether the key is no good any more, at a time in seconds since 1970."""
        return self.expires_at is not None and datetime.fromisoformat(self.expires_at).timestamp() <= at


class _KeyFile(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    version: Literal[1] = 1
    keys: tuple[Key, ...] = ()
    signed_out: dict[str, float] = Field(default_factory=dict)

    @cached_property
    def by_hash(self) -> dict[str, Key]:
        return {key.hash: key for key in self.keys}

    @cached_property
    def by_id(self) -> dict[str, Key]:
        return {key.id: key for key in self.keys}


class ApiKeys:
    """The API keys of a data folder, as they stand now: a change by another process is seen by the next call.

    Every method may raise KeyFileError, and those that write OSError too. A folder without a key file has no keys.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._path = folder, folder / "keys.json"
        self._seen: tuple[tuple[int, ...], _KeyFile | None] = ((), None)
        self.used = LastUsed(folder / "used")

    def find(self, key: str) -> Key | None:
        """The record of an API key; None if there is none, or no longer."""
        hashed = digest(key)
        found = self._current().by_hash.get(hashed)
        if found is None or not hmac.compare_digest(found.hash, hashed) or found.expired(time.time()):
            return None
        self.used.note(found.id)
        return found

    def get(self, key_id: str) -> Key | None:
        """The record of the key with that id; None once it has expired."""
        found = self._current().by_id.get(key_id)
        return None if found is None or found.expired(time.time()) else found

    def all(self) -> Sequence[Key]:
        """All keys, oldest first."""
        return self._current().keys

    def newest(self, user: str) -> Key | None:
        """The user's newest key."""
        return next((key for key in reversed(self.all()) if key.user == user), None)

    def signed_out_at(self, user: str) -> float:
        """When the user was last signed out everywhere, in seconds since 1970; 0.0 for never."""
        return self._current().signed_out.get(user, 0.0)

    def create(
        self, user: str, label: str = "", *, scopes: tuple[Scope, ...] = ("chat",), expires: datetime | None = None
    ) -> tuple[Key, str]:
        """A new key: its record, and the key itself, which is kept nowhere. Raises InvalidUserId."""
        check_user_id(user)
        with alone(self._folder):
            return self._add(user, label, scopes, expires)

    def first(self) -> Key | None:
        """The key of the first start: made if there are no keys at all, None if there are others."""
        with alone(self._folder):
            keys = self.all()
            if not keys:
                return self._add(FIRST_USER, _FIRST_LABEL)[0]
            return keys[0] if len(keys) == 1 and keys[0].label == _FIRST_LABEL else None

    def revoke(self, key_id: str) -> None:
        """Ends a key, and the sign-in of each browser that came by it. Raises UnknownKey."""
        with alone(self._folder):
            book = self._current()
            if key_id not in book.by_id:
                raise UnknownKey(f"no key has the id {key_id!r}: `keys list` shows them")
            kept = tuple(key for key in book.keys if key.id != key_id)
            self._write(_KeyFile(keys=kept, signed_out=book.signed_out))
        self.used.forget(key_id)

    def sign_out(self, user: str) -> None:
        """Ends the sign-in of each browser of the user, however it came in. Raises InvalidUserId."""
        check_user_id(user)
        with alone(self._folder):
            book = self._current()
            self._write(_KeyFile(keys=book.keys, signed_out={**book.signed_out, user: time.time()}))

    def _add(
        self, user: str, label: str, scopes: tuple[Scope, ...] = ("chat",), expires: datetime | None = None
    ) -> tuple[Key, str]:
        book, secret = self._current(), KEY_PREFIX + secrets.token_urlsafe(SECRET_BYTES)
        at = datetime.now(UTC).isoformat(timespec="seconds")
        until = None if expires is None else expires.astimezone(UTC).isoformat(timespec="seconds")
        new = {"id": secrets.token_hex(6), "user": user, "hash": digest(secret), "created_at": at, "label": label}
        key = Key(**new, scopes=scopes, expires_at=until)
        self._write(_KeyFile(keys=(*book.keys, key), signed_out=book.signed_out))
        return key, secret

    def _write(self, book: _KeyFile) -> None:
        replace(self._path, book.model_dump_json(indent=1).encode())

    def _current(self) -> _KeyFile:
        try:
            if signature(os.stat(self._path)) != self._seen[0]:
                self._seen = self._read()
        except FileNotFoundError:
            return _KeyFile()
        except OSError as error:
            raise KeyFileError(f"keys.json can't be read: {error.strerror}") from error
        if self._seen[1] is None:
            raise KeyFileError("keys.json is damaged: restore it, or delete it to begin again without keys")
        return self._seen[1]

    def _read(self) -> tuple[tuple[int, ...], _KeyFile | None]:
        with open(os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
            seen = signature(os.fstat(file.fileno()))
            data = file.read()
        try:
            return seen, _KeyFile.model_validate_json(data)
        except ValidationError:
            logger.error("keys.json is damaged: no API key and no cookie is accepted until it is restored")
            return seen, None

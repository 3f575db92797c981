"""Links by which anybody may read one conversation, until they are revoked. Only hashes of their tokens are kept.

They lie in the data folder, where the API keys are: whichever server opens that folder knows them.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from auth.files import SECRET_BYTES, KeyFileError, create, digest, make_folder

log = logging.getLogger("recollect.auth")

TOKEN_PREFIX = "rs_"  # noqa: S105 - what tells such a token from others
MOST_SHARES = 1000
"""Of one user: who makes links in a loop must not fill a folder that all have to look through."""

_OWNER_DIGITS = 16


class Share(BaseModel):
    """A conversation as it was at `created_at`, for who has the link.

    `session_since` is when the session began: a later one of the same name is another one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    share_id: str
    user: str
    session_id: str
    session_since: AwareDatetime
    created_at: AwareDatetime


def _now() -> datetime:
    return datetime.now(UTC)


class Shares:
    """The shares of a data folder: a file for each, which names its token's hash and its owner's.

    Every method blocks for some milliseconds, and may raise KeyFileError.
    """

    def __init__(self, folder: Path, *, now: Callable[[], datetime] = _now) -> None:
        self._folder, self._now = folder / "shares", now

    def create(self, user: str, session_id: str, session_since: datetime) -> tuple[Share, str]:
        """A new share, and its token, which nobody is told again."""
        token = TOKEN_PREFIX + secrets.token_urlsafe(SECRET_BYTES)
        hashed = digest(token)
        share = Share(
            share_id=hashed[:32], user=user, session_id=session_id, session_since=session_since, created_at=self._now()
        )
        with _told("can't be kept"):
            make_folder(self._folder)
            with create(self._folder / f"{hashed}.{_owner(user)}") as file:
                file.write(share.model_dump_json().encode())
        return share, token

    def find(self, token: str) -> Share | None:
        """The share of a token; None if it was revoked, or never was."""
        if not token.startswith(TOKEN_PREFIX):
            return None
        with _told("can't be read"):
            return next(filter(None, map(_read, self._folder.glob(f"{digest(token)}.*"))), None)

    def of(self, user: str) -> list[Share]:
        """All shares of a user, the newest first."""
        with _told("can't be read"):
            found = [share for share in map(_read, self._paths(user)) if share is not None and share.user == user]
        return sorted(found, key=lambda share: share.created_at, reverse=True)

    def revoke(self, user: str, *, share_id: str | None = None, session_id: str | None = None) -> int:
        """Ends those of a user's shares that have that id, or are of that session; without either, all. How many?"""
        count = 0
        with _told("can't be revoked"):
            for path in [*self._paths(user)]:
                share = _read(path)
                if share is None or share.user != user or share_id not in (None, share.share_id):
                    continue
                if session_id in (None, share.session_id):
                    path.unlink(missing_ok=True)
                    count += 1
        return count

    def forget(self, user: str, session_id: str | None = None) -> None:
        """Ends the shares of a session that is gone, or all of a user's: without it, too, they open nothing."""
        try:
            self.revoke(user, session_id=session_id)
        except KeyFileError as error:
            log.warning("%s", error)

    def _paths(self, user: str) -> Iterator[Path]:
        return self._folder.glob(f"*.{_owner(user)}")


@contextmanager
def _told(what: str) -> Iterator[None]:
    """What the file system refuses, as one line for the operator."""
    try:
        yield
    except OSError as error:
        raise KeyFileError(f"the shares {what}: {error.strerror}") from error


def _owner(user: str) -> str:
    return digest(user)[:_OWNER_DIGITS]


def _read(path: Path) -> Share | None:
    """None for one that was revoked meanwhile, or is damaged: nothing is open that can't be read."""
    with suppress(FileNotFoundError, ValidationError):
        return Share.model_validate_json(path.read_bytes())
    return None

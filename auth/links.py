"""One-time links, which sign a browser in with nothing to type."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from auth.files import SECRET_BYTES, KeyFileError, create, digest, make_folder, read_private
from auth.users import check_user_id

LINK_LIFE_S = 600


class Link(BaseModel):
    """Whom a link signs in, by which of their keys (None: by no key), and until when, in seconds since 1970."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    user: str
    key_id: str | None
    expires: float


class Links:
    """The links of a data folder. Each is a file that its token's hash names, and that its use removes."""

    def __init__(self, folder: Path, *, now: Callable[[], float] = time.time) -> None:
        self._folder, self._now = folder / "links", now

    def create(self, user: str, key_id: str | None = None) -> str:
        """The token of a new link. Raises InvalidUserId, and OSError if it can't be kept."""
        check_user_id(user)
        make_folder(self._folder)
        self._sweep()
        token = secrets.token_urlsafe(SECRET_BYTES)
        link = Link(user=user, key_id=key_id, expires=self._now() + LINK_LIFE_S)
        with create(self._folder / digest(token), os.O_EXCL) as file:
            file.write(link.model_dump_json().encode())
        return token

    def peek(self, token: str) -> Link | None:
        """The link of a token, which stays good; None if it was used, is too old, or never was. Raises KeyFileError."""
        try:
            link = Link.model_validate_json(read_private(self._folder / digest(token)))
        except (FileNotFoundError, ValidationError):
            return None
        except OSError as error:
            raise KeyFileError(f"the one-time links can't be read: {error.strerror}") from error
        return link if self._now() < link.expires else None

    def consume(self, token: str) -> Link | None:
        """The link of a token, for one caller among all processes; None if it was used, is too old, or never was.

        Raises KeyFileError.
        """
        path = self._folder / digest(token)
        try:
            link = Link.model_validate_json(read_private(path))
            path.unlink()  # of several at once, one can
        except (FileNotFoundError, ValidationError):
            return None
        except OSError as error:
            raise KeyFileError(f"the one-time links can't be read: {error.strerror}") from error
        return link if self._now() < link.expires else None

    def _sweep(self) -> None:
        for path in self._folder.iterdir():
            with suppress(FileNotFoundError):
                if path.stat().st_mtime + LINK_LIFE_S < self._now():
                    path.unlink()


def server_url(host: str, port: int) -> str:
    """Where a browser on this machine finds a server that listens on `host`, without a slash at the end."""
    reachable = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"


def login_url(server: str, token: str) -> str:
    """The one-time link of a token, at the server with that URL."""
    return f"{server.rstrip('/')}/login?token={token}"


def invitation(server: str, token: str | None) -> str:
    """The line that tells an operator how to sign in at the server with that URL."""
    if token is None:
        return "To sign a browser in: admin.py link --user NAME"
    return f"Sign in, once, within ten minutes: {login_url(server, token)}"

"""Legal holds: users of whom nothing may be deleted by retention or erased, until the hold is lifted."""

from __future__ import annotations

import json
from pathlib import Path

from auth.files import KeyFileError, alone, read_private, replace
from auth.users import check_user_id


class Holds:
    """The holds of a data folder, as they stand now. May raise KeyFileError, and to change them OSError."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._path = folder, folder / "holds.json"

    def all(self) -> list[str]:
        """The users who are held, by name."""
        try:
            held = json.loads(read_private(self._path))
        except FileNotFoundError:
            return []
        except (OSError, ValueError) as error:
            raise KeyFileError("holds.json can't be read: nothing is deleted until it is mended") from error
        if not isinstance(held, list) or not all(isinstance(user, str) for user in held):
            raise KeyFileError("holds.json is damaged: nothing is deleted until it is mended")
        return held

    def __contains__(self, user: str) -> bool:
        return user in self.all()

    def add(self, user: str) -> None:
        """Holds a user. Raises InvalidUserId."""
        check_user_id(user)
        with alone(self._folder):
            self._write({*self.all(), user})

    def lift(self, user: str) -> None:
        """Ends a hold; one that is not there is no error."""
        with alone(self._folder):
            self._write(set(self.all()) - {user})

    def _write(self, users: set[str]) -> None:
        replace(self._path, json.dumps(sorted(users)).encode())

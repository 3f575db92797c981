"""What may name a user."""

from __future__ import annotations

import unicodedata
from typing import TypeGuard

USER_ID_LENGTH = 255


class InvalidUserId(ValueError):
    """A name that can't be a user's."""


def is_user_id(value: object) -> TypeGuard[str]:
    """Whether a value can name a user: 1 to 255 characters, no control characters, no lone surrogates."""
    if not isinstance(value, str) or not 1 <= len(value) <= USER_ID_LENGTH:
        return False
    return value.isprintable() or all(unicodedata.category(char) not in ("Cc", "Cs") for char in value)


def check_user_id(value: str) -> str:
    """The user id itself. Raises InvalidUserId."""
    if not is_user_id(value):
        raise InvalidUserId(f"a user's name has 1 to {USER_ID_LENGTH} characters, and no control characters")
    return value

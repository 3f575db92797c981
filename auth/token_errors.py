"""What can be wrong with a JSON Web Token; apart from `auth.tokens`, which takes PyJWT and what it stands on along."""

from __future__ import annotations

LEEWAY_S = 10  # for clocks that disagree


class InvalidToken(Exception):
    """The token is not one of the configured issuer's, or no longer."""


class KeysUnreachable(Exception):
    """The keys that would tell whether the token is valid can't be fetched now."""

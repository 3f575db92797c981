"""JSON Web Tokens of somebody else's sign-in. The configuration fixes which algorithms count, never a token."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from typing import Any

import jwt

from auth.token_errors import LEEWAY_S, InvalidToken, KeysUnreachable
from auth.users import is_user_id

__all__ = ["InvalidToken", "KeySet", "KeysUnreachable", "TokenVerifier"]

_HS256_KEY_BYTES = 32  # RFC 7518, section 3.2

logger = logging.getLogger("recollect.auth")


class TokenVerifier:
    """Says whom a JWT names. It is signed by HS256 with `secret`, or by RS256 or ES256 with a key of `jwks_url`.

    A token must have `exp` and `sub`, and an `aud` or `iss` that is configured; one with an `aud` when none is
    configured was made for somebody else. `max_life_s` bounds its life, from its `iat` or from now (0: no bound).
    Raises ValueError for a configuration that can't be meant.
    """

    def __init__(
        self,
        *,
        secret: str | None = None,
        jwks_url: str | None = None,
        audience: str | None = None,
        issuer: str | None = None,
        max_life_s: float = 0,
    ) -> None:
        self._max_life_s = max_life_s
        if (secret is None) == (jwks_url is None):
            raise ValueError("JSON Web Tokens need either a secret or the URL of a key set")
        self._keys = KeySet(jwks_url) if jwks_url is not None else None
        self._secret = _hs256_key(secret) if secret is not None else b""
        self._algorithms = ("HS256",) if self._keys is None else KeySet.ALGORITHMS
        self._audience, self._issuer = audience, issuer

    async def user(self, token: str) -> str:
        """The token's `sub`. Raises InvalidToken and KeysUnreachable."""
        try:
            key = self._secret if self._keys is None else await self._key_of(token, self._keys)
            claims = jwt.decode(
                token,
                key,
                algorithms=self._algorithms,
                audience=self._audience,
                issuer=self._issuer,
                leeway=LEEWAY_S,
                options={"require": ["exp", "sub"], "enforce_minimum_key_length": True},
            )
        except (jwt.PyJWTError, InvalidToken) as error:
            logger.warning("a token is refused: %s", type(error).__name__)
            raise InvalidToken from error
        user = claims["sub"]
        if not is_user_id(user) or not self._is_strict(claims):
            logger.warning("a token is refused: its claims are not strictly those of RFC 7519, or it lives too long")
            raise InvalidToken
        return user

    def _is_strict(self, claims: dict[str, Any]) -> bool:
        """Whether times are numbers and audiences are texts, as RFC 7519 wants them, and the life is not too long."""
        times = [claims[name] for name in ("exp", "iat", "nbf") if name in claims]
        if any(isinstance(at, bool) or not isinstance(at, (int, float)) or not math.isfinite(at) for at in times):
            return False
        audience = claims.get("aud", [])
        named = [audience] if isinstance(audience, str) else audience
        if not isinstance(named, list) or not all(isinstance(one, str) for one in named):
            return False
        life_s: float = claims["exp"] - claims.get("iat", time.time())
        return not self._max_life_s or life_s <= self._max_life_s + LEEWAY_S

    async def _key_of(self, token: str, keys: KeySet) -> jwt.PyJWK:
        header = jwt.get_unverified_header(token)
        kid = header.get("kid")
        if header.get("alg") not in self._algorithms or not isinstance(kid, str):
            raise InvalidToken
        key = await keys.find(kid)
        if key is None:
            raise InvalidToken
        return key


def _hs256_key(secret: str) -> bytes:
    key = secret.encode()
    if len(key) < _HS256_KEY_BYTES:
        raise ValueError(f"the secret of JSON Web Tokens must be at least {_HS256_KEY_BYTES} bytes long")
    try:
        return jwt.get_algorithm_by_name("HS256").prepare_key(key)  # type: ignore[no-any-return]
    except jwt.InvalidKeyError as error:
        raise ValueError("the secret of JSON Web Tokens is a public or private key: use the key set's URL") from error


class KeySet:
    """The signing keys behind a JWKS URL: kept, and fetched anew when they grow old or a key is not among them.

    There is one fetch at a time, off the event loop, and none within `COOLDOWN_S` of the last, so that made-up key ids
    can't be used to hammer the URL. While it can't be reached, the keys last seen serve on, but not for ever: a key
    that was taken back must die.
    """

    ALGORITHMS = ("RS256", "ES256")
    FRESH_S, STALE_S, COOLDOWN_S, TIMEOUT_S = 300.0, 3600.0, 10.0, 5.0

    def __init__(self, url: str, *, now: Callable[[], float] = time.monotonic) -> None:
        self._client = jwt.PyJWKClient(url, cache_jwk_set=False, timeout=self.TIMEOUT_S)
        self._now = now
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fetched_at = self._tried_at = float("-inf")
        self._failed = False
        self._fetching: asyncio.Task[None] | None = None

    async def find(self, kid: str) -> jwt.PyJWK | None:
        """The key of that id; None if the set has none. Raises KeysUnreachable if that can't be told now."""
        key = self._known(kid)
        if key is None or self._now() - self._fetched_at > self.FRESH_S:
            fetching = self._refresh()
            if fetching is not None and (key is None or not self._failed):  # else the key at hand serves meanwhile
                await asyncio.shield(fetching)  # a caller that leaves does not end it for the others
            key = self._known(kid)
        if key is None and self._failed:
            raise KeysUnreachable
        return key

    def _known(self, kid: str) -> jwt.PyJWK | None:
        return self._keys.get(kid) if self._now() - self._fetched_at <= self.STALE_S else None

    def _refresh(self) -> asyncio.Task[None] | None:
        """The fetch that is under way or now begins; None so soon after the last."""
        if self._fetching is not None and not self._fetching.done():
            return self._fetching
        if self._now() - self._tried_at < self.COOLDOWN_S:
            return None
        self._tried_at = self._now()
        self._fetching = asyncio.create_task(self._fetch())
        return self._fetching

    async def _fetch(self) -> None:
        try:
            keys: list[Any] = await asyncio.to_thread(self._client.get_signing_keys)
        except (jwt.PyJWTError, OSError, ValueError) as error:
            logger.warning("The key set of RECOLLECT_JWT_JWKS_URL can't be fetched: %s", type(error).__name__)
            self._failed = True
            return
        self._keys = {key.key_id: key for key in keys if key.algorithm_name in self.ALGORITHMS}
        self._fetched_at, self._failed = self._now(), False

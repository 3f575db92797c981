"""Who a credential names, and what it opens."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.requests import HTTPConnection

from auth.audit import Audit
from auth.cookies import cookie_name
from auth.files import KeyFileError, SigningSecret, check_private
from auth.keys import KEY_PREFIX, ApiKeys, Scope
from auth.links import Link, Links
from auth.refusals import INVALID, NOBODY, UNKNOWABLE, Refusal, refuse_foreign
from auth.sign_ins import SignIns
from auth.token_errors import LEEWAY_S, InvalidToken, KeysUnreachable
from auth.users import is_user_id

if TYPE_CHECKING:
    from auth.tokens import TokenVerifier

COOKIE_LIFE_S = 30 * 24 * 3600
_COOKIE_AUDIENCE = "recollect:cookie"  # so that no other token that this secret may sign is a cookie
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

Counted = Callable[[str, str], None]
"""Is told of each `sign_in` (by what) and each `refusal` (why)."""


async def _not_counted(address: str) -> None:
    return


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, and by what."""

    user: str
    scopes: tuple[Scope, ...] = ("chat",)


class Auth:
    """The credentials that one server accepts. API keys and cookies always; JWTs if a secret or a URL is given.

    `idle_s` ends the sign-in of a browser that is not used for so long, `jwt_max_life_s` bounds the life of a JWT
    (0: no limit). Raises KeyFileError if the data folder can't be used, and ValueError for JWT settings that can't be
    meant.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        jwt_secret: str | None = None,
        jwt_jwks_url: str | None = None,
        jwt_audience: str | None = None,
        jwt_issuer: str | None = None,
        jwt_max_life_s: float = 0,
        idle_s: float = 0,
        counted: Counted = lambda what, how: None,
    ) -> None:
        self.keys, self.links, self.audit = ApiKeys(data_dir), Links(data_dir), Audit(data_dir)
        self.sign_ins, self.counted = SignIns(data_dir, idle_s=idle_s), counted
        self.tokens: TokenVerifier | None = None
        if jwt_secret is not None or jwt_jwks_url is not None:
            from auth.tokens import TokenVerifier  # here: it takes along what API keys can do without

            self.tokens = TokenVerifier(
                secret=jwt_secret,
                jwks_url=jwt_jwks_url,
                audience=jwt_audience,
                issuer=jwt_issuer,
                max_life_s=jwt_max_life_s,
            )
        self.failed: Callable[[str], Awaitable[None]] = _not_counted
        """Is told of each address that shows a wrong credential. It may raise a `Refusal` of its own."""

        check_private(data_dir)
        self._secret = SigningSecret(data_dir)
        self._secret.all()
        self.keys.all()  # a damaged file is better met now than at the first request

    async def wrong(self, request: HTTPConnection, refusal: Refusal) -> Refusal:
        """How a request with a wrong credential is refused, once it is counted."""
        if refusal.detail != INVALID:
            return refusal
        try:
            await self.failed(request.client.host if request.client else "")
        except Refusal as too_often:
            return too_often
        return refusal

    def first_link(self) -> str | None:
        """The token of a fresh one-time link, as long as nobody else can sign in: no JWTs, no key but the first one.

        It makes that key. May raise KeyFileError and OSError.
        """
        if self.tokens is not None:
            return None
        is_new, first = not self.keys.all(), self.keys.first()
        if first is None:
            return None
        if is_new:
            self.audit.note("key.create", who=None, source="server.py", user=first.user, key=first.id)
        self.audit.note("link.create", who=None, source="server.py", user=first.user)
        return self.links.create(first.user, first.id)

    async def caller_of(self, request: HTTPConnection) -> Caller:
        """Whom a request's credential names. An `Authorization` header counts before the cookie.

        Raises Refusal: 401, 403 for a change that another site's page asks for, 503 if it can't be told now.
        """
        with _if_it_can_be_told():
            headers = request.headers.getlist("authorization")
            if headers:
                return await self._by_header(headers)
            cookie = request.cookies.get(cookie_name(request))
            if cookie is None:
                raise Refusal(401, NOBODY)
            user = str(self._claims_of(cookie)["sub"])
        if request.scope.get("method") not in _SAFE_METHODS:
            refuse_foreign(request.headers)
        return Caller(user)

    async def _by_header(self, headers: list[str]) -> Caller:
        scheme, _, credential = headers[0].partition(" ")
        credential = credential.strip()
        if len(headers) != 1 or scheme.lower() != "bearer":
            raise Refusal(401, INVALID)
        if credential.startswith(KEY_PREFIX):
            key = self.keys.find(credential)
            if key is not None:
                return Caller(key.user, key.scopes)
        elif self.tokens is not None:
            with suppress(InvalidToken):
                return Caller(await self.tokens.user(credential))
        raise Refusal(401, INVALID)

    def _claims_of(self, cookie: str) -> dict[str, Any]:
        claims = self._decoded(cookie)
        user, key_id = claims["sub"], claims.get("key")
        key = None if key_id is None else self.keys.get(key_id)
        revoked = key_id is not None and (key is None or key.user != user)
        if revoked or claims["iat"] <= self.keys.signed_out_at(user) or not is_user_id(user):
            raise Refusal(401, INVALID)
        if not isinstance(claims["jti"], str) or not self.sign_ins.use(claims["jti"]):
            raise Refusal(401, INVALID)
        return claims

    def _decoded(self, cookie: str) -> dict[str, Any]:
        import jwt  # here: 9 MB, of which a server without browsers needs nothing; the first one waits 30 ms

        for secret in self._secret.all():
            with suppress(jwt.PyJWTError):
                return jwt.decode(
                    cookie,
                    secret,
                    algorithms=["HS256"],
                    audience=_COOKIE_AUDIENCE,
                    leeway=LEEWAY_S,
                    options={"require": ["exp", "iat", "sub", "jti"]},
                )
        raise Refusal(401, INVALID)

    def cookie_for_key(self, key: str) -> tuple[str, str]:
        """The user and the cookie of a browser that shows an API key. Raises Refusal (401, 503)."""
        with _if_it_can_be_told():
            found = self.keys.find(key)
            if found is None or "chat" not in found.scopes:
                raise Refusal(401, INVALID)
            return found.user, self._cookie(found.user, found.id)

    def link_of(self, token: str) -> Link:
        """The one-time link of a token, which is not used up. Raises Refusal (401, 503)."""
        with _if_it_can_be_told():
            return self._good(self.links.peek(token))

    def cookie_for_link(self, token: str) -> tuple[str, str]:
        """The user and the cookie of a browser that follows a one-time link, which is used up. Raises Refusal."""
        with _if_it_can_be_told():
            link = self._good(self.links.consume(token))
            return link.user, self._cookie(link.user, link.key_id)

    def _good(self, link: Link | None) -> Link:
        if link is None or (link.key_id is not None and self.keys.get(link.key_id) is None):
            raise Refusal(401, INVALID)
        return link

    def sign_out(self, request: HTTPConnection) -> str | None:
        """Ends the sign-in of the browser that asks, on every server; gives its user, None if it is not signed in.

        Raises Refusal (503).
        """
        cookie = request.cookies.get(cookie_name(request))
        with _if_it_can_be_told(), suppress(Refusal):
            if cookie is not None:
                claims = self._claims_of(cookie)
                self.sign_ins.end(claims["jti"])
                return str(claims["sub"])
        return None

    def _cookie(self, user: str, key_id: str | None) -> str:
        """A browser's sign-in: it ends with the key by which it came, or by `sign_out`, or after COOKIE_LIFE_S."""
        import jwt  # here: see above

        now, key = time.time(), None if key_id is None else self.keys.get(key_id)
        claims: dict[str, Any] = {"sub": user, "aud": _COOKIE_AUDIENCE, "iat": now, "exp": int(now) + COOKIE_LIFE_S}
        claims["jti"] = self.sign_ins.begin(COOKIE_LIFE_S, user, key_id)
        if key is not None:
            claims["key"] = key.id
        return jwt.encode(claims, self._secret.all()[0], algorithm="HS256")


@contextmanager
def _if_it_can_be_told() -> Iterator[None]:
    try:
        yield
    except (KeyFileError, KeysUnreachable, OSError) as error:
        raise Refusal(503, UNKNOWABLE) from error

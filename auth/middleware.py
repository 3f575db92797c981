"""Who is calling: a credential becomes a `user_id`, or the request is refused before anything else is looked at.

`AuthMiddleware` is the gate before every route. `current_user` is what a route depends on to get the user id; it also
tells OpenAPI which credentials there are. What a refusal looks like is in `auth.refusals`, and the routes by which
browsers sign in and out are in `auth.login`.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

import jwt
from fastapi import HTTPException, Request, Security
from fastapi.security import APIKeyCookie, HTTPBearer
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from auth.files import KeyFileError, signing_secret
from auth.keys import KEY_PREFIX, ApiKeys
from auth.links import Links
from auth.refusals import INVALID, NOBODY, UNKNOWABLE, Refusal, refuse_foreign, refused
from auth.tokens import LEEWAY_S, InvalidToken, KeysUnreachable, TokenVerifier
from auth.users import is_user_id

COOKIE = "recollect"
COOKIE_LIFE_S = 30 * 24 * 3600
PUBLIC_PATHS = frozenset({"/healthz", "/login", "/login.css", "/logout"})
_COOKIE_AUDIENCE = "recollect:cookie"  # so that no other token that this secret may sign is a cookie
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


async def _not_counted(address: str) -> None:
    return


class Auth:
    """The credentials that one server accepts. API keys and cookies always; JWTs if a secret or a URL is given.

    Raises KeyFileError if the data folder can't be used, and ValueError for JWT settings that can't be meant.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        jwt_secret: str | None = None,
        jwt_jwks_url: str | None = None,
        jwt_audience: str | None = None,
        jwt_issuer: str | None = None,
    ) -> None:
        self.keys, self.links = ApiKeys(data_dir), Links(data_dir)
        self.tokens: TokenVerifier | None = None
        if jwt_secret is not None or jwt_jwks_url is not None:
            self.tokens = TokenVerifier(
                secret=jwt_secret, jwks_url=jwt_jwks_url, audience=jwt_audience, issuer=jwt_issuer
            )
        self.failed: Callable[[str], Awaitable[None]] = _not_counted
        """Is told of each address that shows a wrong credential. It may raise a `Refusal` of its own."""

        self._secret = signing_secret(data_dir)
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
        first = self.keys.first() if self.tokens is None else None
        return None if first is None else self.links.create(first.user, first.id)

    async def user_of(self, request: HTTPConnection) -> str:
        """The user that a request's credential names. An `Authorization` header counts before the cookie.

        Raises Refusal: 401, 403 for a change that another site's page asks for, 503 if it can't be told now.
        """
        with _if_it_can_be_told():
            headers = request.headers.getlist("authorization")
            if headers:
                return await self._user_of_header(headers)
            cookie = request.cookies.get(COOKIE)
            if cookie is None:
                raise Refusal(401, NOBODY)
            user = self._user_of_cookie(cookie)
        if request.scope["method"] not in _SAFE_METHODS:
            refuse_foreign(request.headers)
        return user

    async def _user_of_header(self, headers: list[str]) -> str:
        scheme, _, credential = headers[0].partition(" ")
        credential = credential.strip()
        if len(headers) != 1 or scheme.lower() != "bearer":
            raise Refusal(401, INVALID)
        if credential.startswith(KEY_PREFIX):
            key = self.keys.find(credential)
            if key is not None:
                return key.user
        elif self.tokens is not None:
            with suppress(InvalidToken):
                return await self.tokens.user(credential)
        raise Refusal(401, INVALID)

    def _user_of_cookie(self, cookie: str) -> str:
        try:
            claims = jwt.decode(
                cookie,
                self._secret,
                algorithms=["HS256"],
                audience=_COOKIE_AUDIENCE,
                leeway=LEEWAY_S,
                options={"require": ["exp", "iat", "sub"]},
            )
        except jwt.PyJWTError as error:
            raise Refusal(401, INVALID) from error
        user, key_id = claims["sub"], claims.get("key")
        key = None if key_id is None else self.keys.get(key_id)
        revoked = key_id is not None and (key is None or key.user != user)
        if revoked or claims["iat"] <= self.keys.signed_out_at(user) or not is_user_id(user):
            raise Refusal(401, INVALID)
        return user

    def cookie_for_key(self, key: str) -> str:
        """The cookie for a browser that shows an API key. Raises Refusal (401, 503)."""
        with _if_it_can_be_told():
            found = self.keys.find(key)
        if found is None:
            raise Refusal(401, INVALID)
        return self._cookie(found.user, found.id)

    def cookie_for_link(self, token: str) -> str:
        """The cookie for a browser that follows a one-time link, which uses it up. Raises Refusal (401, 503)."""
        with _if_it_can_be_told():
            link = self.links.consume(token)
            if link is None or (link.key_id is not None and self.keys.get(link.key_id) is None):
                raise Refusal(401, INVALID)
        return self._cookie(link.user, link.key_id)

    def _cookie(self, user: str, key_id: str | None) -> str:
        """A browser's sign-in: it ends with the key by which it came, or by `sign_out`, or after COOKIE_LIFE_S."""
        now = time.time()
        claims: dict[str, Any] = {"sub": user, "aud": _COOKIE_AUDIENCE, "iat": now, "exp": int(now) + COOKIE_LIFE_S}
        if key_id is not None:
            claims["key"] = key_id
        return jwt.encode(claims, self._secret, algorithm="HS256")


@contextmanager
def _if_it_can_be_told() -> Iterator[None]:
    try:
        yield
    except (KeyFileError, KeysUnreachable) as error:
        raise Refusal(503, UNKNOWABLE) from error


_bearer = HTTPBearer(auto_error=False, scheme_name="bearer", bearerFormat="API key or JWT")
_cookie = APIKeyCookie(name=COOKIE, auto_error=False, scheme_name="cookie", description="Set by /login.")


async def current_user(
    request: Request,
    _by_header: Annotated[object, Security(_bearer)] = None,
    _by_cookie: Annotated[object, Security(_cookie)] = None,
) -> str:
    """The dependency of every route: the user id that the gate found. 401 if there is none: never open by mistake."""
    user = getattr(request.state, "user_id", None)
    if not is_user_id(user):
        refusal = Refusal(401, NOBODY)
        raise HTTPException(refusal.status, refusal.detail, headers=refusal.headers)
    return user


class AuthMiddleware:
    """The gate: only exact `public` paths pass without a credential. It sets `request.state.user_id` for the rest.

    It reads no body, so it must be the outermost middleware. WebSockets are refused: nothing here speaks them.
    """

    def __init__(self, app: ASGIApp, auth: Auth, public: Collection[str] = PUBLIC_PATHS) -> None:
        self.app, self.auth, self.public = app, auth, frozenset(public)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or (scope["type"] == "http" and scope["path"] in self.public):
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        request = Request(scope)
        try:
            user = await self.auth.user_of(request)
        except Refusal as refusal:
            refusal = await self.auth.wrong(request, refusal)
            await refused(request, refusal)(scope, receive, send)
            return
        scope["state"] = {**scope.get("state", {}), "user_id": user}
        await self.app(scope, receive, send)

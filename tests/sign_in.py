"""A small server behind the gate, and an issuer of JSON Web Tokens, for the tests of the sign-in."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Annotated, Any

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from fastapi import Depends, FastAPI, Request

from auth.login import router
from auth.middleware import Auth, AuthMiddleware, current_user

ORIGIN = "http://recollect.test"
SECRET = "a secret of thirty-two bytes or so"
User = Annotated[str, Depends(current_user)]


def app_of(auth: Auth) -> FastAPI:
    """Three routes of no meaning behind the gate, and the real ones of the sign-in."""
    app = FastAPI()
    app.include_router(router(auth))

    @app.get("/healthz")
    async def healthz() -> str:
        return "alive"

    @app.get("/whoami")
    async def whoami(user_id: User) -> str:
        return user_id

    @app.post("/change")
    async def change(request: Request, user_id: User) -> str:
        return f"{user_id}: {(await request.body()).decode()}"

    app.add_middleware(AuthMiddleware, auth=auth)
    return app


def client_of(auth: Auth, origin: str = ORIGIN, **headers: str) -> httpx.AsyncClient:
    """A client of that server: a browser as far as cookies go, and one that does not follow redirects."""
    transport = httpx.ASGITransport(app_of(auth))
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.AsyncClient(transport=transport, base_url=origin, headers=named)


async def follow(client: httpx.AsyncClient, token: str, to: str = "/") -> httpx.Response:
    """Presses the button that a one-time link shows."""
    return await client.post("/login", data={"token": token, "next": to}, headers={"Origin": str(client.base_url)})


def bearer(credential: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {credential}"}


def claims(user: object = "alice", **changes: object) -> dict[str, Any]:
    """The claims of a good token of a user; a change to None leaves the claim out."""
    merged = {"sub": user, "exp": int(time.time()) + 300, **changes}
    return {name: value for name, value in merged.items() if value is not None}


async def status(auth: Auth, token: str) -> int:
    """The status of a request with that token."""
    async with client_of(auth) as client:
        return (await client.get("/whoami", headers=bearer(token))).status_code


def hs256(token_claims: dict[str, object], key: bytes, **header: object) -> str:
    """A token signed by HS256 with any bytes at all, which the library refuses to do."""
    parts = [json.dumps({"alg": "HS256", **header}), json.dumps(token_claims)]
    text = ".".join(base64.urlsafe_b64encode(part.encode()).decode().rstrip("=") for part in parts)
    mac = hmac.new(key, text.encode(), hashlib.sha256).digest()
    return f"{text}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"


BAD_CLAIMS: dict[str, dict[str, Any]] = {
    "expired": claims(exp=int(time.time()) - 60),
    "no expiry": claims(exp=None),
    "an expiry that is no number": claims(exp="soon"),
    "an endless expiry": claims(exp=float("inf")),
    "not yet valid": claims(nbf=int(time.time()) + 600),
    "issued in the future": claims(iat=int(time.time()) + 600),
    "no subject": claims(None),
    "an empty subject": claims(""),
    "a control character": claims("a\nb"),
    "a lone surrogate": claims("\ud800"),
    "a long subject": claims("x" * 256),
    "a foreign audience": claims(aud="another service"),
    "foreign audiences": claims(aud=["another service", "and another"]),
}


class Issuer(ThreadingHTTPServer):
    """Signs tokens, and serves its public keys over HTTP as a JWKS; counts how often it is asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.private: dict[str, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey] = {}
        self.asked, self.status = 0, 200
        self.body: bytes | None = None
        self.open, self.called = threading.Event(), threading.Event()
        self.open.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/jwks.json"

    def add_rsa(self, kid: str, bits: int = 2048) -> None:
        self.private[kid] = rsa.generate_private_key(65537, bits)

    def add_ec(self, kid: str) -> None:
        self.private[kid] = ec.generate_private_key(ec.SECP256R1())

    def sign(self, kid: str, body: dict[str, Any], *, headers: dict[str, Any] | None = None) -> str:
        algorithm = "RS256" if isinstance(self.private[kid], rsa.RSAPrivateKey) else "ES256"
        return jwt.encode(body, self.private[kid], algorithm=algorithm, headers={"kid": kid, **(headers or {})})

    def jwks(self) -> bytes:
        if self.body is not None:
            return self.body
        return json.dumps({"keys": [{**_jwk(key), "kid": kid} for kid, key in self.private.items()]}).encode()


class _Handler(BaseHTTPRequestHandler):
    server: Issuer

    def do_GET(self) -> None:
        self.server.asked += 1
        self.server.called.set()
        self.server.open.wait(60)
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(self.server.jwks())

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


def _jwk(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> dict[str, Any]:
    if isinstance(key, rsa.RSAPrivateKey):
        return {**jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True), "use": "sig"}
    return {**jwt.algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True), "alg": "ES256"}


@contextmanager
def issuing() -> Iterator[Issuer]:
    """An issuer with an RSA key `r` and an elliptic curve key `e`, until the end of the block."""
    with Issuer() as issuer:
        issuer.add_rsa("r")
        issuer.add_ec("e")
        thread = threading.Thread(target=issuer.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield issuer
        finally:
            issuer.open.set()
            issuer.shutdown()
            thread.join()

"""JSON Web Tokens: by a secret, and by the keys behind a URL."""

from __future__ import annotations

import base64
import time
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from auth.middleware import Auth
from auth.tokens import TokenVerifier
from tests.sign_in import BAD_CLAIMS, SECRET, bearer, claims, client_of, hs256, issuing, status


async def test_a_token_names_its_user_and_keys_go_on_working(tmp_path: Path) -> None:
    auth = Auth(tmp_path, jwt_secret=SECRET)
    _, key = auth.keys.create("carol")
    async with client_of(auth) as client:
        for user in ("alice", "bob"):
            response = await client.get("/whoami", headers=bearer(jwt.encode(claims(user), SECRET)))
            assert response.json() == user
        assert (await client.get("/whoami", headers=bearer(key))).json() == "carol"


@pytest.mark.parametrize("body", BAD_CLAIMS.values(), ids=BAD_CLAIMS.keys())
async def test_a_token_that_does_not_count_is_401(tmp_path: Path, body: dict[str, object]) -> None:
    assert await status(Auth(tmp_path, jwt_secret=SECRET), hs256(body, SECRET.encode())) == 401


async def test_a_subject_that_is_not_text_is_401(tmp_path: Path) -> None:
    for subject in (1, ["alice"], {"a": 1}, True):
        assert await status(Auth(tmp_path, jwt_secret=SECRET), hs256(claims(subject), SECRET.encode())) == 401


async def test_a_token_with_another_or_no_signature_is_401(tmp_path: Path) -> None:
    auth, good = Auth(tmp_path, jwt_secret=SECRET), jwt.encode(claims(), SECRET)
    deep = base64.urlsafe_b64encode(b'{"alg":"HS256","x":' + b"[" * 20_000).decode().rstrip("=")
    for token in (
        jwt.encode(claims(), "", algorithm="none"),
        "x.y.z",
        jwt.encode(claims(), SECRET + "!"),
        good[:-3] + ("abc" if not good.endswith("abc") else "abd"),
        good.rsplit(".", 1)[0] + ".",
        hs256(claims(), SECRET.encode(), crit=["x"], x=1),
        hs256(claims(), SECRET.encode(), kid=7),
        f"{deep}.e30.AA",
    ):
        assert await status(auth, token) == 401
    assert await status(Auth(tmp_path), good) == 401  # where no JWTs are configured


async def test_audience_and_issuer_are_checked_when_they_are_set(tmp_path: Path) -> None:
    auth = Auth(tmp_path, jwt_secret=SECRET, jwt_audience="recollect", jwt_issuer="https://id.example")
    good = {"aud": "recollect", "iss": "https://id.example"}
    assert await status(auth, jwt.encode(claims(**good), SECRET)) == 200
    assert await status(auth, jwt.encode(claims(**{**good, "aud": ["x", "recollect"]}), SECRET)) == 200
    changes: list[dict[str, object]] = [
        {"aud": "x"},
        {"aud": None},
        {"aud": []},
        {"iss": "https://evil"},
        {"iss": None},
    ]
    for change in changes:
        assert await status(auth, jwt.encode(claims(**{**good, **change}), SECRET)) == 401


async def test_clocks_may_disagree_by_a_few_seconds(tmp_path: Path) -> None:
    assert await status(Auth(tmp_path, jwt_secret=SECRET), jwt.encode(claims(exp=int(time.time()) - 3), SECRET)) == 200


@pytest.mark.parametrize(
    ("secret", "url"), [(None, None), (SECRET, "http://127.0.0.1/jwks"), ("", None), ("short", None)]
)
def test_a_configuration_that_cannot_be_meant_stops_the_start(secret: str | None, url: str | None) -> None:
    with pytest.raises(ValueError, match="JSON Web Tokens"):
        TokenVerifier(secret=secret, jwks_url=url)


def test_a_public_key_is_no_secret() -> None:
    with issuing() as issuer:
        pem = issuer.private["r"].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(ValueError, match="public or private key"):
        TokenVerifier(secret=pem.decode())

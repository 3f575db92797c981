"""JSON Web Tokens by the keys behind a URL."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from auth.middleware import Auth
from auth.tokens import InvalidToken, KeySet, KeysUnreachable, TokenVerifier
from tests.sign_in import BAD_CLAIMS, SECRET, Issuer, bearer, claims, client_of, hs256, issuing, status


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with issuing() as found:
        yield found


async def test_rs256_and_es256_tokens_count_by_the_issuers_keys(tmp_path: Path, issuer: Issuer) -> None:
    auth = Auth(tmp_path, jwt_jwks_url=issuer.url)
    for kid, user in (("r", "alice"), ("e", "bob"), ("r", "carol")):
        async with client_of(auth) as client:
            assert (await client.get("/whoami", headers=bearer(issuer.sign(kid, claims(user))))).json() == user
    assert issuer.asked == 1


@pytest.mark.parametrize("body", BAD_CLAIMS.values(), ids=BAD_CLAIMS.keys())
async def test_an_issuers_token_that_does_not_count_is_401(
    tmp_path: Path, issuer: Issuer, body: dict[str, object]
) -> None:
    auth = Auth(tmp_path, jwt_jwks_url=issuer.url)
    assert await status(auth, issuer.sign("e", body)) == 401


async def test_a_public_key_does_not_sign(tmp_path: Path, issuer: Issuer) -> None:
    auth = Auth(tmp_path, jwt_jwks_url=issuer.url)
    public = issuer.private["r"].public_key()
    for format in (PublicFormat.SubjectPublicKeyInfo, PublicFormat.PKCS1):
        for encoding in (Encoding.PEM, Encoding.DER):
            assert await status(auth, hs256(claims(), public.public_bytes(encoding, format), kid="r")) == 401
    assert await status(auth, hs256(claims(), issuer.jwks(), kid="r")) == 401


async def test_a_shared_secret_among_the_issuers_keys_does_not_count(tmp_path: Path, issuer: Issuer) -> None:
    shared = base64.urlsafe_b64encode(SECRET.encode()).decode().rstrip("=")
    keys = json.loads(issuer.jwks())["keys"]
    issuer.body = json.dumps({"keys": [*keys, {"kty": "oct", "k": shared, "kid": "o"}]}).encode()
    auth = Auth(tmp_path, jwt_jwks_url=issuer.url)
    assert await status(auth, hs256(claims(), SECRET.encode(), kid="o")) == 401
    assert await status(auth, issuer.sign("e", claims())) == 200


async def test_a_token_that_mixes_keys_and_algorithms_is_401(tmp_path: Path, issuer: Issuer) -> None:
    auth = Auth(tmp_path, jwt_jwks_url=issuer.url)
    for token in (
        issuer.sign("e", claims(), headers={"kid": "r"}),
        issuer.sign("r", claims(), headers={"kid": "e"}),
        jwt.encode(claims(), issuer.private["r"], algorithm="RS256"),
        jwt.encode(claims(), issuer.private["r"], algorithm="RS512", headers={"kid": "r"}),
        jwt.encode(claims(), issuer.private["r"], algorithm="PS256", headers={"kid": "r"}),
        jwt.encode(claims(), "", algorithm="none", headers={"kid": "r"}),
    ):
        assert await status(auth, token) == 401


async def test_made_up_key_ids_do_not_hammer_the_issuer(tmp_path: Path, issuer: Issuer) -> None:
    auth = Auth(tmp_path, jwt_jwks_url=issuer.url)
    forged = [issuer.sign("r", claims(), headers={"kid": f"made up {number}"}) for number in range(20)]
    assert await asyncio.gather(*(status(auth, token) for token in forged)) == [401] * 20
    assert issuer.asked == 1
    assert await status(auth, issuer.sign("r", claims())) == 200
    assert issuer.asked == 1


async def test_an_issuer_that_cannot_be_reached_is_503(tmp_path: Path, issuer: Issuer) -> None:
    issuer.status = 500
    auth, token = Auth(tmp_path, jwt_jwks_url=issuer.url), issuer.sign("r", claims())
    _, key = auth.keys.create("carol")
    async with client_of(auth) as client:
        for _ in range(5):
            response = await client.get("/whoami", headers=bearer(token))
            assert (response.status_code, response.headers["retry-after"]) == (503, "10")
        assert (await client.get("/whoami", headers=bearer(key))).status_code == 200
    assert issuer.asked == 1


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"keys": []}', b'{"keys": [{"kty": "x"}]}', b"\xff"])
async def test_an_issuer_that_sends_nonsense_is_503(tmp_path: Path, issuer: Issuer, body: bytes) -> None:
    issuer.body = body
    assert await status(Auth(tmp_path, jwt_jwks_url=issuer.url), issuer.sign("r", claims())) == 503


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_a_new_key_is_found_without_a_restart(issuer: Issuer) -> None:
    clock = Clock()
    keys = KeySet(issuer.url, now=clock)
    assert await keys.find("r") is not None
    issuer.add_ec("new")
    assert await keys.find("new") is None
    clock.now += KeySet.COOLDOWN_S
    assert await keys.find("new") is not None
    assert await keys.find("r") is not None
    assert issuer.asked == 2


async def test_a_key_that_was_taken_back_stops_working_when_the_set_grows_old(issuer: Issuer) -> None:
    clock = Clock()
    keys = KeySet(issuer.url, now=clock)
    assert await keys.find("r") is not None
    del issuer.private["r"]
    clock.now += KeySet.FRESH_S + 1
    assert await keys.find("r") is None


async def test_while_the_issuer_is_away_its_keys_serve_on_but_not_for_ever(issuer: Issuer) -> None:
    clock = Clock()
    keys = KeySet(issuer.url, now=clock)
    assert await keys.find("r") is not None
    issuer.status = 503
    for _ in range(3):
        clock.now += KeySet.FRESH_S + 1
        assert await keys.find("r") is not None
    with pytest.raises(KeysUnreachable):
        await keys.find("unknown")
    clock.now += KeySet.STALE_S
    with pytest.raises(KeysUnreachable):
        await keys.find("r")
    clock.now += KeySet.COOLDOWN_S
    issuer.status = 200
    assert await keys.find("r") is not None


async def test_while_the_issuer_is_away_nobody_with_a_known_key_waits_for_it(issuer: Issuer) -> None:
    clock = Clock()
    keys = KeySet(issuer.url, now=clock)
    assert await keys.find("r") is not None
    issuer.status = 503
    clock.now += KeySet.FRESH_S + 1
    assert await keys.find("r") is not None
    clock.now += KeySet.COOLDOWN_S
    issuer.open.clear()  # from now on it hangs
    assert await asyncio.wait_for(keys.find("r"), 60) is not None
    issuer.open.set()


async def test_many_callers_share_one_fetch_and_one_that_leaves_does_not_end_it(issuer: Issuer) -> None:
    issuer.open.clear()
    keys = KeySet(issuer.url)
    callers = [asyncio.create_task(keys.find("r")) for _ in range(10)]
    assert await asyncio.to_thread(issuer.called.wait, 10)
    callers[0].cancel()
    issuer.open.set()
    found = await asyncio.gather(*callers, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert all(isinstance(key, jwt.PyJWK) for key in found[1:])
    assert issuer.asked == 1


async def test_a_weak_key_of_the_issuer_does_not_count(issuer: Issuer) -> None:
    issuer.add_rsa("weak", bits=1024)
    verifier = TokenVerifier(jwks_url=issuer.url)
    with pytest.warns(jwt.InsecureKeyLengthWarning):
        token = issuer.sign("weak", claims())
    with pytest.raises(InvalidToken):
        await verifier.user(token)

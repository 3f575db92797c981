"""How a browser signs in and out: one-time links, the form, the cookie, and pages of other sites."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import jwt
import pytest

from auth.files import kept_secret
from auth.login import safe_next
from auth.middleware import Auth
from tests.sign_in import ORIGIN, bearer, claims, client_of, follow

OWN = {"Origin": ORIGIN}


@pytest.fixture
def auth(tmp_path: Path) -> Auth:
    return Auth(tmp_path)


async def sign_in(client: httpx.AsyncClient, auth: Auth, user: str = "alice") -> None:
    assert (await follow(client, auth.links.create(user))).status_code == 303


async def test_revoking_a_key_ends_its_cookies_and_its_links(auth: Auth) -> None:
    (record, key), (_, other) = auth.keys.create("alice"), auth.keys.create("alice")
    token = auth.links.create("alice", record.id)
    async with client_of(auth) as by_form, client_of(auth) as by_link, client_of(auth) as by_other:
        assert (await by_form.post("/login", data={"key": f" {key}\n"}, headers=OWN)).status_code == 303
        assert (await by_other.post("/login", data={"key": other}, headers=OWN)).status_code == 303
        assert (await follow(by_link, auth.links.create("alice", record.id))).is_redirect
        clients = (by_form, by_link, by_other)
        assert [(await client.get("/whoami")).status_code for client in clients] == [200, 200, 200]
        auth.keys.revoke(record.id)
        assert [(await client.get("/whoami")).status_code for client in clients] == [401, 401, 200]
        assert (await follow(by_link, token)).status_code == 401


async def test_signing_a_user_out_ends_all_their_cookies_and_nobody_elses(auth: Auth) -> None:
    async with client_of(auth) as alice, client_of(auth) as bob:
        await sign_in(alice, auth, "alice")
        await sign_in(bob, auth, "bob")
        auth.keys.sign_out("alice")
        assert [(await client.get("/whoami")).status_code for client in (alice, bob)] == [401, 200]
        await sign_in(alice, auth, "alice")
        assert (await alice.get("/whoami")).status_code == 200


@pytest.mark.parametrize(("origin", "secure"), [(ORIGIN, False), ("https://recollect.test", True)])
async def test_the_cookie_is_out_of_reach_for_scripts_and_other_sites(auth: Auth, origin: str, secure: bool) -> None:
    async with client_of(auth, origin) as client:
        response = await follow(client, auth.links.create("alice"))
    _, *attributes = response.headers["set-cookie"].split("; ")
    expected = {"HttpOnly", "SameSite=lax", "Path=/", f"Max-Age={30 * 24 * 3600}"}
    assert set(attributes) == expected | ({"Secure"} if secure else set())


async def test_a_tampered_expired_or_foreign_cookie_is_401(tmp_path: Path) -> None:
    auth, secret, theirs = Auth(tmp_path, jwt_secret="s" * 32), kept_secret(tmp_path), "recollect:cookie"
    jti = auth.sign_ins.begin(60)
    good = jwt.encode(claims(aud=theirs, iat=time.time(), jti=jti), secret)
    head, body, signature = good.split(".")
    bad = [
        f"{head}.{jwt.encode(claims('bob', aud=theirs, iat=1, jti=jti), secret).split('.')[1]}.{signature}",
        f"{head}.{body}.",
        jwt.encode(claims(aud=theirs, iat=1, jti=jti, exp=int(time.time()) - 60), secret),
        jwt.encode(claims(aud=theirs, jti=jti), secret),
        jwt.encode(claims(aud=theirs, iat=1), secret),
        jwt.encode(claims(aud=theirs, iat=1, jti="gone"), secret),
        jwt.encode(claims(aud=theirs, iat=1, jti=7), secret),
        jwt.encode(claims(iat=1, jti=jti), secret),
        jwt.encode(claims(aud="another", iat=1, jti=jti), secret),
        jwt.encode(claims(aud=theirs, iat=1, jti=jti), "s" * 32),
        jwt.encode(claims(aud=theirs, iat=1, jti=jti, key="gone"), secret),
        jwt.encode(claims("a\nb", aud=theirs, iat=1, jti=jti), secret),
        jwt.encode(claims(aud=theirs, iat=1, jti=jti), "", algorithm="none"),
        jwt.encode(claims(), "s" * 32),  # a good API token
        auth.keys.create("alice")[1],  # a good key
    ]
    async with client_of(auth) as client:
        for cookie in bad:
            response = await client.get("/whoami", headers={"Cookie": f"recollect={cookie}"})
            assert response.status_code == 401, cookie
        assert (await client.get("/whoami", headers={"Cookie": f"a=b; recollect={good}"})).json() == "alice"
        assert (await client.get("/whoami", headers=bearer(good))).status_code == 401


async def test_a_cookie_of_one_users_key_cannot_name_another(auth: Auth, tmp_path: Path) -> None:
    record, _ = auth.keys.create("alice")
    body = claims("bob", aud="recollect:cookie", iat=time.time(), key=record.id, jti=auth.sign_ins.begin(60))
    cookie = jwt.encode(body, kept_secret(tmp_path))
    async with client_of(auth) as client:
        assert (await client.get("/whoami", headers={"Cookie": f"recollect={cookie}"})).status_code == 401


async def test_the_header_counts_before_the_cookie(auth: Auth) -> None:
    _, key = auth.keys.create("bob")
    async with client_of(auth) as client:
        await sign_in(client, auth, "alice")
        assert (await client.get("/whoami", headers=bearer(key))).json() == "bob"
        assert (await client.get("/whoami", headers=bearer("rk_wrong"))).status_code == 401


ASKED = [
    ({"Origin": ORIGIN}, True),
    ({"Origin": "https://recollect.test"}, True),  # behind a proxy that ends TLS
    ({"Origin": "http://RECOLLECT.test"}, True),
    ({"Sec-Fetch-Site": "same-origin"}, True),
    ({"Sec-Fetch-Site": "none"}, True),
    ({"Origin": "null", "Sec-Fetch-Site": "same-origin"}, True),
    ({}, False),
    ({"Origin": "null"}, False),
    ({"Origin": ""}, False),
    ({"Origin": "http://evil.test"}, False),
    ({"Origin": "http://recollect.test:81"}, False),
    ({"Origin": "http://recollect.test.evil.test"}, False),
    ({"Origin": "http://evil.test", "Sec-Fetch-Site": "same-origin"}, False),
    ({"Origin": "http://[recollect.test"}, False),
    ({"Origin": "null", "Sec-Fetch-Site": "cross-site"}, False),
    ({"Sec-Fetch-Site": "same-site"}, False),
    ({"Sec-Fetch-Site": "cross-site"}, False),
]


@pytest.mark.parametrize(("headers", "own"), ASKED)
async def test_only_the_servers_own_pages_change_anything_by_cookie(
    auth: Auth, headers: dict[str, str], own: bool
) -> None:
    _, key = auth.keys.create("alice")
    async with client_of(auth) as client:
        assert (await client.post("/login", data={"key": key}, headers=headers)).status_code == (303 if own else 403)
        await sign_in(client, auth)
        for method in ("POST", "PUT", "PATCH", "DELETE", "FUNNY"):
            status = (await client.request(method, "/change", headers=headers)).status_code
            assert (status == 403) is not own, method
        assert (await client.get("/whoami", headers=headers)).status_code == 200
        assert (await client.post("/change", headers={**headers, **bearer(key)})).status_code == 200
        assert (await client.post("/logout", headers=headers)).status_code == (303 if own else 403)
        assert (await client.get("/whoami")).status_code == (401 if own else 200)


async def test_the_form_signs_in_and_leads_on(auth: Auth) -> None:
    _, key = auth.keys.create("alice")
    async with client_of(auth) as client:
        form = await client.get("/login", params={"next": '/tutor/playground/?a="b"'})
        assert form.status_code == 200
        assert 'value="/tutor/playground/?a=&quot;b&quot;"' in form.text
        response = await client.post("/login", data={"key": key, "next": "/tutor/playground/?a=b"}, headers=OWN)
        assert response.headers["location"] == "/tutor/playground/?a=b"
        assert (await client.get("/whoami")).json() == "alice"


async def test_a_wrong_key_gets_the_form_again(auth: Auth) -> None:
    async with client_of(auth) as client:
        for content in (b"key=rk_wrong&next=/chat", b"key=&next=/chat", b"next=/chat", b"next=/chat&key=%ff\xff"):
            response = await client.post("/login", content=content, headers=OWN)
            assert response.status_code == 401
            assert "not one of this server&#x27;s API keys" in response.text
            assert 'name="next" value="/chat"' in response.text
            assert "rk_wrong" not in response.text


async def test_the_form_is_small(auth: Auth) -> None:
    async with client_of(auth) as client:
        assert (await client.post("/login", content=b"key=" + b"x" * 9000, headers=OWN)).status_code == 413
        assert (await client.post("/login", content=b"a=1&" * 50, headers=OWN)).status_code == 422


@pytest.mark.parametrize("accept", ["text/html,application/xhtml+xml,*/*;q=0.8"])
async def test_a_person_who_opens_a_page_gets_the_form_and_it_leads_back(auth: Auth, accept: str) -> None:
    async with client_of(auth, accept=accept) as client:
        response = await client.get("/tutor/a%22b%3F/?x=1", headers={"Sec-Fetch-Mode": "navigate"})
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
        assert response.headers["content-type"].startswith("text/html")
        assert 'value="/tutor/a%22b%3F/?x=1"' in response.text
        assert 'value="/docs"' in (await client.get("/docs")).text
        for answer in (
            await client.get("/docs", headers={"Sec-Fetch-Mode": "cors"}),
            await client.post("/change"),
            await client.get("/docs", headers={"Accept": "*/*"}),
        ):
            assert answer.status_code == 401
            assert "detail" in answer.json()


async def test_the_sign_in_page_loads_nothing_from_elsewhere_and_is_framed_by_nobody(auth: Auth) -> None:
    async with client_of(auth) as client:
        headers = (await client.get("/login")).headers
    policy = headers["content-security-policy"]
    for rule in ("default-src 'none'", "style-src 'self'", "form-action 'self'", "frame-ancestors 'none'"):
        assert rule in policy.split("; ")
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "strict-origin"


FOREIGN = [
    "",
    "chat",
    "//evil.test",
    "/\\evil.test",
    "\\/evil.test",
    "/\t/evil.test",
    "https://evil.test",
    "javascript:x",
]


@pytest.mark.parametrize("path", FOREIGN)
async def test_a_sign_in_leads_to_no_other_site(auth: Auth, path: str) -> None:
    assert safe_next(path) == "/"
    async with client_of(auth) as client:
        response = await follow(client, auth.links.create("alice"), path)
    assert response.headers["location"] == "/"

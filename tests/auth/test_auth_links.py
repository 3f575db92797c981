"""One-time links: what they do, once."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from auth.links import LINK_LIFE_S, Links, login_url, server_url
from auth.middleware import Auth
from tests.sign_in import ORIGIN, client_of, follow

OWN = {"Origin": ORIGIN}


@pytest.fixture
def auth(tmp_path: Path) -> Auth:
    return Auth(tmp_path)


async def test_a_link_signs_a_browser_in_once(auth: Auth) -> None:
    token = auth.links.create("alice")
    async with client_of(auth) as first, client_of(auth) as second:
        response = await follow(first, token)
        assert (response.status_code, response.headers["location"]) == (303, "/")
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["referrer-policy"] == "no-referrer"
        assert (await first.get("/whoami")).json() == "alice"
        again = await follow(second, token)
        assert again.status_code == 401
        assert again.headers["www-authenticate"] == "Bearer"
        assert "was used already" in again.text
        assert token not in again.text
        assert (await second.get("/whoami")).status_code == 401


async def test_two_users_browsers_are_told_apart(auth: Auth) -> None:
    async with client_of(auth) as alice, client_of(auth) as bob:
        for client, user in ((alice, "alice"), (bob, "bob")):
            await follow(client, auth.links.create(user))
        assert [(await client.get("/whoami")).json() for client in (alice, bob)] == ["alice", "bob"]


async def test_a_look_at_a_link_shows_a_button_with_the_users_name_and_uses_nothing_up(auth: Auth) -> None:
    token = auth.links.create("<ann>")
    async with client_of(auth) as client:
        for _ in range(2):  # a chat program's preview, and then the person
            page = await client.get("/login", params={"token": token, "next": "/chat"})
            assert (page.status_code, "set-cookie" in page.headers) == (200, False)
            assert 'signs this browser in as <strong dir="auto">&lt;ann&gt;</strong>' in page.text
            assert f'value="{token}"' in page.text
            assert 'name="next" value="/chat"' in page.text
        assert (await follow(client, token)).status_code == 303
        spent = await client.get("/login", params={"token": token})
    assert spent.status_code == 401
    assert "was used already" in spent.text


async def test_no_page_of_another_site_can_sign_a_browser_in_by_a_link(auth: Auth) -> None:
    token = auth.links.create("mallory")
    async with client_of(auth) as client:
        posted = await client.post("/login", data={"token": token}, headers={"Origin": "http://evil.test"})
        assert (posted.status_code, "set-cookie" in posted.headers) == (403, False)
        assert (await follow(client, token)).status_code == 303


async def test_of_eight_uses_at_once_one_wins(tmp_path: Path) -> None:
    token, together = Links(tmp_path).create("alice"), Barrier(8)

    def use(_: int) -> bool:
        links = Links(tmp_path)
        together.wait(60)
        return links.consume(token) is not None

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(use, range(8))) == [False] * 7 + [True]


async def test_a_link_lives_for_ten_minutes(auth: Auth, tmp_path: Path) -> None:
    now = time.time()
    token = Links(tmp_path, now=lambda: now - LINK_LIFE_S - 1).create("alice")
    young = Links(tmp_path, now=lambda: now - LINK_LIFE_S + 60).create("alice")
    async with client_of(auth) as client:
        assert (await follow(client, token)).status_code == 401
        assert (await follow(client, young)).status_code == 303


def test_making_a_link_sweeps_away_those_that_are_too_old(tmp_path: Path) -> None:
    links = Links(tmp_path)
    for _ in range(3):
        links.create("alice")
    for path in (tmp_path / "links").iterdir():
        os.utime(path, (0, 0))
    links.create("alice")
    assert len(list((tmp_path / "links").iterdir())) == 1


async def test_links_that_cannot_be_read_are_503(auth: Auth, tmp_path: Path) -> None:
    token = auth.links.create("alice")
    file = next((tmp_path / "links").iterdir())
    file.unlink()
    file.mkdir()
    async with client_of(auth) as client:
        response = await follow(client, token)
    assert (response.status_code, response.headers["retry-after"]) == (503, "10")


async def test_the_first_start_gives_a_link_as_long_as_its_key_is_the_only_one(tmp_path: Path) -> None:
    auth = Auth(tmp_path)
    first, second = auth.first_link(), Auth(tmp_path).first_link()
    assert first is not None
    assert second not in (None, first)
    assert [key.user for key in auth.keys.all()] == ["local"]
    async with client_of(auth) as client:
        assert (await follow(client, first)).status_code == 303
        assert (await client.get("/whoami")).json() == "local"
    auth.keys.create("alice")
    assert auth.first_link() is None


def test_the_first_start_gives_no_link_if_somebody_can_sign_in(tmp_path: Path) -> None:
    assert Auth(tmp_path, jwt_secret="s" * 32).first_link() is None
    auth = Auth(tmp_path)
    assert auth.keys.all() == ()
    auth.keys.create("local")
    assert auth.first_link() is None


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::", "http://[::1]:8000"),
        ("chat.example.org", "http://chat.example.org:8000"),
    ],
)
def test_the_printed_link_is_one_that_a_browser_on_this_machine_can_open(host: str, url: str) -> None:
    assert login_url(server_url(host, 8000), "abc") == f"{url}/login?token=abc"

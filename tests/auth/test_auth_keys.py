"""API keys and their file, and the other files of the sign-in."""

from __future__ import annotations

import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from auth.files import KeyFileError, kept_secret
from auth.keys import ApiKeys, UnknownKey
from auth.middleware import Auth
from auth.users import InvalidUserId
from tests.sign_in import bearer, client_of


@pytest.fixture
def auth(tmp_path: Path) -> Auth:
    return Auth(tmp_path / "data")


async def test_a_key_made_or_revoked_elsewhere_counts_at_once(auth: Auth, tmp_path: Path) -> None:
    elsewhere = ApiKeys(tmp_path / "data")
    async with client_of(auth) as client:
        for _ in range(20):  # so quickly that time stamps alone could not tell the versions apart
            record, key = elsewhere.create("alice")
            assert (await client.get("/whoami", headers=bearer(key))).status_code == 200
            elsewhere.revoke(record.id)
            assert (await client.get("/whoami", headers=bearer(key))).status_code == 401


async def test_a_deleted_key_file_lets_nobody_in(auth: Auth, tmp_path: Path) -> None:
    _, key = auth.keys.create("alice")
    (tmp_path / "data" / "keys.json").unlink()
    async with client_of(auth) as client:
        assert (await client.get("/whoami", headers=bearer(key))).status_code == 401


DAMAGED = ["", "{", "[]", '{"version": 2, "keys": []}', '{"keys": [{"id": "1"}]}', '{"keys": {}, "more": 1}']


@pytest.mark.parametrize("text", DAMAGED)
async def test_a_damaged_key_file_stops_the_start_and_is_closed_while_running(
    auth: Auth, tmp_path: Path, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    _, key = auth.keys.create("alice")
    async with client_of(auth) as client:
        signed_in = await client.post("/login", data={"key": key}, headers={"Origin": "http://recollect.test"})
        assert signed_in.status_code == 303
        (tmp_path / "data" / "keys.json").write_text(text)
        by_cookie = await client.get("/whoami")
        by_key = await client.get("/whoami", headers=bearer(key))
        anew = await client.post("/login", data={"key": key}, headers={"Origin": "http://recollect.test"})
    assert [by_cookie.status_code, by_key.status_code, anew.status_code] == [503, 503, 503]
    assert by_key.headers["retry-after"] == "10"
    assert caplog.text.count("keys.json is damaged") == 1
    with pytest.raises(KeyFileError, match=r"keys\.json is damaged"):
        Auth(tmp_path / "data")
    with pytest.raises(KeyFileError):
        auth.keys.create("bob")
    assert (tmp_path / "data" / "keys.json").read_text() == text


async def test_an_unreadable_key_file_is_503_and_not_open(auth: Auth, tmp_path: Path) -> None:
    (tmp_path / "data" / "keys.json").mkdir()
    async with client_of(auth) as client:
        assert (await client.get("/whoami", headers=bearer("rk_x"))).status_code == 503


def test_a_key_has_256_random_bits_and_is_kept_only_as_a_hash(tmp_path: Path) -> None:
    keys = ApiKeys(tmp_path)
    made = [keys.create("alice", "laptop")[1] for _ in range(10)]
    assert len({key for key in made if key.startswith("rk_") and len(key) == 46}) == 10
    text = (tmp_path / "keys.json").read_text()
    assert not any(key in text or key[3:] in text for key in made)
    assert [record["label"] for record in json.loads(text)["keys"]] == ["laptop"] * 10


def test_files_are_readable_by_their_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        auth = Auth(tmp_path / "data")
        auth.keys.create("alice")
        auth.links.create("alice")
    finally:
        os.umask(before)
    made = {path: stat.S_IMODE(path.stat().st_mode) for path in [tmp_path / "data", *(tmp_path / "data").rglob("*")]}
    assert len(made) == 6
    assert {oct(mode) for path, mode in made.items() if path.is_file()} == {"0o600"}
    assert {oct(mode) for path, mode in made.items() if path.is_dir()} == {"0o700"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files for others")
def test_what_root_makes_belongs_to_the_folders_owner(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, 12345)
    auth = Auth(tmp_path)
    auth.keys.create("alice")
    auth.links.create("alice")
    assert {path.stat().st_uid for path in tmp_path.rglob("*")} == {12345}


def test_writers_at_once_lose_no_key_and_make_one_secret(tmp_path: Path) -> None:
    together = Barrier(8)

    def work(number: int) -> bytes:
        together.wait(60)
        secret = kept_secret(tmp_path)
        ApiKeys(tmp_path).create(f"user {number}")
        return secret

    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(work, range(8)))
    assert len(found) == 1
    assert len(found.pop()) == 32
    assert {key.user for key in ApiKeys(tmp_path).all()} == {f"user {number}" for number in range(8)}


@pytest.mark.parametrize("name", ["", "a\nb", "\x00", "\x7f", "\x85", "\ud800", "x" * 256])
def test_a_name_that_cannot_be_a_users_gets_no_key_and_no_link(auth: Auth, name: str) -> None:
    with pytest.raises(InvalidUserId):
        auth.keys.create(name)
    with pytest.raises(InvalidUserId):
        auth.links.create(name)
    with pytest.raises(InvalidUserId):
        auth.keys.sign_out(name)


@pytest.mark.parametrize(
    "name", ["a", "x" * 255, "Ælfred der Große", "用户", "a/b\\c", "..", " ", "a\u200db", "\u2028"]
)
async def test_any_other_name_is_a_user(auth: Auth, name: str) -> None:
    _, key = auth.keys.create(name)
    async with client_of(auth) as client:
        assert (await client.get("/whoami", headers=bearer(key))).json() == name


def test_an_unknown_key_cannot_be_revoked(auth: Auth) -> None:
    with pytest.raises(UnknownKey, match="'12ab'"):
        auth.keys.revoke("12ab")


@pytest.mark.parametrize("data", ["short", None])
def test_a_secret_that_cannot_be_one_stops_the_start(tmp_path: Path, data: str | None) -> None:
    secret = tmp_path / "secret"
    secret.mkdir() if data is None else secret.write_text(data)
    with pytest.raises(KeyFileError):
        Auth(tmp_path)

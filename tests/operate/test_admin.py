"""The operator's command line, run as an operator runs it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from auth.keys import ApiKeys
from auth.middleware import Auth
from tests.sign_in import bearer, client_of, follow

ROOT = Path(__file__).parents[2]


def admin(data: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("RECOLLECT_")}
    return subprocess.run(
        [sys.executable, str(ROOT / "admin.py"), *arguments],
        env={**own, "RECOLLECT_DATA_DIR": str(data), **environ},
        cwd=data.parent,
        capture_output=True,
        text=True,
        timeout=60,
    )


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    assert (done.returncode, done.stdout[-1:]) == (0, "\n"), done.stderr
    return done.stdout.splitlines()[-1]


async def test_keys_are_made_listed_and_revoked_while_the_server_runs(tmp_path: Path) -> None:
    data = tmp_path / "data"
    auth = Auth(data)
    alice = last_line(admin(data, "keys", "create", "--user", "alice"))
    bob = last_line(admin(data, "keys", "create", "--user", "bob 用户", "--label", "phone"))
    async with client_of(auth) as client:
        assert (await client.get("/whoami", headers=bearer(alice))).json() == "alice"
        assert (await client.get("/whoami", headers=bearer(bob))).json() == "bob 用户"
        listed = admin(data, "keys", "list").stdout
        rows = [line.split("\t") for line in listed.splitlines()]
        assert [(row[1], row[3]) for row in rows] == [("alice", ""), ("bob 用户", "phone")]
        assert not any(key in listed for key in (alice, bob))
        assert admin(data, "keys", "revoke", rows[0][0]).returncode == 0
        assert (await client.get("/whoami", headers=bearer(alice))).status_code == 401
        assert (await client.get("/whoami", headers=bearer(bob))).status_code == 200


async def test_a_link_signs_in_and_ends_with_the_users_newest_key(tmp_path: Path) -> None:
    auth = Auth(tmp_path)
    record, _ = auth.keys.create("alice")
    link = last_line(admin(tmp_path, "link", "--user", "alice", RECOLLECT_PORT="9123"))
    start, token = link.split("?token=")
    assert start == "http://127.0.0.1:9123/login"
    async with client_of(auth) as client:
        assert (await follow(client, token)).status_code == 303
        assert (await client.get("/whoami")).json() == "alice"
        auth.keys.revoke(record.id)
        assert (await client.get("/whoami")).status_code == 401


async def test_a_user_without_a_key_gets_a_link_too_and_can_be_signed_out(tmp_path: Path) -> None:
    auth = Auth(tmp_path)
    done = admin(tmp_path, "link", "--user", "dora", "--base-url", "https://chat.example.org/")
    assert last_line(done).startswith("https://chat.example.org/login?token=")
    assert "dora has no API key" in done.stderr
    async with client_of(auth) as client:
        assert (await follow(client, done.stdout.strip().split("=")[1])).status_code == 303
        assert (await client.get("/whoami")).json() == "dora"
        assert admin(tmp_path, "signout", "--user", "dora").returncode == 0
        assert (await client.get("/whoami")).status_code == 401


MISTAKES = [
    (["keys", "create", "--user", ""], "a user's name has 1 to 255 characters"),
    (["keys", "create", "--user", "a\nb"], "a user's name has 1 to 255 characters"),
    (["keys", "create", "--user", "a", "--label", "b\nc"], "it must be one line"),
    (["keys", "create"], "--user"),
    (["keys", "revoke", "12ab"], "no key has the id '12ab'"),
    (["link", "--user", "x" * 256], "a user's name has 1 to 255 characters"),
    (["link", "--user", "x", "--base-url", "chat.example.org"], "it must start with http:// or https://"),
    (["signout", "--user", "\x07"], "a user's name has 1 to 255 characters"),
    (["nonsense"], "nonsense"),
    ([], "COMMAND"),
]


@pytest.mark.parametrize(("arguments", "text"), MISTAKES)
def test_a_mistake_is_told_in_one_line(tmp_path: Path, arguments: list[str], text: str) -> None:
    done = admin(tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert text in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_a_bad_setting_is_told_in_one_line(tmp_path: Path) -> None:
    done = admin(tmp_path, "keys", "list", RECOLLECT_PORT="many")
    assert done.returncode == 2
    assert done.stderr.startswith("admin.py: RECOLLECT_PORT")
    assert done.stderr.count("\n") == 1


def test_a_damaged_key_file_is_told_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text("{")
    done = admin(tmp_path, "keys", "create", "--user", "alice")
    assert done.returncode == 2
    assert "keys.json is damaged: restore it" in done.stderr.splitlines()[-1]
    assert (tmp_path / "keys.json").read_text() == "{"


def test_a_data_folder_that_cannot_be_used_is_told_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    done = admin(file, "keys", "create", "--user", "alice")
    assert done.returncode == 2
    assert done.stderr == "admin.py: RECOLLECT_DATA_DIR: File exists\n"


def test_a_key_is_the_only_thing_on_standard_output(tmp_path: Path) -> None:
    done = admin(tmp_path, "keys", "create", "--user", "alice", PYTHONUTF8="0", LC_ALL="C")
    found = ApiKeys(tmp_path).find(done.stdout.rstrip("\n"))
    assert found is not None
    assert f"keys revoke {found.id}" in done.stderr


def test_serve_runs_the_server_by_settings_alone(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = admin(tmp_path, "serve", RECOLLECT_PORT=port)
    assert done.returncode == 2
    assert port in done.stderr.splitlines()[-1]

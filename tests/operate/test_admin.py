"""The operator's command line, run as an operator runs it."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import StringIO
from pathlib import Path

import pytest
from typing_extensions import override

import admin as admin_py
from api.ops.commands.terminal import Progress
from auth.keys import ApiKeys
from auth.middleware import Auth
from histories.files.store import FileStore
from histories.meaning.vectors import Vectors
from serving import arguments
from settings import load_settings
from tests.openai_stub import OpenAIStub
from tests.sign_in import bearer, client_of, follow
from tests.stores import talk

ROOT = Path(__file__).parents[2]


def admin(data: Path, *arguments: str, stdin: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("RECOLLECT_")}
    return subprocess.run(
        [sys.executable, str(ROOT / "admin.py"), *arguments],
        env={**own, "RECOLLECT_DATA_DIR": str(data), **environ},
        cwd=data.parent,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=100,
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


Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command in this process, which is quick; in a thread of its own, as it may start an event loop."""

    def run(data: Path, *arguments: str, stdin: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
        for name, value in {"RECOLLECT_DATA_DIR": str(data), **environ}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "stdin", StringIO(stdin))
        with ThreadPoolExecutor(1) as thread:
            status = thread.submit(admin_py.main, arguments).result()
        return subprocess.CompletedProcess(arguments, status, *capsys.readouterr())

    return run


def test_a_store_is_named_by_a_variable_or_typed_so_that_no_list_of_processes_shows_its_password(
    tmp_path: Path, command: Command
) -> None:
    secret = "redis://:a-password@127.0.0.1:9/0"
    by_variable = command(tmp_path, "migrate", "env:OLD_STORE", "file:", OLD_STORE=secret)
    typed = command(tmp_path, "migrate", "-", "file:", stdin=f"{secret}\n")
    shown = command(tmp_path, "migrate", secret, "file:")
    for done in (by_variable, typed, shown):
        assert done.returncode == 2
        assert "run it again" in done.stderr
        assert "a-password" not in done.stdout + done.stderr
    assert "whoever lists this machine's processes can read the password of FROM" in shown.stderr
    assert (
        command(tmp_path, "migrate", "env:NOWHERE", "file:").stderr
        == "admin.py: FROM: the variable NOWHERE is not set\n"
    )
    assert acts(tmp_path) == [("store.migrate", False)] * 3
    assert "a-password" not in (tmp_path / "audit.jsonl").read_text()


def acts(data: Path) -> list[tuple[str, bool]]:
    """What the audit log says was done, and whether it went well."""
    lines = map(json.loads, (data / "audit.jsonl").read_text().splitlines())
    return [(line["act"], line["ok"]) for line in lines]


async def test_signing_out_and_revoking_say_whom_they_signed_out(tmp_path: Path, command: Command) -> None:
    auth = Auth(tmp_path)
    record, _ = auth.keys.create("alice")
    async with client_of(auth) as one, client_of(auth) as other:
        await follow(one, auth.links.create("alice", record.id))
        await follow(other, auth.links.create("alice"))
        assert "no browser of bob was signed in" in command(tmp_path, "signout", "--user", "bob").stderr
        assert (
            "; 1 browser that came by it has to sign in again" in command(tmp_path, "keys", "revoke", record.id).stderr
        )
        assert "1 browser of alice has to sign in again" in command(tmp_path, "signout", "--user", "alice").stderr
        assert "nobody was signed out" in command(tmp_path, "signout", "--user", "alice").stderr
        assert [(await client.get("/whoami")).status_code for client in (one, other)] == [401, 401]
    mistyped = command(tmp_path, "hold", "--user", "alcie")
    assert "nothing is kept of alcie: is the name right?" in mistyped.stderr
    assert mistyped.returncode == 0, "who is to come can be held, too"
    auth.keys.create("carol")
    assert "is the name right" not in command(tmp_path, "hold", "--user", "carol").stderr
    assert "was not held: nothing has changed" in command(tmp_path, "hold", "--user", "bob", "--lift").stderr
    assert "nothing was kept of bob" in command(tmp_path, "erase", "--user", "bob", "--yes").stderr
    assert command(tmp_path, "check").returncode == 0
    assert acts(tmp_path)[-1] == ("store.check", True)


def test_the_vectors_of_recall_are_rebuilt_and_an_erased_users_go(tmp_path: Path, command: Command) -> None:
    url, vectors = f"file:{tmp_path / 'histories'}", f"milvus:{tmp_path / 'vectors.db'}"

    async def talks() -> None:
        store = FileStore(tmp_path / "histories")
        for user in ("alice", "bob"):
            await talk(store.history(user, "s1"), "a dog named Rex", "a cat named Tom")
        await store.close()

    async def kept() -> list[int]:
        there = Vectors(vectors, "m")
        found = [len(await there.turns(user, "s1")) for user in ("alice", "bob") if await there.is_there()]
        await there.close()
        return found

    with OpenAIStub() as stub, ThreadPoolExecutor(1) as thread:
        places = {"RECOLLECT_HISTORY_URL": url, "RECOLLECT_RECALL_URL": vectors}
        places["RECOLLECT_EMBEDDINGS"] = f"m@{stub.base_url}"
        thread.submit(asyncio.run, talks()).result()
        done = command(tmp_path, "recall", "rebuild", **places)
        assert (done.returncode, done.stdout) == (0, "4 turns of 2 sessions\n"), done.stderr
        assert thread.submit(asyncio.run, kept()).result() == [2, 2]
        assert command(tmp_path, "erase", "--user", "alice", "--yes", **places).returncode == 0
        assert thread.submit(asyncio.run, kept()).result() == [0, 2]
        stub.embeddings_status = 500
        failed = command(tmp_path, "recall", "rebuild", **places)
        assert (failed.returncode, failed.stderr) == (2, "admin.py: the embeddings: status 500\n")


def test_a_link_in_the_data_folder_is_never_followed(tmp_path: Path, command: Command) -> None:
    elsewhere, data = tmp_path / "of-somebody-else", tmp_path / "data"
    elsewhere.write_bytes(b"x" * 64)
    data.mkdir(mode=0o700)
    for name, words in (
        ("secret", ["rotate-secret"]),
        ("keys.json", ["keys", "create", "--user", "alice"]),
        ("names.key", ["users"]),
        ("holds.json", ["erase", "--user", "alice", "--yes"]),
        ("audit.jsonl", ["audit", "verify"]),
        ("sign-ins", ["signout", "--user", "alice"]),
        ("links", ["link", "--user", "alice"]),
    ):
        (data / name).symlink_to(elsewhere)
        done = command(data, *words)
        assert done.returncode == 2, (name, done.stderr)
        assert done.stderr.startswith("admin.py: "), name
        (data / name).unlink()
        assert b"x" * 64 not in b"".join(path.read_bytes() for path in data.rglob("*") if path.is_file())
    assert elsewhere.read_bytes() == b"x" * 64


def test_progress_is_one_line_on_a_terminal_and_one_now_and_then_elsewhere() -> None:
    now, terminal, file = [0.0], Terminal(), StringIO()
    drawn, listed = Progress(terminal, now=lambda: now[0]), Progress(file, now=lambda: now[0])
    for count in range(100):
        now[0] += 0.2
        drawn(f"{count} sessions")
        listed(f"{count} sessions")
    drawn.clear()
    assert terminal.getvalue().count("\r") > 90
    assert "\n" not in terminal.getvalue()
    assert terminal.getvalue().endswith("\r")
    assert file.getvalue().count("\n") == 3


class Terminal(StringIO):
    @override
    def isatty(self) -> bool:
        return True


def test_the_server_refuses_arguments_that_it_does_not_know_with_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in (["--workers", "2"], ["serve"]):
        with pytest.raises(SystemExit) as ended:
            arguments(wrong)
        assert ended.value.code == 2
        assert "settings are variables such as RECOLLECT_WORKERS=2" in capsys.readouterr().err.splitlines()[-1]


def test_the_server_takes_host_and_port_before_the_environment() -> None:
    assert arguments(["--port", "1", "--host", "::1"]) == {"port": "1", "host": "::1"}
    assert load_settings({"RECOLLECT_PORT": "2"}, **arguments(["--port", "1"])).port == 1

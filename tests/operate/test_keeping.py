"""What is kept of whom, and for how long; and the audit log, which tells what was done."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jwt
import pytest
from langchain_core.messages import AIMessage, HumanMessage

from auth.audit import Audit, verify
from auth.files import KeyFileError, SigningSecret
from auth.holds import Holds
from auth.keys import ApiKeys
from auth.middleware import Auth
from auth.sign_ins import SignIns
from histories.base import Note, Turn, TurnStatus, now
from histories.files.store import FileStore
from histories.retention import Rules, expire
from tests.echo_model import EchoModel
from tests.live_server import langserve_warns, serve_here
from tests.operate.test_admin import admin
from tests.sign_in import bearer, claims, client_of, follow, status

pytestmark = langserve_warns
NOW = datetime(2026, 6, 1, tzinfo=UTC)


async def filled(folder: Path, ages: dict[tuple[str, str, str], int]) -> FileStore:
    """A store with sessions of a user, a name and a chain, each so many days old."""
    store = FileStore(folder / "histories")
    await store.open()
    for (user, session, chain), days in ages.items():
        at = NOW - timedelta(days=days)
        turn = Turn(
            turn_id="t",
            status=TurnStatus.COMPLETE,
            chain=chain,
            started_at=at,
            ended_at=at,
            input=[HumanMessage("a secret word")],
            output=[AIMessage("yes")],
        )
        await store.history(user, session).restore([turn], title="title", created_at=at)
    return store


async def left(store: FileStore, user: str) -> list[str]:
    return sorted(session.session_id for session in (await store.sessions(user)).items)


async def test_what_is_old_goes_by_chain_and_what_is_held_stays(tmp_path: Path) -> None:
    ages = {("ann", "old", "chat"): 91, ("ann", "new", "chat"): 89, ("ann", "tutored", "tutor"): 31}
    store = await filled(tmp_path, {**ages, ("bob", "old", "chat"): 91})
    holds = Holds(tmp_path)
    holds.add("bob")
    rules = Rules.parse(["90", "tutor=30"])
    dry = await expire(store, rules, holds.__contains__, at=NOW, dry=True)
    gone = await expire(store, rules, holds.__contains__, at=NOW)
    assert (dry.deleted, gone.deleted, gone.held) == (2, 2, 1)
    assert (await left(store, "ann"), await left(store, "bob")) == (["new"], ["old"])
    holds.lift("bob")
    assert (await expire(store, rules, holds.__contains__, at=NOW)).deleted == 1
    await store.close()
    assert not any("secret word" in path.read_text() for path in tmp_path.rglob("*.jsonl") if "bob" in str(path))


def test_a_chain_that_is_not_served_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    Rules.parse(["90", "tutor=30", "chta=7"]).tell_of_others({"chat", "tutor"})
    assert caplog.messages == ["RECOLLECT_RETENTION_DAYS: no chain chta is served here: is the name right?"]


async def test_a_user_is_counted_exported_held_and_erased(tmp_path: Path) -> None:
    store = await filled(tmp_path, {("ann", "one", "chat"): 1, ("ann", "two", "chat"): 1, ("bob", "one", "chat"): 1})
    note = Note(text="She is a vegetarian.", created_at=now())
    await store.set_notes("ann", [note])
    await store.close()
    _, key = ApiKeys(tmp_path).create("ann")
    users = [line.split("\t")[:3] for line in admin(tmp_path, "users").stdout.splitlines()]
    assert users == [["ann", "2", "1"], ["bob", "1", "0"]]
    exported = json.loads(admin(tmp_path, "export", "--user", "ann").stdout)
    assert [session["session_id"] for session in exported["sessions"]] == ["two", "one"] or len(
        exported["sessions"]
    ) == 2
    assert "hash" not in exported["keys"][0]
    assert [(one["note_id"], one["text"]) for one in exported["notes"]] == [(note.note_id, note.text)]
    admin(tmp_path, "hold", "--user", "ann")
    assert "is held" in admin(tmp_path, "erase", "--user", "ann", "--yes").stderr
    admin(tmp_path, "hold", "--user", "ann", "--lift")
    assert "nothing was deleted" in admin(tmp_path, "erase", "--user", "ann").stderr  # nobody is there to agree
    assert "2 sessions and 1 keys" in admin(tmp_path, "erase", "--user", "ann", "--yes").stdout
    assert ApiKeys(tmp_path).find(key) is None
    assert admin(tmp_path, "users").stdout.startswith("bob\t1\t0\t")
    acts = [json.loads(line)["act"] for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert acts == ["user.export", "hold.add", "hold.lift", "user.erase"]
    assert "as they were written" in admin(tmp_path, "audit", "verify").stdout


@pytest.mark.parametrize("harm", ["changed", "taken out", "put in", "swapped", "nonsense"])
def test_the_audit_log_tells_where_it_was_tampered_with(tmp_path: Path, harm: str) -> None:
    audit = Audit(tmp_path)
    for number in range(6):
        audit.note("link.create", who="ann", source="test", number=number)
    assert verify(tmp_path) == (6, None)
    path = tmp_path / "audit.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    if harm == "changed":
        lines[3] = lines[3].replace(b"ann", b"bob")
    elif harm == "taken out":
        del lines[3]
    elif harm == "put in":
        lines.insert(3, lines[2])
    elif harm == "swapped":
        lines[3], lines[4] = lines[4], lines[3]
    else:
        lines[3] = b"nonsense\n"
    path.write_bytes(b"".join(lines))
    count, trouble = verify(tmp_path)
    assert count == 3
    assert trouble is not None
    assert "line 4" in trouble


def test_a_line_of_the_audit_log_that_a_crash_tore_is_no_break(tmp_path: Path) -> None:
    Audit(tmp_path).note("one", who=None, source="test")
    with (tmp_path / "audit.jsonl").open("ab") as file:
        file.write(b'{"n": 2, "at')
    assert verify(tmp_path) == (1, None)
    Audit(tmp_path).note("two", who=None, source="test")
    assert verify(tmp_path) == (2, None)


def test_a_flood_of_refusals_is_counted_and_not_written_line_by_line(tmp_path: Path) -> None:
    now = [0.0]
    audit = Audit(tmp_path, now=lambda: now[0])
    for _ in range(1000):
        audit.refused(who=None, source="1.2.3.4", why="bad_credential")
    now[0] = 61
    audit.refused(who=None, source="1.2.3.4", why="bad_credential")
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert len(lines) == 62
    assert lines[60]["what"] == {"unlisted": 940}


def test_deletes_exports_and_sign_ins_are_in_the_audit_log_without_words(tmp_path: Path) -> None:
    with serve_here(tmp_path, model=EchoModel()) as server, server.client() as client:
        client.delete("/sessions/my-divorce")
        client.delete("/sessions")
        client.post("/login", data={"key": "rk_wrong"}, headers={"Origin": server.url})
        client.get("/me", headers={"Authorization": "Bearer rk_wrong"})
    text = (server.data_dir / "audit.jsonl").read_text()
    told = [(line["act"], line["who"], line["ok"]) for line in map(json.loads, text.splitlines())]
    assert ("session.delete", "alice", False) in told
    assert ("sessions.delete_all", "alice", True) in told
    assert told.count(("refusal", None, False)) == 2
    assert "divorce" not in text
    assert "rk_wrong" not in text


# --- credentials


async def test_keys_expire_have_scopes_and_tell_when_they_were_used(tmp_path: Path) -> None:
    auth = Auth(tmp_path)
    _, old = auth.keys.create("ann", expires=datetime.now(UTC) - timedelta(seconds=1))
    record, reader = auth.keys.create("ann", scopes=("read",), expires=datetime.now(UTC) + timedelta(days=1))
    assert auth.keys.used.at(record.id) is None
    assert await status(auth, old) == 401
    assert await status(auth, reader) == 200
    async with client_of(auth) as client:
        assert (await client.post("/change", headers=bearer(reader))).status_code == 403
    assert auth.keys.used.at(record.id) is not None
    listed = [line.split("\t") for line in admin(tmp_path, "keys", "list").stdout.splitlines()]
    assert [(row[4], row[5] == "-", row[6] == "-") for row in listed] == [("chat", False, True), ("read", False, False)]


async def test_a_new_secret_signs_nobody_out_and_a_second_one_does(tmp_path: Path) -> None:
    auth = Auth(tmp_path)
    async with client_of(auth) as client:
        await follow(client, auth.links.create("ann"))
        SigningSecret(tmp_path).rotate()
        assert (await client.get("/whoami")).json() == "ann"
        SigningSecret(tmp_path).rotate()
        assert (await client.get("/whoami")).status_code == 401


async def test_signing_out_ends_the_sign_in_on_every_server(tmp_path: Path) -> None:
    auth, other = Auth(tmp_path), Auth(tmp_path)
    async with client_of(auth) as here, client_of(other) as stolen:
        await follow(here, auth.links.create("ann"))
        stolen.cookies = here.cookies.__class__(here.cookies)
        assert (await stolen.get("/whoami")).status_code == 200
        await here.post("/logout", headers={"Origin": str(here.base_url)})
        assert (await stolen.get("/whoami")).status_code == 401


def test_a_sign_in_that_is_not_used_ends(tmp_path: Path) -> None:
    now = [1000.0]
    sign_ins = SignIns(tmp_path, idle_s=100, now=lambda: now[0])
    name = sign_ins.begin(10_000)
    for _ in range(3):
        now[0] += 90
        assert sign_ins.use(name)
    now[0] += 101
    assert not sign_ins.use(name)


@pytest.mark.parametrize("mode", [0o701, 0o755, 0o704])
def test_a_data_folder_into_which_others_may_look_is_closed_to_them(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    folder.chmod(mode)
    Auth(folder)
    assert folder.stat().st_mode & 0o777 == mode & 0o770


@pytest.mark.parametrize("mode", [0o702, 0o777])
def test_a_data_folder_to_which_others_may_write_stops_the_start(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(KeyFileError, match="is open to everybody on this machine"):
        Auth(folder)


BAD_CLAIMS = {
    "a life of a year": claims(exp=4_000_000_000),
    "an expiry that is a text": claims(exp="4000000000"),
    "an audience that is a number": claims(aud=7),
    "issued at a text": claims(iat="1"),
}


@pytest.mark.parametrize("name", BAD_CLAIMS)
async def test_a_token_whose_claims_are_not_strict_is_401(tmp_path: Path, name: str) -> None:
    auth = Auth(tmp_path, jwt_secret="s" * 32, jwt_max_life_s=3600)
    assert await status(auth, jwt.encode(claims(), "s" * 32)) == 200
    try:
        token = jwt.encode(BAD_CLAIMS[name], "s" * 32)
    except TypeError:  # the library itself writes no such token
        pytest.skip("can't be written")
    assert await status(auth, token) == 401

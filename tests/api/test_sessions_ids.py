"""Whose sessions they are, and how they are named: /sessions over every store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from histories.base import HistoryStore, check_id
from tests.live_server import langserve_warns
from tests.people import People, export, serving
from tests.proofs import proves

pytestmark = langserve_warns


@pytest.fixture
async def people(store: HistoryStore, tmp_path: Path) -> AsyncIterator[People]:
    async with serving(store, tmp_path) as people:
        yield people


EVERY_CALL: list[tuple[str, str, object]] = [
    ("GET", "", None),
    ("PATCH", "", {"title": "x"}),
    ("DELETE", "", None),
    ("GET", "/turns", None),
    ("POST", "/fork", {"session_id": "mine", "turn_id": "t0"}),
    ("POST", "/rewind", {"turn_id": "t0"}),
    ("POST", "/stop", None),
    ("GET", "/export", None),
    ("GET", "/export?format=markdown", None),
]


@proves("G7")
async def test_what_is_someone_elses_looks_absent(people: People) -> None:
    await people.has("s", "a secret")
    before = await export(people.alice, "s")
    for method, rest, body in EVERY_CALL:
        theirs = await people.bob.request(method, f"/sessions/s{rest}", json=body)
        absent = await people.bob.request(method, f"/sessions/nothing{rest}", json=body)
        assert (theirs.status_code, theirs.text) == (absent.status_code, absent.text) == (404, absent.text)
    assert (await people.bob.get("/sessions")).json()["sessions"] == []
    assert await export(people.alice, "s") == before


async def test_nobody_gets_in_without_a_credential(people: People) -> None:
    for method, rest, body in (*EVERY_CALL, ("POST", "/../import", {})):
        response = await people.nobody.request(method, f"/sessions/s{rest}", json=body)
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"


async def test_an_id_that_can_not_be_is_absent_or_malformed(people: People) -> None:
    await people.has("s", "one")
    before = (await people.alice.get("/sessions")).json()
    paths = ["%2e%2e", "%20", "%00", "a%5Cb", "a%0Ab", "x" * 129, "a%2Fb", "%2F", "..%2f..%2fetc", "%ff%fe", "%C2%85"]
    for path in paths:
        for method, rest, body in EVERY_CALL:
            response = await people.alice.request(method, f"/sessions/{path}{rest}", json=body)
            assert response.status_code in (404, 405, 422), (method, path, rest, response.text)
    assert (await people.alice.get("/sessions")).json() == before


async def test_any_proper_id_makes_a_path(people: People) -> None:
    for session_id in ("physics", "a b", "日本語", "%2e", "import", "é…🙂", "x" * 128, "a?b#c&d=e+f", "~"):
        await people.has(check_id(session_id), "hello")
        path = f"/sessions/{''.join(f'%{byte:02X}' for byte in session_id.encode())}"
        assert (await people.alice.get(path)).json()["session_id"] == session_id
        response = await people.alice.get(f"{path}/export")
        assert response.json()["session_id"] == session_id
        assert response.headers["content-disposition"].isascii()


async def test_a_bad_parameter_is_named(people: People) -> None:
    await people.has("s", "hello")
    for path, field in (
        ("/sessions?limit=0", "limit"),
        ("/sessions?limit=201", "limit"),
        ("/sessions?limit=x", "limit"),
        ("/sessions?cursor=not-a-cursor", "cursor"),
        ("/sessions/s/turns?limit=0", "limit"),
        ("/sessions/s/turns?before=not-a-cursor", "before"),
        ("/sessions/s/export?format=xml", "format"),
    ):
        response = await people.alice.get(path)
        assert response.status_code == 422
        assert field in response.text

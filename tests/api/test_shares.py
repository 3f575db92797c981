"""A conversation is read by who has its link, until that is revoked; and by nobody else."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.ops.keeping import erase
from histories.base import NewTurn, OpenTurn, Reply, TurnStatus
from histories.memory import MemoryStore
from server import create_app
from settings import Settings
from tests.echo_model import EchoModel
from tests.live_server import langserve_warns
from tests.people import People, say, serving

pytestmark = langserve_warns


@pytest.fixture
async def people(tmp_path: Path) -> AsyncIterator[People]:
    async with serving(MemoryStore(), tmp_path) as people:
        yield people


async def share(people: People, session_id: str = "s") -> dict[str, Any]:
    response = await people.alice.post(f"/sessions/{session_id}/shares")
    assert response.status_code == 201, response.text
    made: dict[str, Any] = response.json()
    return {**made, "token": made["path"].partition("#")[2]}


async def read(people: People, token: str, **more: str) -> httpx.Response:
    return await people.nobody.post("/shared", json={"token": token, **more})


async def test_who_has_the_link_reads_what_was_said_until_it_was_made(people: People) -> None:
    await people.has("s", "my **question**")
    made = await share(people)
    await say(people.alice, "s", "said later")
    response = await read(people, made["token"])
    assert response.status_code == 200
    assert "said later" not in response.text
    told = response.json()
    assert [turn["question"] for turn in told["turns"]] == [[{"text": "my **question**"}]]
    assert told["turns"][0]["reply"] == ['<p dir="auto">my <strong>question</strong>.</p>\n']
    assert told["title"] == "my **question**"
    assert response.headers["cache-control"] == "no-store"
    assert "noindex" in response.headers["x-robots-tag"]


async def test_a_link_opens_nothing_but_its_reading(people: People) -> None:
    await people.has("s", "one")
    token = (await share(people))["token"]
    bearer = {"Authorization": f"Bearer {token}"}
    for method, path in (
        ("GET", "/sessions/s"),
        ("GET", "/shares"),
        ("DELETE", "/sessions/s"),
        ("POST", "/tutor/invoke"),
        ("POST", "/sessions/s/shares"),
    ):
        assert (await people.nobody.request(method, path, headers=bearer)).status_code == 401
    for method in ("PUT", "PATCH", "DELETE"):
        assert (await people.nobody.request(method, "/shared")).status_code == 405
    for token in ("", "rs_", "rs_" + "x" * 43, "*", "../keys.json", "\ud800"):
        body = json.dumps({"token": token})
        response = await people.nobody.post("/shared", content=body, headers={"Content-Type": "application/json"})
        assert response.status_code in (404, 422), token


async def test_what_is_the_owners_alone_is_not_shown(people: People) -> None:
    turn = await people.store.history("alice", "s").begin(NewTurn(input=[], chain="tutor", turn_id="t"))
    assert isinstance(turn, OpenTurn)
    sources = [{"text": "SECRET passage", "metadata": {"source": "https://e.x/doc"}}]
    recalled = [{"session_id": "SECRET other", "turn_id": "x", "at": "2026-01-01T00:00:00Z"}]
    await turn.end(
        Reply(
            status=TurnStatus.COMPLETE,
            details={"sources": sources, "reasoning": "SECRET thought", "recalled": recalled},  # type: ignore[typeddict-item]
        )
    )
    await people.alice.put("/sessions/s/turns/t/feedback", json={"score": -1, "comment": "SECRET opinion"})
    response = await read(people, (await share(people))["token"])
    assert "SECRET" not in response.text
    assert response.json()["turns"][0]["sources"] == [{"name": "https://e.x/doc", "url": "https://e.x/doc"}]


async def test_a_link_is_listed_without_its_token_and_revoked_by_its_owner_alone(
    people: People, tmp_path: Path
) -> None:
    await people.has("s", "one")
    made = await share(people)
    listed = await people.alice.get("/shares")
    assert [one["share_id"] for one in listed.json()["shares"]] == [made["share_id"]]
    kept = "".join(f"{path.name} {path.read_text()}" for path in (tmp_path / "shares").iterdir())
    assert made["token"] not in listed.text + kept + (tmp_path / "audit.jsonl").read_text()
    assert (await people.bob.get("/shares")).json() == {"shares": []}
    assert (await people.bob.delete(f"/shares/{made['share_id']}")).status_code == 404
    assert (await people.bob.post("/sessions/s/shares")).status_code == 404
    assert (await read(people, made["token"])).status_code == 200
    assert (await people.alice.delete(f"/shares/{made['share_id']}")).status_code == 204
    assert (await read(people, made["token"])).status_code == 404
    assert (await people.alice.delete(f"/shares/{made['share_id']}")).status_code == 404


@pytest.mark.parametrize("how", ["delete", "delete all", "retention", "erase"])
async def test_a_link_is_gone_with_its_conversation(people: People, tmp_path: Path, how: str) -> None:
    await people.has("s", "one")
    token = (await share(people))["token"]
    if how == "delete":
        await people.alice.delete("/sessions/s")
    elif how == "delete all":
        await people.alice.delete("/sessions")
    elif how == "retention":
        await people.store.history("alice", "s").delete()
    else:
        await erase(people.store, tmp_path, "alice")
    assert (await read(people, token)).status_code == 404
    await say(people.alice, "s", "another conversation of that name") if how != "erase" else None
    assert (await read(people, token)).status_code == 404
    if how != "erase":
        assert (await people.alice.get("/shares")).json() == {"shares": []}
    assert [*(tmp_path / "shares").iterdir()] == []


async def test_a_long_conversation_is_read_page_by_page(people: People) -> None:
    at = "2026-01-01T10:00:00Z"
    turns = [
        {
            "turn_id": f"t{n}",
            "status": "complete",
            "chain": "chat",
            "started_at": at,
            "ended_at": at,
            "input": [{"type": "human", "data": {"content": f"q{n}"}}],
            "output": [{"type": "ai", "data": {"content": f"a{n}"}}],
        }
        for n in range(60)
    ]
    whole = {"version": 1, "session_id": "long", "title": "Long", "created_at": at, "turns": turns}
    assert (await people.alice.post("/sessions/import", json=whole)).status_code == 201
    token = (await share(people, "long"))["token"]
    newest = (await read(people, token)).json()
    older = (await read(people, token, before=newest["next"])).json()
    told = [turn["question"][0]["text"] for turn in older["turns"] + newest["turns"]]
    assert told == [f"q{n}" for n in range(60)]
    assert older["next"] is None
    assert (await read(people, token, before="nonsense")).status_code == 422


async def test_sharing_can_be_switched_off(tmp_path: Path) -> None:
    app = create_app(Settings(data_dir=tmp_path, shares=False), model=EchoModel(), store=MemoryStore())
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://recollect.test") as nobody:
        for method, path in (("GET", "/shared"), ("POST", "/shared"), ("GET", "/shared.js")):
            assert (await nobody.request(method, path)).status_code == 401

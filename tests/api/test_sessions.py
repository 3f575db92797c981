"""The REST resource /sessions, over every store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from langchain_core.messages import AIMessage, HumanMessage

from histories.base import HistoryStore
from tests.live_server import langserve_warns
from tests.people import WAIT_S, People, a_running_turn, said, say, serving

pytestmark = langserve_warns


@pytest.fixture
async def people(store: HistoryStore, tmp_path: Path) -> AsyncIterator[People]:
    async with serving(store, tmp_path) as people:
        yield people


async def test_a_session_is_listed_with_its_title_chain_times_and_count(people: People) -> None:
    await people.has("physics", "What is mass?", "And weight?")
    [session] = (await people.alice.get("/sessions")).json()["sessions"]
    assert {**session, "running": None} == (await people.alice.get("/sessions/physics")).json()
    assert session["session_id"] == "physics"
    assert session["title"] == "What is mass?"
    assert session["chain"] == "tutor"
    assert session["turns"] == 2
    assert session["created_at"] < session["updated_at"]
    assert session["updated_at"].endswith("Z")


async def test_pages_of_sessions_hold_each_of_them_once_newest_first(people: People) -> None:
    for number in range(5):
        await people.has(f"s{number}", "hello")
    seen: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = (await people.alice.get("/sessions", params={"limit": 2, "cursor": cursor})).json()
        seen += [session["session_id"] for session in page["sessions"]]
        cursor = page["next"]
        if cursor is not None and len(seen) == 2:
            await people.has("s9", "a new one does not move those that follow")
    assert seen == ["s4", "s3", "s2", "s1", "s0"]


async def test_search_finds_what_was_said_and_nothing_of_others(people: People) -> None:
    await people.has("a", "the Quick fox")
    await people.has("b", "a slow snail")
    await say(people.bob, "c", "another quick fox")
    found = (await people.alice.get("/sessions", params={"q": "quick"})).json()["sessions"]
    assert [session["session_id"] for session in found] == ["a"]
    assert (await people.alice.get("/sessions", params={"q": "no such words"})).json() == {"sessions": [], "next": None}


async def test_turns_come_in_pages_from_the_end(people: People) -> None:
    await people.has("s", "0", "1", "2", "3", "4")
    first = (await people.alice.get("/sessions/s/turns", params={"limit": 2})).json()
    second = (await people.alice.get("/sessions/s/turns", params={"limit": 3, "before": first["next"]})).json()
    assert said(first["turns"]) == ["3", "4"]
    assert said(second["turns"]) == ["0", "1", "2"]
    assert second["next"] is None


async def test_a_turn_shows_its_messages_times_and_tokens(people: People) -> None:
    await people.has("s", "hello")
    [turn] = (await people.alice.get("/sessions/s/turns")).json()["turns"]
    assert turn.pop("started_at") < turn.pop("ended_at")
    assert [message["type"] for message in (*turn.pop("input"), *turn.pop("output"))] == ["human", "ai"]
    usage = {"input_tokens": 7, "output_tokens": 3, "total_tokens": 10}
    assert turn == {"turn_id": "t0", "status": "complete", "chain": "tutor", "usage": usage}


async def test_a_title_is_changed_and_cleaned(people: People) -> None:
    await people.has("s", "hello")
    response = await people.alice.patch("/sessions/s", json={"title": "  My\n\tlife \u202e עברית  "})
    assert response.json()["title"] == "My life \u202e עברית"
    assert (await people.alice.get("/sessions")).json()["sessions"][0]["title"] == "My life \u202e עברית"


async def test_what_is_no_title_is_refused_by_name(people: People) -> None:
    await people.has("s", "hello")
    for title in ("", "   ", "\n\u0000", "x" * 201, None, 5, ["x"]):
        response = await people.alice.patch("/sessions/s", json={"title": title})
        assert response.status_code == 422
        assert response.json()["detail"][0]["loc"] == ["body", "title"]


async def test_a_fork_shares_the_past_and_then_goes_its_own_way(people: People) -> None:
    await people.has("s", "one", "two", "three")
    response = await people.alice.post("/sessions/s/fork", json={"session_id": "f", "turn_id": "t1"})
    assert response.status_code == 201
    assert response.json()["turns"] == 2
    assert "one, two, four." in (await say(people.alice, "f", "four")).text
    assert "one, two, three, five." in (await say(people.alice, "s", "five")).text


async def test_a_fork_takes_no_name_that_is_taken(people: People) -> None:
    await people.has("s", "one")
    await people.has("f", "another")
    for name in ("f", "s"):
        body = {"session_id": name, "turn_id": "t0"}
        assert (await people.alice.post("/sessions/s/fork", json=body)).status_code == 409
    assert said((await people.alice.get("/sessions/f/turns")).json()["turns"]) == ["another"]


async def test_after_a_rewind_the_turn_and_all_after_it_are_forgotten(people: People) -> None:
    await people.has("s", "one", "two", "three")
    response = await people.alice.post("/sessions/s/rewind", json={"turn_id": "t1"})
    assert response.json()["turns"] == 1
    assert "one, four." in (await say(people.alice, "s", "four")).text
    assert (await people.alice.post("/sessions/s/rewind", json={"turn_id": "t1"})).status_code == 404


async def test_a_deleted_session_is_gone(people: People, tmp_path: Path) -> None:
    await people.has("s", "a needle that nobody else says")
    assert (await people.alice.delete("/sessions/s")).status_code == 204
    assert (await people.alice.get("/sessions/s")).status_code == 404
    assert (await people.alice.get("/sessions")).json()["sessions"] == []
    assert (await people.alice.delete("/sessions/s")).status_code == 404
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(b"needle" in path.read_bytes() for path in files), "a store on this disk forgot a file"


async def test_deleting_all_leaves_what_others_have(people: People) -> None:
    await people.has("s", "one")
    await people.has("t", "one")
    await say(people.bob, "s", "mine")
    assert (await people.alice.delete("/sessions")).status_code == 204
    assert (await people.alice.get("/sessions")).json()["sessions"] == []
    assert said((await people.bob.get("/sessions/s/turns")).json()["turns"]) == ["mine"]


async def test_a_missing_id_is_not_taken_for_all(people: People) -> None:
    await people.has("s", "one")
    for path in ("/sessions/", "/sessions//"):
        assert (await people.alice.delete(path, follow_redirects=True)).status_code == 404
    assert len((await people.alice.get("/sessions")).json()["sessions"]) == 1


async def test_a_stopped_turn_is_interrupted_and_keeps_what_was_said(store: HistoryStore, tmp_path: Path) -> None:
    async with a_running_turn(store, tmp_path) as (people, task):
        [_, running] = (await people.alice.get("/sessions/s/turns")).json()["turns"]
        assert (running["status"], running["ended_at"], running["output"]) == ("running", None, [])
        assert (await people.alice.post("/sessions/s/stop")).json() == {"stopped": True}
        [_, stopped] = (await people.alice.get("/sessions/s/turns")).json()["turns"]
        assert stopped["status"] == "interrupted"
        assert stopped["output"][0]["data"]["content"] == "one,"
        assert "event: end" in (await asyncio.wait_for(task, WAIT_S)).text
        assert (await people.alice.post("/sessions/s/stop")).json() == {"stopped": False}


async def test_what_clashes_with_a_running_turn_is_refused_and_changes_nothing(
    store: HistoryStore, tmp_path: Path
) -> None:
    async with a_running_turn(store, tmp_path) as (people, _):
        alice = people.alice
        clashes = [
            await alice.delete("/sessions/s"),
            await alice.delete("/sessions"),
            await alice.post("/sessions/s/rewind", json={"turn_id": "t0"}),
            await alice.post("/sessions/s/fork", json={"session_id": "f", "turn_id": "t1"}),
        ]
        assert [response.status_code for response in clashes] == [409] * 4
        assert (await alice.post("/sessions/s/fork", json={"session_id": "f", "turn_id": "t0"})).status_code == 201
        assert (await alice.patch("/sessions/s", json={"title": "while it runs"})).status_code == 200
        assert said((await alice.get("/sessions/s/turns")).json()["turns"]) == ["one", "two"]


async def test_what_json_can_not_hold_is_shown_all_the_same(people: People) -> None:
    history = people.store.history("alice", "s")
    await history.aadd_messages([HumanMessage("x", additional_kwargs={"n": float("nan")}), AIMessage("\ud800")])
    response = await people.alice.get("/sessions/s/turns")
    [turn] = response.json()["turns"]
    assert turn["input"][0]["data"]["additional_kwargs"] == {"n": None}
    assert turn["output"][0]["data"]["content"] == "\ud800"
    assert (await people.alice.get("/sessions/s/export?format=markdown")).status_code == 200


async def test_every_route_is_in_openapi_with_its_types_and_statuses(people: People) -> None:
    document = (await people.alice.get("/openapi.json")).json()
    routes = {
        (method, path): operation
        for path, operations in document["paths"].items()
        if path.startswith("/sessions")
        for method, operation in operations.items()
    }
    assert {f"{method.upper()} {path.removeprefix('/sessions')}" for method, path in routes} == {
        "GET ",
        "DELETE ",
        "POST /import",
        "POST /import/convert",
        "GET /{session_id}/turns/{turn_id}",
        "DELETE /{session_id}/turns/{turn_id}",
        "GET /{session_id}/turns/{turn_id}/stream",
        "PUT /{session_id}/turns/{turn_id}/feedback",
        "POST /{session_id}/choose",
        "GET /{session_id}",
        "PATCH /{session_id}",
        "DELETE /{session_id}",
        "GET /{session_id}/turns",
        "POST /{session_id}/fork",
        "POST /{session_id}/rewind",
        "POST /{session_id}/stop",
        "GET /{session_id}/export",
        "GET /{session_id}/summary",
        "PUT /{session_id}/summary",
        "DELETE /{session_id}/summary",
        "POST /{session_id}/shares",
    }
    for operation in routes.values():
        assert {"401", "422", "503"} <= operation["responses"].keys()
        assert operation["description"]
        assert operation["security"]

"""REST: versions of a turn, one turn deleted, what is thought of a reply, and pages that have not seen all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.echo_model import EchoModel
from tests.live_server import Here, langserve_warns, serve_here
from tests.proofs import proves

pytestmark = langserve_warns


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    folder = tmp_path_factory.mktemp("versions")
    with serve_here(folder, model=EchoModel(prompts=[]), history_url="memory:") as server:
        yield server


@pytest.fixture
def client(server: Here, request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    with server.client(request.node.name[:60]) as client:
        for text in ("one", "two", "three"):
            ask(client, text, turn_id=text)
        yield client


def ask(client: httpx.Client, text: str, **named: Any) -> httpx.Response:
    body = {"input": {"input": text}, "config": {"configurable": {"session_id": "s", **named}}}
    return client.post("/chat/invoke", json=body)


def turns(client: httpx.Client) -> list[dict[str, Any]]:
    return list(client.get("/sessions/s/turns").json()["turns"])


def shown(client: httpx.Client) -> list[str]:
    return [turn["turn_id"] for turn in turns(client)]


@proves("G14")
def test_a_version_takes_the_place_of_a_turn_and_the_one_before_can_be_chosen_again(client: httpx.Client) -> None:
    assert ask(client, "zwei", turn_id="zwei", version_of="two").json()["output"] == "one, zwei."
    assert shown(client) == ["one", "zwei"]
    assert turns(client)[1]["versions"] == ["two", "zwei"]
    assert client.post("/sessions/s/choose", json={"turn_id": "two"}).json()["turns"] == 3
    assert shown(client) == ["one", "two", "three"]


def test_a_version_of_what_is_not_there_is_404_and_costs_nothing(client: httpx.Client) -> None:
    assert ask(client, "zwei", version_of="nothing").status_code == 404
    assert ask(client, "zwei", version_of="a/b").status_code == 422
    assert client.post("/sessions/s/choose", json={"turn_id": "nothing"}).status_code == 404
    assert shown(client) == ["one", "two", "three"]


def test_a_rewind_that_keeps_shows_less_and_forgets_nothing(client: httpx.Client) -> None:
    client.post("/sessions/s/rewind", json={"turn_id": "two", "keep": True})
    assert shown(client) == ["one"]
    client.post("/sessions/s/choose", json={"turn_id": "two"})
    assert shown(client) == ["one", "two", "three"]


def test_one_turn_is_deleted_and_those_around_it_stay(client: httpx.Client) -> None:
    assert client.delete("/sessions/s/turns/two").status_code == 204
    assert shown(client) == ["one", "three"]
    assert client.delete("/sessions/s/turns/two").status_code == 404


def test_what_is_thought_of_a_reply_is_kept_and_can_change(client: httpx.Client) -> None:
    for opinion in ({"score": 1, "comment": "Right."}, {"score": -1, "comment": ""}):
        assert client.put("/sessions/s/turns/two/feedback", json=opinion).status_code == 204
        assert turns(client)[1]["feedback"] == opinion
    for wrong in ({"score": 2}, {"score": 1, "comment": "x" * 2001}, {}):
        assert client.put("/sessions/s/turns/two/feedback", json=wrong).status_code == 422
    assert client.put("/sessions/s/turns/nothing/feedback", json={"score": 1}).status_code == 404


@pytest.mark.parametrize("seen", ['"two"', "two", '"t%77o"'])
def test_who_has_not_seen_all_changes_nothing(client: httpx.Client, seen: str) -> None:
    client.headers["If-Match"] = seen
    for path, body in (("rewind", {"turn_id": "one"}), ("choose", {"turn_id": "one"})):
        assert client.post(f"/sessions/s/{path}", json=body).status_code == 412
    assert client.delete("/sessions/s/turns/one").status_code == 412
    assert shown(client) == ["one", "two", "three"]
    client.headers["If-Match"] = '"three"'
    assert client.delete("/sessions/s/turns/one").status_code == 204

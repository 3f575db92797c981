"""What a user has noted is shown to the model, and is as the user left it last."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
from langchain_core.messages import AnyMessage

from chains import Chain
from histories.memory import MemoryStore
from tests.api.test_memory import kind, prompt, serving, stub, url
from tests.live_server import langserve_warns, serve_here
from tests.openai_stub import OpenAIStub

__all__ = ["kind", "stub", "url"]

pytestmark = langserve_warns


NOTING = Chain(
    name="noting", build=lambda model: model, input_type=list[AnyMessage], notes=True, description="Knows the notes."
)


def test_notes_are_written_read_shown_and_forgotten(stub: OpenAIStub, tmp_path: Path) -> None:
    with serving(tmp_path, stub, chains=[NOTING]) as (alice, bob):
        assert alice.get("/memory").json() == {"notes": []}
        (note,) = alice.put("/memory", json={"notes": ["I am a vegetarian."]}).json()["notes"]
        changed = alice.put("/memory", json={"notes": [{**note, "text": "I am a vegan."}, "I live in Oslo."]}).json()
        assert changed["notes"][0] == {**note, "text": "I am a vegan."}
        assert alice.get("/memory").json() == changed
        assert json.loads(alice.get("/export").text.splitlines()[-1]) == changed
        assert bob.put("/memory", json=changed).json() == changed
        bob.delete("/memory").raise_for_status()
        assert bob.get("/memory").json() == {"notes": []}
        question = {"type": "human", "content": "What shall I cook?"}
        body = {"input": [question], "config": {"configurable": {"session_id": "s"}}}
        alice.post("/noting/invoke", json=body).raise_for_status()
        assert "- I am a vegan.\n- I live in Oslo." in prompt(stub)[-2]
        assert alice.delete("/memory").status_code == 204
        assert alice.get("/memory").json() == {"notes": []}


def test_notes_that_came_meanwhile_are_not_overwritten(stub: OpenAIStub, tmp_path: Path, url: str) -> None:
    with serving(tmp_path, stub, chains=[NOTING], history_url=url) as (alice, _):
        empty = alice.get("/memory").headers["ETag"]
        first = alice.put("/memory", json={"notes": ["I am a vegetarian."]}, headers={"If-Match": empty})
        shown = alice.get("/memory").headers["ETag"]
        assert (first.status_code, first.headers["ETag"]) == (200, shown)
        assert alice.put("/memory", json={"notes": []}, headers={"If-Match": empty}).status_code == 412
        assert alice.delete("/memory", headers={"If-Match": empty}).status_code == 412
        assert [note["text"] for note in alice.get("/memory").json()["notes"]] == ["I am a vegetarian."]
        assert alice.put("/memory", json={"notes": ["I am a vegan."]}, headers={"If-Match": f"W/{shown}"}).is_success
        assert alice.delete("/memory", headers={"If-Match": "*"}).status_code == 204
        assert alice.get("/memory").headers["ETag"] == empty


def test_notes_that_are_changed_during_a_turn_stay_as_they_are_then(stub: OpenAIStub, tmp_path: Path) -> None:
    def ask(client: httpx.Client, words: str) -> httpx.Response:
        config = {"configurable": {"session_id": "s"}}
        return client.post("/noting/invoke", json={"input": [{"type": "human", "content": words}], "config": config})

    with serving(tmp_path, stub, chains=[NOTING]) as (alice, _), ThreadPoolExecutor() as threads:
        alice.put("/memory", json={"notes": ["I live in Oslo."]}).raise_for_status()
        gate = stub.pause_after(1)
        turn = threads.submit(ask, alice, "Where do I live?")
        gate.wait()
        assert any("I live in Oslo." in text for text in prompt(stub))
        alice.put("/memory", json={"notes": ["I live in Rome."]}).raise_for_status()
        gate.release()
        turn.result().raise_for_status()
        assert [note["text"] for note in alice.get("/memory").json()["notes"]] == ["I live in Rome."]
        ask(alice, "And now?").raise_for_status()
    assert any("I live in Rome." in text for text in prompt(stub))
    assert not any("Oslo" in text for text in prompt(stub))


def test_notes_are_bounded(stub: OpenAIStub, tmp_path: Path) -> None:
    wrong: list[Any] = [["x" * 1001], [""], ["x"] * 101, [{"txt": "x"}], "x", None]
    with serve_here(tmp_path, openai_base_url=stub.base_url, store=MemoryStore()) as server, server.client() as alice:
        statuses = [alice.put("/memory", json={"notes": notes}).status_code for notes in wrong]
    assert statuses == [422] * len(wrong)

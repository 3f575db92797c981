"""What leaves the window is summed up for a chain that asks for it, and the user can see, edit and delete that."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from langchain_core.messages import AnyMessage

from chains import Chain
from chains.chain import BadChain
from histories.memory import MemoryStore
from tests.api.test_memory import _recall_has_time, kind, long_ago, serving, stub, url
from tests.echo_model import EchoModel
from tests.live_server import langserve_warns, wait_for
from tests.openai_stub import OpenAIStub, text_of
from turns.run import Turns

__all__ = ["_recall_has_time", "kind", "stub", "url"]

pytestmark = langserve_warns

SUMMING = Chain(
    name="summing",
    build=lambda model: model,
    input_type=list[AnyMessage],
    memory="summary",
    recall="off",
    description="Sums up what leaves the window.",
)


def is_for_notes(messages: Sequence[Mapping[str, Any]]) -> bool:
    return "You keep the notes" in text_of(messages[0])


def speaks(messages: Sequence[Mapping[str, Any]]) -> str:
    """The stub's reply: of a conversation's notes, which turns they are made of."""
    if not is_for_notes(messages):
        return "All right."
    said = text_of(messages[-1])
    return "They have dogs, Rex and Lou." if "Rex and Lou" in said else "Nothing much."


def says_no_more_notes(messages: Sequence[Mapping[str, Any]]) -> str:
    if is_for_notes(messages):
        raise ZeroDivisionError
    return "All right."


def left_last(prompt: Sequence[str]) -> str:
    """The id of the turn before the window, in a prompt of a session that `long_ago` made."""
    first = next(found for text in prompt if (found := re.search(r"topic number (\d+)", text)))
    return f"t{int(first[1]) + 2}"


def ask(client: httpx.Client, words: str, session: str = "s") -> None:
    body = {"input": [{"type": "human", "content": words}], "config": {"configurable": {"session_id": session}}}
    client.post("/summing/invoke", json=body).raise_for_status()


def summary_of(client: httpx.Client, session: str = "s") -> dict[str, Any]:
    """The summary, as soon as there is one."""
    deadline = time.monotonic() + 20
    while (found := client.get(f"/sessions/{session}/summary")).status_code == 404:
        assert time.monotonic() < deadline, "nothing was summed up"
        time.sleep(0.02)
    summary: dict[str, Any] = found.raise_for_status().json()
    return summary


def shown(stub: OpenAIStub) -> list[list[str]]:
    """The prompts of turns."""
    asked = [[text_of(message) for message in one.messages] for one in stub.requests]
    return [texts for texts in asked if "You keep the notes" not in texts[0]]


def test_what_left_the_window_is_summed_up_and_shown_before_it(url: str, stub: OpenAIStub, tmp_path: Path) -> None:
    stub.reply = speaks
    with serving(tmp_path, stub, history_url=url, chains=[SUMMING], window_tokens=1000) as (alice, bob):
        alice.post("/sessions/import", json=long_ago(80, "We named our dogs Rex and Lou.")).raise_for_status()
        ask(alice, "Hello again.")
        summary = summary_of(alice)
        ask(alice, "What are they called?")
        assert bob.get("/sessions/s/summary").status_code == 404
    first, *_ = shown(stub)[-1]
    assert first.startswith("What we spoke of before, summed up:")
    assert summary["text"] in first
    assert summary["made_by"] == "small"
    assert not any("summed up" in text for text in shown(stub)[0])


def test_the_user_edits_it_and_deletes_it_and_a_rewind_forgets_it(stub: OpenAIStub, tmp_path: Path) -> None:
    stub.reply = speaks
    with serving(tmp_path, stub, chains=[SUMMING], window_tokens=1000) as (alice, bob):
        alice.post("/sessions/import", json=long_ago(55, "We named our dogs Rex and Lou.")).raise_for_status()
        assert alice.get("/sessions/s/summary").status_code == 404
        ask(alice, "Hello again.")
        wait_for(lambda: summary_of(alice)["up_to"] == left_last(shown(stub)[0]), "all parts to be summed up")
        summary = summary_of(alice)
        stub.reply = says_no_more_notes  # what leaves the window from here on takes the place of nothing
        mine = alice.put("/sessions/s/summary", json={"text": "The dogs are Max and Ada."}).raise_for_status().json()
        assert (mine["made_by"], mine["up_to"]) == ("user", summary["up_to"])
        ask(alice, "What are they called?")
        assert "Max and Ada" in shown(stub)[-1][0]
        alice.post("/sessions/s/fork", json={"session_id": "f", "turn_id": "t54"}).raise_for_status()
        assert alice.get("/sessions/f/summary").json()["text"] == mine["text"]
        assert alice.delete("/sessions/f/summary").status_code == 204
        assert alice.get("/sessions/f/summary").status_code == 404
        assert bob.put("/sessions/s/summary", json={"text": "x"}).status_code == 404
        assert alice.put("/sessions/s/summary", json={"text": " "}).status_code == 422
        alice.post("/sessions/s/rewind", json={"turn_id": "t2"}).raise_for_status()
        assert alice.get("/sessions/s/summary").status_code == 404


def test_a_summary_leaves_and_comes_back_with_its_session(stub: OpenAIStub, tmp_path: Path) -> None:
    with serving(tmp_path, stub) as (alice, bob):
        alice.post("/sessions/import", json=long_ago(5, "We named our dogs Rex and Lou.")).raise_for_status()
        assert "summary" not in alice.get("/sessions/s/export").json()
        summary = alice.put("/sessions/s/summary", json={"text": "The dogs are Rex and Lou."}).raise_for_status().json()
        exported = alice.get("/sessions/s/export").json()
        assert exported["summary"] == summary
        (line,) = alice.get("/export").text.splitlines()
        assert json.loads(line) == exported
        bob.post("/sessions/import", json={**exported, "session_id": "mine"}).raise_for_status()
        assert bob.get("/sessions/mine/summary").json() == summary
        assert bob.get("/sessions/mine/export").json() == {**exported, "session_id": "mine"}
        wrong = {**exported, "session_id": "wrong", "summary": {**summary, "up_to": "t99"}}
        assert bob.post("/sessions/import", json=wrong).status_code == 422
        assert bob.get("/sessions/wrong").status_code == 404


def test_what_summing_up_costs_is_the_users(stub: OpenAIStub, tmp_path: Path) -> None:
    stub.reply = speaks

    def left(client: httpx.Client) -> int:
        return next(int(one["left"]) for one in client.get("/me").json()["limits"] if one["limit"] == "tokens a day")

    spent = dict[str, int]()
    for name, chain in (("summing", SUMMING), ("plain", replace(SUMMING, memory=True))):
        with serving(tmp_path / name, stub, chains=[chain], window_tokens=1000, tokens_per_day=10**6) as (alice, _):
            alice.post("/sessions/import", json=long_ago(80, "We named our dogs Rex and Lou.")).raise_for_status()
            before = left(alice)
            ask(alice, "Hello again.")
            if name == "summing":
                summary_of(alice)
                wait_for(lambda: left(alice) > before - 1500, "what was reserved")  # noqa: B023 - called at once
            spent[name] = before - left(alice)
    assert spent["summing"] > 1.3 * spent["plain"]


def test_a_summary_that_fails_fails_no_turn(stub: OpenAIStub, tmp_path: Path) -> None:
    stub.reply = says_no_more_notes
    with serving(tmp_path, stub, chains=[SUMMING], window_tokens=1000) as (alice, _):
        alice.post("/sessions/import", json=long_ago(80, "We named our dogs Rex and Lou.")).raise_for_status()
        for n in range(3):
            ask(alice, f"Question {n}")
        assert alice.get("/sessions/s/summary").status_code == 404


@pytest.mark.parametrize("memory", ["always", 1.5])
def test_a_chain_with_another_memory_is_refused(memory: Any) -> None:
    with pytest.raises(BadChain, match="say True, False or 'summary'"):
        replace(SUMMING, memory=memory).with_history(EchoModel(), Turns(MemoryStore()))

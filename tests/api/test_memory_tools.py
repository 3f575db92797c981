"""Memory as tools of an agent, over HTTP: what they reach is the caller's, whatever the model asks for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AnyMessage
from langchain_core.runnables import Runnable
from typing_extensions import TypedDict

from chains import Chain
from tests.live_server import langserve_warns, serve_here
from tests.openai_stub import OpenAIStub
from tests.openai_stub_wire import Reply
from tests.stores import KINDS
from turns.memory_tools import recall_tool, remember_tool

pytest.importorskip("langgraph")

pytestmark = langserve_warns


class Messages(TypedDict):
    messages: list[AnyMessage]


def _chain(name: str, *, all_sessions: bool) -> Chain:
    def build(model: BaseChatModel) -> Runnable[Any, Any]:
        from langchain.agents import create_agent

        return create_agent(model, [recall_tool(all_sessions=all_sessions), remember_tool()])

    return Chain(
        name=name, build=build, input_type=Messages, output_type=Messages, input_messages_key="messages",
        description="An agent that looks up what was said.", recall="off",
    )  # fmt: skip


CHAINS = [_chain("looker", all_sessions=False), _chain("finder", all_sessions=True)]


@pytest.fixture
def stub() -> Iterator[OpenAIStub]:
    with OpenAIStub() as stub:
        stub.reply = lambda messages: "All right."
        yield stub


@pytest.fixture(params=list(KINDS))
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return KINDS[request.param](request, tmp_path).url or "memory:"


@pytest.fixture
def people(url: str, stub: OpenAIStub, tmp_path: Path) -> Iterator[tuple[httpx.Client, httpx.Client]]:
    rest: dict[str, Any] = {"window_tokens": 200, "chains": CHAINS, "history_url": url}
    with (
        serve_here(tmp_path, openai_base_url=stub.base_url, model_name="small", **rest) as server,
        server.client() as alice,
        server.client("bob") as bob,
    ):
        yield alice, bob


@pytest.fixture(autouse=True)
def _recall_has_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loaded machine takes longer than a turn waits for it."""
    monkeypatch.setattr("turns.recall.RECALL_S", 10.0)


def ask(client: httpx.Client, words: str, session: str, chain: str = "looker") -> dict[str, Any]:
    message = {"type": "human", "content": words}
    config = {"configurable": {"session_id": session}}
    response = client.post(f"/{chain}/invoke", json={"input": {"messages": [message]}, "config": config})
    response.raise_for_status()
    return dict(response.json()["output"]["messages"][-1])


def calling(stub: OpenAIStub, tool: str, arguments: dict[str, Any]) -> None:
    """The model calls that tool with its next reply, and says then what it was told."""
    replies = iter([Reply(None, tool_calls=[(tool, arguments)])])
    stub.reply = lambda messages: next(replies, None) or f"I was told: {messages[-1]['content']}"


def _long_ago(client: httpx.Client, fact: str, session: str) -> None:
    ask(client, fact, session)
    for number in range(6):
        ask(client, f"Topic {number}: {'some other words ' * 12}", session)


def test_an_agent_looks_up_what_fell_out_of_the_window_of_its_own_session(
    people: tuple[httpx.Client, httpx.Client], stub: OpenAIStub
) -> None:
    alice, bob = people
    _long_ago(alice, "Our dog is called Rex.", "s")
    ask(alice, "Our other dog is called Lou.", "another")
    _long_ago(bob, "Our dog is called Bello.", "s")
    ask(alice, "Who are you?", "s")
    assert not any("Rex" in str(message) for message in stub.requests[-1].messages)
    calling(stub, "recall", {"query": "name of the dog", "user_id": "bob", "session_id": "another"})
    answer = ask(alice, "What did I tell you?", "s")["content"]
    assert "Rex" in answer
    assert "Lou" not in answer
    assert "Bello" not in answer
    calling(stub, "recall", {"query": "zeppelins"})
    assert ask(alice, "And of those?", "s")["content"] == "I was told: Nothing was found."


def test_an_agent_may_look_through_all_sessions_of_its_user_and_of_nobody_else(
    people: tuple[httpx.Client, httpx.Client], stub: OpenAIStub
) -> None:
    alice, bob = people
    ask(alice, "Our dog is called Rex.", "monday")
    ask(bob, "Our dog is called Bello.", "monday")
    calling(stub, "recall", {"query": "dog", "user_id": "bob"})
    answer = ask(alice, "What did I tell you?", "friday", chain="finder")["content"]
    assert "Rex" in answer
    assert "Bello" not in answer


def test_what_an_agent_remembers_is_a_note_of_its_user_within_the_bounds_of_notes(
    people: tuple[httpx.Client, httpx.Client], stub: OpenAIStub
) -> None:
    alice, bob = people
    calling(stub, "remember", {"note": "Is a vegetarian.", "user_id": "bob"})
    assert ask(alice, "I eat no meat.", "s")["content"] == "I was told: Noted."
    assert [note["text"] for note in alice.get("/memory").json()["notes"]] == ["Is a vegetarian."]
    assert bob.get("/memory").json() == {"notes": []}
    calling(stub, "remember", {"note": " "})
    assert ask(alice, "Nothing.", "s")["content"] == "I was told: There is nothing in this note."
    replies = iter([Reply(None, tool_calls=[("remember", {"note": f"Fact {number}"}) for number in range(6)])])
    stub.reply = lambda messages: next(replies, "Noted.")
    ask(alice, "Six facts at once.", "s")
    noted = [note["text"] for note in alice.get("/memory").json()["notes"]]
    assert sorted(noted) == [*(f"Fact {number}" for number in range(6)), "Is a vegetarian."]
    full = [f"Fact {number}" for number in range(100)]
    alice.put("/memory", json={"notes": full}).raise_for_status()
    calling(stub, "remember", {"note": "One more."})
    assert "too many notes" in ask(alice, "Another thing.", "s")["content"]
    assert [note["text"] for note in alice.get("/memory").json()["notes"]] == full

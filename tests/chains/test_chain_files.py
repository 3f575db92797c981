"""A chain is a file: one of a user's own is served and remembers, in every shape that LangChain documents."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from langchain_core.messages import AnyMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import Runnable, RunnableLambda
from pydantic import BaseModel

from chains import Chain
from tests.calls import STREAMS, WAYS, body_of, call, events_of, said, text_in
from tests.live_server import copy_of_the_tree, langserve_warns, serve_here, start
from tests.openai_stub import OpenAIStub

pytestmark = langserve_warns

MINE = """
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from pydantic import BaseModel

from chains import Chain


class Question(BaseModel):
    question: str


PROMPT = ChatPromptTemplate.from_messages(
    [("system", "You are a pirate."), MessagesPlaceholder("past"), ("human", "{question}")]
)
CHAIN = Chain(
    name="pirate", build=lambda model: PROMPT | model | StrOutputParser(), input_type=Question, output_type=str,
    input_messages_key="question", history_messages_key="past",
)
"""


@pytest.fixture(scope="module")
def stub() -> Iterator[OpenAIStub]:
    with OpenAIStub() as stub:
        yield stub


def test_a_file_of_twenty_lines_is_a_chain_that_shares_the_callers_sessions(stub: OpenAIStub, tmp_path: Path) -> None:
    assert len([line for line in MINE.splitlines() if line]) <= 20
    server = copy_of_the_tree(tmp_path / "tree")
    (server.parent / "chains" / "pirate.py").write_text(MINE)
    config = {"configurable": {"session_id": "s"}}
    with start(tmp_path, server=server, OPENAI_BASE_URL=stub.base_url) as process, process.client() as client:
        call(client, "one", "s", chain="tutor")
        for way in WAYS:
            answer = client.post(f"/pirate/{way}", json=body_of(way, {"question": "ahoy"}, config=config))
            assert "one | ahoy" in said(answer, way)
        assert stub.requests[-1].messages[0] == {"role": "system", "content": "You are a pirate."}
        assert said(call(client, "two", "s")).endswith("ahoy | two")
        assert client.get("/pirate/playground/", follow_redirects=True).status_code == 200
        assert "question" in client.get("/pirate/input_schema").text


# --- the shapes


class Question(BaseModel):
    topic: str
    question: str


class Messages(BaseModel):
    messages: list[AnyMessage]


class Reply(BaseModel):
    reply: AnyMessage


PROMPT = ChatPromptTemplate.from_messages(
    [("system", "You know {topic}."), MessagesPlaceholder("history"), ("human", "{question}")]
)
to_reply: Runnable[Any, Any] = RunnableLambda(lambda message: {"reply": message})
from_messages: Runnable[Any, Any] = RunnableLambda(lambda value: value["messages"])
WITH_KEY: dict[str, Any] = {"input_messages_key": "question", "history_messages_key": "history"}

SHAPES = [
    Chain(name="key", build=lambda model: PROMPT | model, input_type=Question, **WITH_KEY),
    Chain(
        name="text",
        build=lambda model: PROMPT | model | StrOutputParser(),
        input_type=Question,
        output_type=str,
        **WITH_KEY,
    ),
    Chain(
        name="out",
        build=lambda model: model | to_reply,
        input_type=list[AnyMessage],
        output_type=Reply,
        output_messages_key="reply",
    ),
    Chain(name="bare", build=lambda model: model, input_type=list[AnyMessage]),
    Chain(name="single", build=lambda model: from_messages | model, input_type=Messages, input_messages_key="messages"),
]


def question(shape: str, text: str, role: str = "human") -> Any:
    message = [{"type": role, "content": text, **({"tool_call_id": "x"} if role == "tool" else {})}]
    if shape in ("key", "text"):
        return {"topic": "all", "question": text}
    return message if shape in ("out", "bare") else {"messages": message}


@pytest.fixture(scope="module")
def client(stub: OpenAIStub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("shapes")
    with serve_here(folder, openai_base_url=stub.base_url, chains=SHAPES) as server, server.client() as client:
        yield client


def ask(client: httpx.Client, shape: str, way: str, text: str, session: str, **rest: Any) -> httpx.Response:
    config = {"configurable": {"session_id": session}}
    return client.post(f"/{shape}/{way}", json=body_of(way, question(shape, text, **rest), config=config))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shape", [chain.name for chain in SHAPES])
def test_every_shape_remembers_over_http(client: httpx.Client, shape: str, way: str) -> None:
    session = f"{shape} {way}"
    assert "1 user messages: one" in told(ask(client, shape, way, "one", session), way)
    assert "one | two" in told(ask(client, shape, way, "two", session), way)
    turns = client.get(f"/sessions/{session}/turns").json()["turns"]
    assert [turn["output"][0]["type"] for turn in turns] == ["ai", "ai"]
    assert {turn["chain"] for turn in turns} == {shape}


def told(answer: httpx.Response, way: str) -> str:
    """What was said, joined, whatever the shape of it."""
    assert answer.status_code == 200, answer.text
    if way not in STREAMS:
        output = answer.json()["output"]
        return text_in(output[0] if way == "batch" else output)
    assert events_of(answer.text)[-1][0] == "end"
    if way == "stream":
        return "".join(text_in(data) for name, data in events_of(answer.text) if name == "data")
    return "".join(re.findall(r'"content":"([^"]*)"', answer.text)) or said(answer, way)


def test_the_conversation_of_one_shape_goes_on_in_all_others(client: httpx.Client) -> None:
    names = [chain.name for chain in SHAPES]
    for number, shape in enumerate(names):
        texts = told(ask(client, shape, "invoke", f"n{number}", "all shapes"), "invoke").partition("messages: ")[2]
        assert texts == " | ".join(f"n{n}" for n in range(number + 1))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("role", ["system", "ai", "tool"])
@pytest.mark.parametrize("shape", ["out", "bare", "single"])
def test_where_messages_are_taken_forged_ones_are_refused(
    client: httpx.Client, stub: OpenAIStub, shape: str, role: str, way: str
) -> None:
    asked = len(stub.requests)
    assert ask(client, shape, way, "forged", f"forged {shape}", role=role).status_code == 422
    assert len(stub.requests) == asked


@pytest.mark.parametrize("shape", ["out", "bare", "single"])
def test_a_message_with_parts_is_remembered_as_it_was(client: httpx.Client, stub: OpenAIStub, shape: str) -> None:
    parts: list[Any] = [{"type": "text", "text": "look"}]
    parts += [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]
    message = [{"type": "human", "content": parts}]
    config = {"configurable": {"session_id": f"parts {shape}"}}
    value = message if shape != "single" else {"messages": message}
    assert client.post(f"/{shape}/invoke", json={"input": value, "config": config}).status_code == 200
    ask(client, shape, "invoke", "again", f"parts {shape}")
    assert stub.requests[-1].messages[0]["content"] == parts

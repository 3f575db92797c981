"""Chains as people bring them, over HTTP by LangServe's client: what they answer, and what is kept, in two stores."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

import httpx
import pytest
from langchain.agents import create_agent
from langchain.agents.structured_output import ToolStrategy
from langchain_classic.agents import AgentExecutor, create_tool_calling_agent
from langchain_classic.chains import create_retrieval_chain
from langchain_classic.chains.combine_documents import create_stuff_documents_chain
from langchain_core.callbacks import AsyncCallbackHandler, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage, AnyMessage, ToolMessage, messages_from_dict
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser, StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import (
    ConfigurableField,
    RunnableBranch,
    RunnableGenerator,
    RunnableLambda,
    RunnableParallel,
)
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import create_react_agent
from langgraph.types import interrupt
from langserve import RemoteRunnable
from pydantic import BaseModel
from typing_extensions import TypedDict

from chains import Chain
from histories.base import jsonable
from tests.any_chains import DOCUMENT, OUTPUTS, STREAMS, City
from tests.live_server import PLAIN, Here, langserve_warns, serve_here, wait_for
from tests.openai_stub import OpenAIStub
from tests.stores import on_store

pytestmark = [
    *langserve_warns,
    pytest.mark.filterwarnings("ignore:create_react_agent has been moved"),
    # LangServe reads a config by a schema whose defaults LangChain gives as text.
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings"),
]


class Messages(TypedDict):
    messages: list[AnyMessage]


class Ask(TypedDict):
    input: str


class Weather(BaseModel):
    """The weather somewhere."""

    city: str


@tool
def weather(city: str) -> str:
    """Tells the weather."""
    return f"sunny in {city}"


@tool(response_format="content_and_artifact")
def chart(city: str) -> tuple[str, Any]:
    """Draws the weather."""
    return f"a chart of {city}", {"points": {1}, "png": b"x", 3: DOCUMENT.metadata}


@tool
def ask(city: str) -> str:
    """Asks a person."""
    return str(interrupt({"question": f"Is it sunny in {city}?"}))


class Shelf(BaseRetriever):
    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        return [DOCUMENT]


def prompt(*parts: Any) -> ChatPromptTemplate:
    messages: list[Any] = [*parts, MessagesPlaceholder("history"), ("human", "{input}")]
    return ChatPromptTemplate.from_messages(messages)


def _raise(_: Any) -> Any:
    raise ZeroDivisionError


def executor(model: Any) -> Any:
    parts = [MessagesPlaceholder("history"), ("human", "{input}"), MessagesPlaceholder("agent_scratchpad")]
    agent = create_tool_calling_agent(model, [weather], ChatPromptTemplate.from_messages(cast(Any, parts)))
    return AgentExecutor(agent=agent, tools=[weather], return_intermediate_steps=True)


def graph(model: Any) -> Any:
    """A graph, within a graph."""
    inner = StateGraph(MessagesState)
    inner.add_node("model", RunnableLambda(lambda state: {"messages": [AIMessage("thought")]}))
    inner.add_edge(START, "model")
    outer = StateGraph(MessagesState)
    outer.add_node("inner", inner.compile())

    async def say(state: MessagesState) -> Any:
        return {"messages": [await model.ainvoke(state["messages"][:-1])]}

    outer.add_node("say", say)
    outer.add_edge(START, "inner")
    outer.add_edge("inner", "say")
    return outer.compile()


def routed(value: dict[str, Any]) -> Any:
    return RunnableLambda(lambda _: "long" if len(value["input"]) > 20 else "short")


def wants_a_joke(value: dict[str, Any]) -> bool:
    return "joke" in value["input"]


def by_pieces(messages: Any) -> Iterator[str]:
    yield from ("one ", "two")


async def by_pieces_later(messages: Any) -> AsyncIterator[str]:
    for piece in ("one ", "two"):
        yield piece


def parsed(text: str, parser: Any) -> Any:
    async def say(_: AsyncIterator[Any]) -> AsyncIterator[str]:
        for place in range(0, len(text), 4):
            yield text[place : place + 4]

    return RunnableGenerator(say) | parser


async def of_streams(inputs: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for messages in inputs:
        for chunk in STREAMS[messages[-1].text][0]:
            yield chunk


KEYS: dict[str, Any] = {"input_type": Ask, "input_messages_key": "input", "history_messages_key": "history"}
STATE: dict[str, Any] = {"input_type": Messages, "output_type": Any, "input_messages_key": "messages"}
TEXT: dict[str, Any] = {"input_type": str, "output_type": Any}


def stuffed(model: Any) -> Any:
    return create_retrieval_chain(Shelf(), create_stuff_documents_chain(model, prompt(("system", "Of {context}:"))))


TEXTS: dict[str, tuple[Any, str, list[tuple[str, str]]]] = {
    "shelf": (
        lambda _: RunnableLambda(lambda said: said[-1].text) | Shelf(),
        "",
        [("ai", '[{"id": null, "metadata": {"title": "Weather"')],
    ),
    "form": (
        lambda model: model.with_structured_output(Weather, method="function_calling"),
        "[[tool Weather]]",
        [("ai", '{"city": "Oslo"}')],
    ),
    "pydantic": (
        lambda _: parsed('{"name": "Oslo"}', PydanticOutputParser(pydantic_object=City)),
        "",
        [("ai", '{"name": "Oslo", "founded": null}')],
    ),
    "json": (
        lambda _: parsed('{"a": "xyz", "b": [1, 2]}', JsonOutputParser()),
        "",
        [("ai", '{"a": "xyz", "b": [1, 2]}')],
    ),
    "async-generator": (lambda _: RunnableGenerator(by_pieces_later), "", [("ai", "one two")]),
    "iterator": (lambda _: RunnableLambda(lambda said: by_pieces(said)), "", [("ai", "one two")]),
    "agents-stream": (
        lambda model: RunnableLambda(
            lambda said: create_agent(model, [weather]).astream({"messages": said}, stream_mode="messages")
        ),
        "[[tool weather]]",
        [("ai", ""), ("tool", "sunny in Oslo"), ("ai", "You said")],
    ),
    "parallel": (lambda _: RunnableParallel(a=lambda _: 1, b=lambda _: "x"), "", [("ai", '{"')]),
    "fallback": (
        lambda _: RunnableLambda(_raise).with_fallbacks([RunnableLambda(lambda _: "fell")]),
        "",
        [("ai", "fell")],
    ),
}
"""What one chain does, by the first word that it is sent: to mount a chain takes LangServe a tenth of a second."""

BROUGHT: dict[str, tuple[Chain, Any, list[tuple[str, str]]]] = {
    "agent": (
        Chain(name="agent", build=lambda model: create_agent(model, [weather, chart, ask]), **STATE),
        {"messages": ["hi [[tool weather]]"]},
        [("ai", ""), ("tool", "sunny in Oslo"), ("ai", "You said")],
    ),
    "react": (
        Chain(name="react", build=lambda model: create_react_agent(model, [weather]), **STATE),
        {"messages": [("human", "hi [[tool weather]]")]},
        [("ai", ""), ("tool", "sunny in Oslo"), ("ai", "You said")],
    ),
    "formed": (
        Chain(
            name="formed",
            build=lambda model: create_agent(model, [weather], response_format=ToolStrategy(Weather)),
            **STATE,
        ),
        {"messages": ["hi [[tool Weather]]"]},
        [("ai", ""), ("tool", "Returning structured response")],
    ),
    "graph": (
        Chain(name="graph", build=graph, **STATE),
        {"messages": ["hi"]},
        [("ai", "thought"), ("ai", "You said")],
    ),
    "executor": (
        Chain(name="executor", build=executor, output_type=Any, output_messages_key="output", **KEYS),
        {"input": "hi [[tool weather]]"},
        [("ai", ""), ("tool", "sunny in Oslo"), ("ai", "You said")],
    ),
    "rag": (
        Chain(name="rag", build=stuffed, output_type=Any, output_messages_key="answer", **KEYS),
        {"input": "hi"},
        [("ai", "You said")],
    ),
    "generator": (Chain(name="generator", build=lambda _: by_pieces, **TEXT), "hi", [("ai", "one two")]),
    "router": (
        Chain(name="router", build=lambda model: routed, output_type=str, **KEYS),
        {"input": "hi"},
        [("ai", "short")],
    ),
    "branch": (
        Chain(
            name="branch",
            build=lambda model: RunnableBranch(
                (wants_a_joke, prompt() | model | StrOutputParser()), RunnableLambda(lambda _: "no joke")
            ),
            output_type=str,
            **KEYS,
        ),
        {"input": "a joke"},
        [("ai", "You said")],
    ),
}


class Loud(AsyncCallbackHandler):
    raise_error = True

    async def on_chain_end(self, *args: Any, **kwargs: Any) -> None:
        raise ValueError("a listener raised at the end")


async def raising_last(inputs: AsyncIterator[Any]) -> AsyncIterator[str]:
    try:
        async for _ in inputs:
            yield "said"
    finally:
        raise RuntimeError("raised in the end")


async def leaving_work(_: Any) -> str:
    """Leaves a task behind that exits when the turn is over."""

    async def exit_later() -> None:
        await asyncio.sleep(0)
        LEFT.append("exits")
        raise SystemExit(3)

    TASKS.append(asyncio.get_running_loop().create_task(exit_later()))
    return "done"


TASKS: list[Any] = []
LEFT: list[str] = []

BAD: dict[str, Any] = {
    "exits": RunnableLambda(lambda said: sys.exit(3)),
    "last": RunnableGenerator(raising_last),
    "loud": RunnableLambda(lambda _: "ok").with_config(callbacks=[Loud()]),
    "leaves": RunnableLambda(leaving_work),
}


def any_of_them(model: Any) -> Any:
    made = {name: build(model) for name, (build, _, _) in TEXTS.items()} | BAD

    def chosen(messages: Any) -> Any:
        text = messages[-1].text
        return OUTPUTS[text][0] if text in OUTPUTS else made[text.partition(" ")[0]]

    return chosen


def asking(_: Any) -> Any:
    """A graph that stops to ask."""
    graph = StateGraph(MessagesState)
    graph.add_node("ask", lambda state: {"messages": [AIMessage(str(interrupt("Shall I?")))]})
    graph.add_edge(START, "ask")
    return graph.compile()


OTHERS = [
    Chain(name="asks", build=asking, **STATE),
    Chain(name="any", build=any_of_them, **TEXT),
    Chain(name="streams", build=lambda _: RunnableGenerator(of_streams), **TEXT),
    Chain(
        name="configured",
        build=lambda model: model.configurable_fields(
            max_tokens=ConfigurableField(id="longest")
        ).configurable_alternatives(
            ConfigurableField(id="which"), default_key="stub", other=FakeListChatModel(responses=["the other"])
        ),
        input_type=str,
    ),
]


@pytest.fixture(scope="module")
def stub() -> Iterator[OpenAIStub]:
    with OpenAIStub() as stub:
        yield stub


@pytest.fixture(scope="module", params=["file", "redis"])
def server(request: pytest.FixtureRequest, stub: OpenAIStub, tmp_path_factory: Any) -> Iterator[Here]:
    chains = [*(chain for chain, _, _ in BROUGHT.values()), *OTHERS]
    folder = tmp_path_factory.mktemp("brought")
    with (
        on_store(request, request.param) as url,
        serve_here(folder, openai_base_url=stub.base_url, history_url=url, chains=chains) as server,
    ):
        yield server


@pytest.fixture
def alice(server: Here) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def remote(server: Here, chain: str) -> Any:
    return RemoteRunnable(f"{server.url}/{chain}", headers=server.headers("alice"), verify=PLAIN)


def config(session: str, **configurable: Any) -> Any:
    return {"configurable": {"session_id": session, **configurable}}


def turns_of(client: httpx.Client, session: str) -> list[dict[str, Any]]:
    return list(client.get(f"/sessions/{session}/turns").json()["turns"])


def kept(turn: dict[str, Any]) -> list[tuple[str, str]]:
    """The types of the messages of a reply, and their texts."""
    return [(message.type, message.text) for message in messages_from_dict(turn["output"])]


@pytest.mark.parametrize("name", [*BROUGHT, *TEXTS])
def test_a_chain_as_people_bring_it_answers_and_remembers(server: Here, alice: httpx.Client, name: str) -> None:
    if name in TEXTS:
        _, special, messages = TEXTS[name]
        chain, value = remote(server, "any"), f"{name} {special}".strip()
    else:
        _, value, messages = BROUGHT[name]
        chain = remote(server, name)
    assert chain.invoke(value, config(name))
    assert list(chain.stream(value, config(name)))
    for turn in turns_of(alice, name):
        assert turn["status"] == "complete"
        assert [kind for kind, _ in kept(turn)] == [kind for kind, _ in messages]
        assert all(said.startswith(text) for (_, said), (_, text) in zip(kept(turn), messages, strict=True))
    model_was_asked = messages[-1][1] == "You said"
    if model_was_asked:  # and saw the first turn once
        assert kept(turns_of(alice, name)[1])[-1][1].count("I have seen 2 user messages") == 1


@pytest.mark.parametrize("name", OUTPUTS)
def test_an_output_of_any_kind_is_answered_and_kept_over_http(server: Here, alice: httpx.Client, name: str) -> None:
    output, text = OUTPUTS[name]
    chain, plain = remote(server, "any"), jsonable(output)
    assert jsonable(chain.invoke(name, config(name, turn_id="t"))) == plain
    assert jsonable(chain.invoke(name, config(name, turn_id="t"))) == plain, "from the record"
    assert jsonable(list(chain.stream(name, config(name)))) == [plain]
    assert [kept(turn) for turn in turns_of(alice, name)] == [[("ai", text)]] * 2


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_of_any_kind_is_heard_and_kept_over_http(server: Here, alice: httpx.Client, name: str) -> None:
    chunks, said = STREAMS[name]
    assert jsonable(list(remote(server, "streams").stream(name, config(name)))) == jsonable(chunks)
    (turn,) = turns_of(alice, name)
    assert (turn["status"], [text for _, text in kept(turn)]) == ("complete", said)


@pytest.mark.parametrize("name", STREAMS)
def test_a_generator_of_any_kind_is_invoked_too_and_told_of_in_events(
    server: Here, alice: httpx.Client, name: str
) -> None:
    assert remote(server, "streams").invoke(name, config(f"{name}, invoked")) is not None
    assert events(server, name, f"{name}, told") is not None
    for session in (f"{name}, invoked", f"{name}, told"):
        (turn,) = turns_of(alice, session)
        assert (turn["status"], [text for _, text in kept(turn)]) == ("complete", STREAMS[name][1])


def events(server: Here, value: str, session: str) -> Any:
    """The output that the last event of a run tells of."""

    async def heard() -> Any:
        told = [one async for one in remote(server, "streams").astream_events(value, config(session), version="v2")]
        assert told[-1]["event"] == "on_chain_end"
        return told[-1]["data"]["output"]

    return asyncio.run(heard())


def test_several_messages_of_a_generator_are_a_list_of_them(server: Here) -> None:
    name, steps = "a call, its result and an answer", [(AIMessage, ""), (ToolMessage, "22"), (AIMessage, "It is 22.")]
    invoked = remote(server, "streams").invoke(name, config("steps"))
    for output in (invoked, events(server, name, "steps, told")):
        assert [(isinstance(one, kind), one.text) for one, (kind, _) in zip(output, steps, strict=True)] == [
            (True, text) for _, text in steps
        ]


def test_what_a_graph_asks_a_person_is_on_the_record_and_before_the_model(server: Here, alice: httpx.Client) -> None:
    asks = remote(server, "asks")
    assert asks.invoke({"messages": ["go"]}, config("asks"))["__interrupt__"][0]["value"] == "Shall I?"
    assert list(asks.stream({"messages": ["go"]}, config("asks")))
    assert [kept(turn) for turn in turns_of(alice, "asks")] == [[("ai", "Shall I?")]] * 2


def test_documents_are_the_sources_of_a_turn_and_tool_steps_its_parts(server: Here, alice: httpx.Client) -> None:
    remote(server, "rag").invoke({"input": "hi"}, config("sources"))
    remote(server, "executor").invoke({"input": "hi [[tool weather]]"}, config("sources"))
    first, second = turns_of(alice, "sources")
    assert [(part["type"], part.get("title")) for part in first["parts"]] == [("text", None), ("source", "Weather")]
    assert [part["type"] for part in second["parts"]] == ["tool_call", "tool_result", "text"]


def test_an_artifact_of_a_tool_is_kept_as_far_as_json_holds_it(server: Here, alice: httpx.Client) -> None:
    answer = remote(server, "agent").invoke({"messages": ["hi [[tool chart]]"]}, config("artifact"))
    (result,) = [message for message in answer["messages"] if isinstance(message, ToolMessage)]
    assert result.artifact == {"points": [1], "png": "eA==", "3": DOCUMENT.metadata}
    assert turns_of(alice, "artifact")[0]["output"][1]["data"]["artifact"] == result.artifact


@pytest.mark.parametrize("way", ["invoke", "stream"])
def test_a_person_answers_an_agents_call_with_the_next_turn(
    server: Here, alice: httpx.Client, stub: OpenAIStub, way: str
) -> None:
    agent, session = remote(server, "agent"), f"asked {way}"
    list(agent.stream({"messages": ["hi [[tool ask]]"]}, config(session)))
    (turn,) = turns_of(alice, session)
    assert (turn["status"], turn["parts"][0]["type"]) == ("complete", "tool_call")
    told = {"type": "tool", "content": "yes", "tool_call_id": turn["parts"][0]["id"]}
    asked = getattr(agent, way)({"messages": [told]}, config(session))
    assert asked if way == "invoke" else list(asked)
    assert [message["role"] for message in stub.requests[-1].messages] == ["user", "assistant", "tool"]
    assert kept(turns_of(alice, session)[1])[-1][1].startswith("You said")


def test_what_authors_let_clients_configure_is_configured_and_streams(server: Here, stub: OpenAIStub) -> None:
    chunks = list(remote(server, "configured").stream("one two three", config("fields", longest=77)))
    assert type(chunks[0]).__name__ == "AIMessageChunk"
    assert 77 in (stub.requests[-1].body.get("max_tokens"), stub.requests[-1].body.get("max_completion_tokens"))
    assert remote(server, "configured").invoke("hi", config("fields", which="other")).content == "the other"
    with pytest.raises(httpx.HTTPStatusError, match="422"):
        remote(server, "configured").invoke("hi", config("fields", which="none"))


def test_the_events_of_a_turn_end_when_it_is_durable(server: Here, alice: httpx.Client) -> None:
    for chain in ("configured", "generator"):
        for number in range(3):
            session = f"durable {chain} {number}"
            answer = alice.post(f"/{chain}/stream_events", json={"input": "hi", "config": config(session)})
            assert turns_of(alice, session)[-1]["status"] == "complete"
            assert answer.text.count('"event":"on_chain_stream"') >= 2 - (chain == "configured")


@pytest.mark.parametrize("way", ["invoke", "stream"])
@pytest.mark.parametrize("name", ["exits", "last", "loud"])
def test_what_ends_badly_fails_its_own_turn_alone(server: Here, alice: httpx.Client, name: str, way: str) -> None:
    session = f"{name} {way}"
    for _ in range(2):
        with pytest.raises(httpx.HTTPStatusError):
            list(getattr(remote(server, "any"), way)(name, config(session)))
    statuses = {turn["status"] for turn in turns_of(alice, session)}
    assert statuses == {"failed" if name == "exits" or way == "invoke" else "interrupted"}
    assert remote(server, "router").invoke({"input": "hi"}, config(session)) == "short"


def test_work_that_outlives_its_turn_and_exits_ends_no_server(server: Here) -> None:
    LEFT.clear()
    assert remote(server, "any").invoke("leaves", config("leaves")) == "done"
    wait_for(lambda: LEFT, "the task that was left")
    wait_for(lambda: all(task.done() for task in TASKS), "its end")
    assert all(type(task.exception()).__name__ == "ChainExit" for task in TASKS)
    assert remote(server, "any").invoke("leaves", config("leaves")) == "done"

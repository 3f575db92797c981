"""Chains as people bring them: agents, graphs, retrievers, parsers, generators, and some that end badly."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any, cast

from langchain.agents import create_agent
from langchain.agents.structured_output import ToolStrategy
from langchain_classic.agents import AgentExecutor, create_tool_calling_agent
from langchain_classic.chains import create_retrieval_chain
from langchain_classic.chains.combine_documents import create_stuff_documents_chain
from langchain_core.callbacks import AsyncCallbackHandler, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import AIMessage, AnyMessage
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser, StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import (
    ConfigurableField,
    RunnableBranch,
    RunnableGenerator,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
)
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import create_react_agent
from langgraph.types import interrupt
from pydantic import BaseModel
from typing_extensions import TypedDict

from chains import Chain
from tests.any_chains import DOCUMENT, OUTPUTS, STREAMS, City


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


def last_word(state: dict[str, Any]) -> str:
    return str(state["messages"][-1].text)


def asked_agent(model: Any) -> Any:
    agent: Any = create_agent(model, [])
    return RunnableLambda(lambda said: {"messages": said}) | agent | last_word


def agent_under_a_key(model: Any) -> Any:
    agent: Any = create_agent(model, [weather])
    told: Any = RunnableParallel(answer=agent | last_word) | RunnablePassthrough.assign(score=lambda _: 1)
    return told.with_config(tags=["mine"])


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
    "agents-last-word": (
        Chain(
            name="agents-last-word",
            build=lambda model: create_agent(model, [weather]).with_config(tags=["mine"]) | last_word,
            **{**STATE, "output_type": str},
        ),
        {"messages": ["hi [[tool weather]]"]},
        [("ai", "You said")],
    ),
    "agent-under-a-key": (
        Chain(name="agent-under-a-key", build=agent_under_a_key, **STATE),
        {"messages": ["hi [[tool weather]]"]},
        [("ai", "You said")],
    ),
    "asked-agent": (
        Chain(
            name="asked-agent",
            build=asked_agent,
            **TEXT,
        ),
        "hi",
        [("ai", "You said")],
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

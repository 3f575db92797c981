"""The fast client against OpenAI's own: what a chain gets is the same."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import httpx2
import openai
import pytest
import pytest_asyncio
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from chat_models.models import open_model
from tests.openai_stub import OpenAIStub

pytestmark = pytest.mark.asyncio(loop_scope="module")

CALL = {"name": "weather", "args": {"city": "Oslo"}, "id": "call_0", "type": "tool_call"}
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
PROMPTS: dict[str, list[BaseMessage]] = {
    "text": [SystemMessage("Be brief."), HumanMessage("one"), AIMessage("two"), HumanMessage("thréé 💡")],
    "names": [HumanMessage("one", name="ann"), AIMessage("two", name="bob"), HumanMessage("three")],
    "tools": [HumanMessage("one"), AIMessage("", tool_calls=[CALL]), ToolMessage("cold", tool_call_id="call_0")],
    "parts": [HumanMessage([{"type": "text", "text": "what is this?"}, PICTURE])],
    "extras": [AIMessage("no", additional_kwargs={"refusal": None}), HumanMessage("[[n 30]]")],
}
MODES = ["hello", "[[n 60]]", "[[tool weather]]", "[[refuse]]", "[[null]]"]
FAILURES = [
    "[[fail 400]]",
    "[[fail 429]] [[retry 7]]",
    "[[fail 500]]",
    "[[cut 0]]",
    "[[cut 3]]",
    "[[error 3]]",
    "[[bad 3]]",
]


@pytest.fixture(scope="module")
def stub() -> Iterator[OpenAIStub]:
    with OpenAIStub() as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def both(stub: OpenAIStub) -> AsyncIterator[tuple[ChatOpenAI, ChatOpenAI]]:
    """A model with the fast client, and one with OpenAI's."""
    async with AsyncExitStack() as stack:
        opened = [
            await stack.enter_async_context(open_model(openai_base_url=stub.base_url, timeout_s=5, fast=fast))
            for fast in (True, False)
        ]
        yield opened[0], opened[1]


async def streamed(model: ChatOpenAI, prompt: Any, **options: Any) -> BaseMessage:
    chunks = [chunk async for chunk in model.astream(prompt, **options)]
    total = chunks[0]
    for chunk in chunks[1:]:
        total = total + chunk
    return total


def content_of(message: BaseMessage) -> Any:
    """A message without its id."""
    return message.model_dump(exclude={"id"})


async def failure_of(asking: Awaitable[Any]) -> Any:
    """What comes of asking, if it is an error: its class, the beginning of its text, and what the server said."""
    try:
        await asking
    except (openai.APIError, ValueError) as error:
        return type(error).__name__, str(error)[:30], getattr(error, "body", None)
    return None


@pytest.mark.parametrize("mode", MODES)
async def test_a_reply_is_the_same_whole_and_streamed(both: tuple[ChatOpenAI, ChatOpenAI], mode: str) -> None:
    for ask in (lambda model: model.ainvoke(mode), lambda model: streamed(model, mode)):
        fast, plain = [await ask(model) for model in both]
        assert content_of(fast) == content_of(plain)


@pytest.mark.parametrize("mode", FAILURES)
async def test_a_failure_is_the_same(both: tuple[ChatOpenAI, ChatOpenAI], mode: str) -> None:
    for ask in (lambda model: model.ainvoke(mode), lambda model: streamed(model, mode)):
        seen = [await failure_of(ask(model)) for model in both]
        assert seen[0] == seen[1]


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.5, "stop": ["x"], "extra_headers": {"X-Extra": "1"}, "extra_query": {"a": "b"}},
        {"extra_body": {"top_k": 3, "model": "other"}, "timeout": 5.0},
        {"tools": [{"type": "function", "function": {"name": "weather", "parameters": {}}}]},
        {"temperature": openai.omit, "logit_bias": {7: -1}, "timeout": httpx2.Timeout(5)},
    ],
    ids=["bare", "options", "body", "tools", "what is no JSON"],
)
async def test_the_server_is_asked_for_the_same(
    stub: OpenAIStub, both: tuple[ChatOpenAI, ChatOpenAI], prompt: list[BaseMessage], options: dict[str, Any]
) -> None:
    stub.requests.clear()
    for model in both:
        await model.ainvoke(prompt, **options)
        await streamed(model, prompt, **options)
    ignored = ("host", "x-stainless-raw-response", "connection")
    asked = [
        (one.body, {name: value for name, value in one.headers.items() if name not in ignored}) for one in stub.requests
    ]
    assert asked[:2] == asked[2:]


@pytest.mark.parametrize("name", ["o3-mini", "gpt-5.5-pro", "gpt-4o"])
async def test_the_role_of_a_system_message_is_that_of_the_model(
    stub: OpenAIStub, both: tuple[ChatOpenAI, ChatOpenAI], name: str
) -> None:
    stub.requests.clear()
    for model in both:
        other = model.model_copy(update={"model_name": name})
        await other.ainvoke([SystemMessage("Be brief."), HumanMessage("hello")])
    fast, plain = stub.requests
    assert fast.messages == plain.messages
    assert fast.messages[0]["role"] == ("developer" if name == "o3-mini" else "system")


async def test_a_request_follows_the_clients_key_and_cookies_though_its_like_was_made_before(stub: OpenAIStub) -> None:
    async with open_model(openai_base_url=stub.base_url, openai_api_key=SecretStr("one")) as model:
        client = model.root_async_client
        stub.requests.clear()
        for _ in range(2):
            await model.ainvoke("hello")
        client.api_key = "two"
        await model.ainvoke("hello")
        client._client.cookies.set("where", "here")
        await model.ainvoke("hello")
        client._client.cookies.clear()
        await model.ainvoke("hello again")
        asked = [(one.headers["authorization"], one.headers.get("cookie")) for one in stub.requests]
        assert asked == [("Bearer one", None)] * 2 + [
            ("Bearer two", None),
            ("Bearer two", "where=here"),
            ("Bearer two", None),
        ]
        assert stub.requests[-1].body["messages"][-1]["content"] == "hello again"


async def test_an_argument_that_openai_does_not_know_is_refused_as_ever(both: tuple[ChatOpenAI, ChatOpenAI]) -> None:
    for model in both:
        with pytest.raises(TypeError, match="unheard_of"):
            await model.ainvoke("hello", unheard_of=1)


async def test_structured_output_still_works(stub: OpenAIStub, both: tuple[ChatOpenAI, ChatOpenAI]) -> None:
    before, stub.reply = stub.reply, lambda messages: '{"city": "Oslo"}'
    schema = {"title": "Place", "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    try:
        for model in both:
            chain = model.with_structured_output(schema, method="json_schema")
            assert await chain.ainvoke("where?") == {"city": "Oslo"}
            assert [part async for part in chain.astream("where?")][-1] == {"city": "Oslo"}
    finally:
        stub.reply = before


async def test_response_headers_are_there_when_asked_for(stub: OpenAIStub) -> None:
    async with open_model(openai_base_url=stub.base_url) as model:
        model.include_response_headers = True
        for reply in (await model.ainvoke("hello"), await streamed(model, "hello")):
            assert reply.response_metadata["headers"]["content-type"]


async def test_half_a_surrogate_pair_fails_as_ever(both: tuple[ChatOpenAI, ChatOpenAI]) -> None:
    for model in both:
        with pytest.raises(UnicodeEncodeError):
            await model.ainvoke("\ud83d")

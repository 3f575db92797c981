"""The chat model against an OpenAI-compatible server. The embedded model: test_embedded_model.py."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator

import openai
import pytest
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from chat_models.embedded_model import ModelUnavailable
from chat_models.endpoints import DEFAULT_MODEL, Endpoint, model_endpoint
from chat_models.models import open_model
from tests.openai_stub import OpenAIStub
from tests.quick import tries


@pytest.fixture
def stub() -> Iterator[OpenAIStub]:
    with OpenAIStub() as running:
        yield running


@pytest.fixture
async def model(stub: OpenAIStub) -> AsyncIterator[ChatOpenAI]:
    async with open_model(openai_base_url=stub.base_url, timeout_s=5) as opened:
        yield opened


async def whole(model: ChatOpenAI, text: str) -> AIMessageChunk:
    chunks = [chunk async for chunk in model.astream(text)]
    total = chunks[0]
    for chunk in chunks[1:]:
        total = total + chunk
    return total


USAGE = {"input_tokens": 1, "output_tokens": 10, "total_tokens": 11}


async def test_a_whole_reply_comes_with_its_usage(model: ChatOpenAI) -> None:
    reply = await model.ainvoke("hello")
    assert reply.content == "You said: hello. I have seen 1 user messages: hello"
    assert reply.usage_metadata is not None
    assert {key: reply.usage_metadata[key] for key in USAGE} == USAGE  # type: ignore[literal-required]


async def test_a_streamed_reply_comes_with_its_usage(model: ChatOpenAI) -> None:
    reply = await whole(model, "hello")
    assert reply.content == "You said: hello. I have seen 1 user messages: hello"
    assert reply.usage_metadata is not None
    assert {key: reply.usage_metadata[key] for key in USAGE} == USAGE  # type: ignore[literal-required]


def test_the_sync_twins_work(stub: OpenAIStub) -> None:
    async def use() -> tuple[AIMessage, list[AIMessageChunk]]:
        async with open_model(openai_base_url=stub.base_url) as model:
            return await asyncio.to_thread(lambda: (model.invoke("hello"), list(model.stream("hello"))))

    whole, chunks = asyncio.run(use())
    assert whole.content == "".join(str(chunk.content) for chunk in chunks)


async def test_a_tool_call_arrives_whole_and_streamed(model: ChatOpenAI) -> None:
    for reply in (await model.ainvoke("[[tool weather]]"), await whole(model, "[[tool weather]]")):
        assert [(call["name"], call["args"]) for call in reply.tool_calls] == [("weather", {"city": "Oslo"})]


async def test_no_content_is_an_empty_reply(model: ChatOpenAI) -> None:
    assert (await model.ainvoke("[[null]]")).content == ""
    assert (await whole(model, "[[null]]")).content == ""


async def test_a_refused_request_is_told_at_once_with_its_retry_after(stub: OpenAIStub, model: ChatOpenAI) -> None:
    for ask in (model.ainvoke, lambda text: whole(model, text)):
        stub.requests.clear()
        with pytest.raises(openai.RateLimitError) as caught:
            async with asyncio.timeout(60):
                await ask("[[fail 429]] [[retry 100]]")
        assert caught.value.response.headers["retry-after"] == "100"
        assert len(stub.requests) == 1


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("[[fail 400]]", openai.BadRequestError),
        ("[[fail 401]]", openai.AuthenticationError),
        ("[[fail 500]]", openai.InternalServerError),
        ("[[cut 0]]", openai.APIConnectionError),
        ("[[cut 3]]", openai.APIConnectionError),
        ("[[error 3]]", openai.APIError),
        ("[[bad 3]]", json.JSONDecodeError),
    ],
)
async def test_what_goes_wrong_passes_through(model: ChatOpenAI, words: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        await whole(model, words)


@pytest.mark.parametrize("words", ["[[hang]]", "[[stall 3]]"])
async def test_silence_ends_with_the_timeout(stub: OpenAIStub, words: str) -> None:
    async with open_model(openai_base_url=stub.base_url, timeout_s=0.6) as model:
        for ask in (model.ainvoke, lambda text: whole(model, text)):
            with pytest.raises(openai.APITimeoutError):
                await ask(words)
    await asyncio.to_thread(stub.wait_cancelled, times=2)


async def test_nobody_there_is_a_connection_error(stub: OpenAIStub) -> None:
    with OpenAIStub() as other:
        url = other.base_url
    async with open_model(openai_base_url=url) as model:
        with pytest.raises(openai.APIConnectionError):
            await model.ainvoke("hello")


async def test_a_stream_that_is_left_is_cancelled_at_the_server(stub: OpenAIStub, model: ChatOpenAI) -> None:
    for number, one in enumerate(tries(3), 1):
        stream = model.astream("[[n 1000]] [[slow 0.01]]")
        await anext(stream)
        left = time.monotonic()
        await stream.aclose()  # type: ignore[attr-defined]  # an async generator
        one.took = await asyncio.to_thread(stub.wait_cancelled, times=number) - left


async def test_its_connections_are_closed_in_the_end(stub: OpenAIStub) -> None:
    async with open_model(openai_base_url=stub.base_url) as model:
        await model.ainvoke("hello")
    with pytest.raises(RuntimeError, match="closed"):
        await model.ainvoke("hello")
    async with open_model(openai_base_url=stub.base_url) as model:
        await model.ainvoke("hello")


async def test_the_key_and_the_name_are_those_that_were_given(stub: OpenAIStub) -> None:
    key = SecretStr("sk-sesame")
    async with open_model(openai_api_key=key, openai_base_url=stub.base_url, model="big") as model:
        await model.ainvoke("hello")
        assert "sesame" not in repr(model) + str(model)
    assert stub.requests[0].headers["authorization"] == "Bearer sk-sesame"
    assert stub.requests[0].body["model"] == "big"


async def test_other_variables_do_not_lead_it_astray(stub: OpenAIStub, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = "http://127.0.0.1:9"
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "OPENAI_PROXY", "OPENAI_API_BASE", "OPENAI_BASE_URL"):
        monkeypatch.setenv(name, nowhere)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-another")
    monkeypatch.setenv("LANGSMITH_GATEWAY", nowhere)
    async with open_model(openai_base_url=stub.base_url) as model:
        await model.ainvoke("hello")
    assert stub.requests[0].headers["authorization"] == "Bearer none"


def test_the_endpoint_says_in_one_line_which_model_answers() -> None:
    with model_endpoint(openai_api_key=SecretStr("sk-sesame")) as endpoint:
        assert str(endpoint) == f"{DEFAULT_MODEL} at https://api.openai.com/v1"
    with model_endpoint(openai_base_url="https://ann:pw@models.example:8443/v1?key=pw", model="big") as endpoint:
        assert str(endpoint) == "big at https://models.example:8443/v1"
        assert "pw" not in repr(endpoint)
    local = Endpoint("http://127.0.0.1:4321/v1", SecretStr("x"), "SmolLM2-135M-Instruct")
    assert str(local) == ("SmolLM2-135M-Instruct, embedded (a demonstration: set OPENAI_API_KEY for a better model)")


def test_a_model_that_nothing_serves_is_refused() -> None:
    with pytest.raises(ModelUnavailable, match="OPENAI_API_KEY"), model_endpoint(model="gpt-x"):
        pass

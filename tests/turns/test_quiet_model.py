"""A model of whose run nobody hears says what it says to those who listen."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.globals import set_llm_cache
from langchain_core.language_models import BaseChatModel, GenericFakeChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.rate_limiters import InMemoryRateLimiter
from pydantic import Field
from typing_extensions import override

from turns import quiet
from turns.quiet_model import asked, may_be_asked, streamed

PROMPT = ChatPromptTemplate.from_messages([("system", "Be {how}."), MessagesPlaceholder("past"), ("human", "{input}")])
INPUT = {"how": "brief", "input": "Hello", "past": [("human", "one"), AIMessage("two", id="x")]}
PICTURE = {"type": "image", "source_type": "url", "url": "https://there/it.png"}
USAGE: Any = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}

STREAMS: dict[str, list[ChatGenerationChunk]] = {
    "text": [ChatGenerationChunk(message=AIMessageChunk(content=text)) for text in ("a ", "b ", "c")],
    "told": [
        ChatGenerationChunk(message=AIMessageChunk(content="a", id="own", response_metadata={"model": "m"})),
        ChatGenerationChunk(
            message=AIMessageChunk(content="b", usage_metadata=USAGE), generation_info={"logprobs": [1]}
        ),
        ChatGenerationChunk(message=AIMessageChunk(content=""), generation_info={"finish_reason": "stop"}),
    ],
    "last": [ChatGenerationChunk(message=AIMessageChunk(content="a", chunk_position="last"))],
    "blocks": [ChatGenerationChunk(message=AIMessageChunk(content=[{"type": "text", "text": "a", "index": 0}]))],
    "calls": [
        ChatGenerationChunk(
            message=AIMessageChunk(content="", tool_call_chunks=[{"name": "f", "args": "{}", "id": "1", "index": 0}])
        )
    ],
}


class Said(BaseChatModel):
    """Says its chunks, or all of them at once; and keeps what it was asked."""

    chunks: list[ChatGenerationChunk] = Field(default_factory=list)
    error: str = ""
    streaming: bool = False
    heard: list[Any] = Field(default_factory=list)

    @property
    @override
    def _llm_type(self) -> str:
        return "said"

    @override
    def _generate(self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **_: Any) -> ChatResult:
        self.heard.append((messages, run_manager is not None))
        if self.error:
            raise ValueError(self.error)
        info = {"finish_reason": "stop"}
        whole = AIMessage("whole", usage_metadata=USAGE, response_metadata={"own": 1})
        return ChatResult(generations=[ChatGeneration(message=whole, generation_info=info)], llm_output={"name": "m"})

    @override
    async def _astream(self, messages: list[BaseMessage], *_: Any, **__: Any) -> AsyncIterator[ChatGenerationChunk]:
        self.heard.append((messages, False))
        for chunk in self.chunks:
            yield chunk.model_copy(deep=True)
        if self.error:
            raise ValueError(self.error)


def plain(message: BaseMessage) -> dict[str, Any]:
    """A message without the number of its run."""
    told = message.model_dump()
    if str(told["id"]).startswith("lc_run--"):
        told["id"] = "lc_run" + "-0" * str(told["id"]).endswith("-0")
    return told


@pytest.mark.parametrize("name", STREAMS)
async def test_a_stream_gives_the_same_chunks(name: str) -> None:
    model = Said(chunks=STREAMS[name])
    chain = PROMPT | model
    assert may_be_asked(model)
    quietly = [one async for one in quiet.stream(quiet.steps_of(chain, {}), INPUT)]
    told = [one async for one in chain.astream(INPUT)]
    assert [(type(one), plain(one)) for one in quietly] == [(type(one), plain(one)) for one in told]
    assert quietly[0].id
    assert len({one.id for one in quietly}) == len({one.id for one in told})


@pytest.mark.parametrize("settings", [{}, {"streaming": True}, {"streaming": False}, {"disable_streaming": True}])
async def test_a_model_is_invoked_the_same_whatever_it_is_set_to(settings: dict[str, Any]) -> None:
    model = Said(chunks=STREAMS["told"], **settings)
    chain = PROMPT | model
    quietly, told = await quiet.invoke(quiet.steps_of(chain, {}), INPUT), await chain.ainvoke(INPUT)
    assert type(quietly) is type(told)
    assert plain(quietly) == plain(told)
    assert model.heard[0] == model.heard[1]
    parts = [[plain(one) async for one in stream] for stream in (streamed(model, "Hi"), model.astream("Hi"))]
    assert parts[0] == parts[1]


@pytest.mark.parametrize("value", ["Hello", [("human", "Hello")], [AIMessage("a")], PROMPT.invoke(INPUT)])
async def test_whatever_a_model_takes_it_is_asked_the_same(value: Any) -> None:
    model = Said()
    assert plain(await asked(model, value)) == plain(await model.ainvoke(value))
    assert model.heard[0] == model.heard[1]


async def test_old_forms_of_pictures_come_in_the_new_one() -> None:
    model = Said()
    await asked(model, [("human", [PICTURE])])
    await model.ainvoke([("human", [PICTURE])])
    assert model.heard[0][0][0].content == model.heard[1][0][0].content == [{"type": "image", "url": PICTURE["url"]}]


@pytest.mark.parametrize("chunks", [[], STREAMS["text"]])
async def test_an_error_is_raised_as_it_is(chunks: list[ChatGenerationChunk]) -> None:
    model = Said(chunks=chunks, error="no more")
    with pytest.raises(ValueError, match="no more"):
        await asked(model, "Hi")
    said = streamed(model, "Hi")
    assert [(await anext(said)).content for _ in chunks] == [chunk.message.content for chunk in chunks]
    with pytest.raises(ValueError, match="no more"):
        await anext(said)


async def test_a_stream_of_nothing_is_an_error() -> None:
    model = Said()
    for stream in (streamed(model, "Hi"), model.astream("Hi")):
        with pytest.raises(ValueError, match="No generation chunks"):
            [one async for one in stream]


async def test_a_rate_limit_is_kept() -> None:
    limiter = InMemoryRateLimiter(requests_per_second=0.001, max_bucket_size=1)
    model = Said(chunks=STREAMS["text"], rate_limiter=limiter)
    limiter.available_tokens = 1.0
    await asked(model, "Hi")
    assert limiter.available_tokens < 1.0
    limiter.available_tokens = 1.0
    assert [one async for one in streamed(model, "Hi")]
    assert limiter.available_tokens < 1.0


async def test_a_model_with_ears_or_ways_of_its_own_is_asked_by_its_own_methods() -> None:
    class Otherwise(Said):
        @override
        async def ainvoke(self, *_: Any, **__: Any) -> AIMessage:
            return AIMessage("otherwise")

    assert not may_be_asked(Otherwise())
    assert not may_be_asked(Said(callbacks=[AsyncCallbackHandler()]))
    assert not may_be_asked(Said(verbose=True))
    assert not may_be_asked(Said(output_version="v1"))
    assert not may_be_asked(Said().bind(stop=["."]))
    assert (await quiet.invoke(quiet.steps_of(PROMPT | Otherwise(), {}), INPUT)).content == "otherwise"
    assert may_be_asked(GenericFakeChatModel(messages=iter(["a"])))


async def test_a_cache_is_asked_and_filled() -> None:
    cache, model = InMemoryCache(), Said()
    set_llm_cache(cache)
    try:
        first = await asked(model, "Hi")
        again = await asked(model, "Hi")
    finally:
        set_llm_cache(None)
    assert len(model.heard) == 1
    assert again.content == first.content == "whole"
    with pytest.raises(ValueError, match="no cache found"):
        await asked(Said(cache=True), "Hi")


async def test_of_several_replies_the_first_one_is_given() -> None:
    class Two(Said):
        @override
        async def _agenerate(self, messages: list[BaseMessage], stop: Any = None, **_: Any) -> ChatResult:  # type: ignore[override]
            told = self._generate(messages)
            return ChatResult(generations=told.generations * 2, llm_output=told.llm_output)

    assert plain(await asked(Two(), "Hi")) == plain(await Two().ainvoke("Hi"))

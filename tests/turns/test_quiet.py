"""A sequence that nobody listens to gives what it gives to those who listen."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from langchain_core.messages import AIMessageChunk
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import RunnableGenerator, RunnableLambda

from turns import quiet

TEXT = [{"type": "text", "text": "two"}, {"type": "text", "text": "three"}]
PICTURE = {"type": "image_url", "image_url": "data:,"}
SAID: list[Any] = [
    AIMessageChunk(content="one "),
    AIMessageChunk(content=[*TEXT, PICTURE]),
    AIMessageChunk(content=[{"text": "four"}, "five"]),
    AIMessageChunk(content="", tool_call_chunks=[{"name": "f", "args": "", "id": "1", "index": 0}]),
    "six",
]


@pytest.mark.parametrize("chunk", SAID)
async def test_a_text_parser_gives_the_same(chunk: Any) -> None:
    async def say(_: Any) -> AsyncIterator[Any]:
        yield chunk
        yield chunk

    async def answer(_: Any) -> Any:
        return chunk

    streaming, whole = (step | StrOutputParser() for step in (RunnableGenerator(say), RunnableLambda(answer)))
    parts = [part async for part in quiet.stream(quiet.steps_of(streaming, {}), "x")]
    assert parts == [part async for part in streaming.astream("x")]
    assert all(isinstance(part, str) for part in parts)
    assert await quiet.invoke(quiet.steps_of(whole, {}), "x") == await whole.ainvoke("x")


async def test_a_text_parser_refuses_what_is_no_text() -> None:
    async def answer(_: Any) -> Any:
        return {"no": "text"}

    chain = RunnableLambda(answer) | StrOutputParser()
    with pytest.raises(ValueError, match="text"):
        await quiet.invoke(quiet.steps_of(chain, {}), "x")

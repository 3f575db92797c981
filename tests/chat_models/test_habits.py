"""What servers do each in its own way, where a chain is given more than LangChain's own `ChatOpenAI` gives."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest
from langchain_core.messages import AIMessageChunk

from chat_models.chat_openai import ChatOpenAI
from chat_models.models import open_model
from tests.chat_models.scripted import USAGE, Answer, Body, chunk, events, reply, response, saying, scripted

COUNTED = {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}


async def heard(answer: Answer, *, fast: bool = True) -> Any:
    """The sum of what a stream says."""
    total: AIMessageChunk | None = None
    async with (
        scripted(answer, ends=True) as server,
        open_model(openai_base_url=server.url, model="m1", timeout_s=5, fast=fast) as model,
    ):
        async for one in model.astream("hello"):
            assert isinstance(one, AIMessageChunk)
            total = one if total is None else total + one
    return total


def counted(delta: Body, so_far: int, finish: str | None = None) -> Body:
    return chunk(delta, finish, usage={**USAGE, "completion_tokens": so_far, "total_tokens": so_far + 3})


@pytest.mark.parametrize(("name", "kept"), [("reasoning_content",) * 2, ("reasoning", "reasoning_content")])
@pytest.mark.parametrize("content", ["", None])
async def test_thoughts_are_kept_though_each_chunk_tells_the_tokens_so_far(
    name: str, kept: str, content: str | None
) -> None:
    thoughts = [counted({"content": content, name: text}, place) for place, text in enumerate(["I ", "think"])]
    whole = await heard(saying(events(*thoughts, counted({"content": "Hi"}, 3), counted({}, 4, "stop"))))
    assert (whole.content, whole.additional_kwargs) == ("Hi", {kept: "I think"})
    assert {name: whole.usage_metadata[name] for name in COUNTED} == COUNTED


async def test_a_refusal_is_kept_though_each_chunk_tells_the_tokens_so_far() -> None:
    said = [counted({"refusal": "I "}, 1), counted({"refusal": "won't"}, 2), counted({}, 4, "stop")]
    whole = await heard(saying(events(*said)))
    assert whole.additional_kwargs == {"refusal": "I won't"}
    assert whole.usage_metadata["total_tokens"] == 7


@pytest.mark.parametrize("again", [chunk({"content": ""}, "stop", usage=USAGE), chunk({}, "length")])
async def test_a_reason_that_is_told_twice_is_kept_once(again: Body) -> None:
    end = chunk({}, "stop", system_fingerprint="fp", service_tier="flex")
    whole = await heard(saying(events(chunk({"content": "Hi"}), end, again)))
    told = {"finish_reason": "stop", "model_name": "m1", "system_fingerprint": "fp", "service_tier": "flex"}
    assert whole.response_metadata == {"model_provider": "openai", **told}


async def test_a_stream_in_a_blocking_step_is_read_the_same() -> None:
    refused = json.dumps({"error": {"message": "Unknown field: stream_options"}}).encode()
    said = [counted({"reasoning": "I "}, 1), counted({"content": "Hi"}, 2), counted({}, 4, "stop"), chunk({}, "stop")]

    def answer(body: Body) -> bytes:
        if "stream_options" in body:
            return response(refused, status="400 Bad Request")
        return response(events(*said), "text/event-stream")

    def ask(model: ChatOpenAI) -> Any:
        parts = list(model.stream("hello"))
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total

    async with (
        scripted(answer) as server,
        open_model(openai_base_url=server.url, model="m1", timeout_s=5) as model,
    ):
        for _ in range(2):
            whole = await asyncio.to_thread(ask, model)
            assert (whole.content, whole.additional_kwargs) == ("Hi", {"reasoning_content": "I "})
            assert whole.usage_metadata["total_tokens"] == 7
            assert whole.response_metadata["finish_reason"] == "stop"
        assert len(server.requests) == 3  # it is asked with the options once


@pytest.mark.parametrize("fast", [True, False])
async def test_a_whole_reply_to_who_asked_for_a_stream_is_read(fast: bool) -> None:
    whole = await heard(lambda _: response(json.dumps(reply({"content": "Hi"})).encode()), fast=fast)
    assert (whole.content, whole.response_metadata["finish_reason"]) == ("Hi", "stop")


@pytest.mark.parametrize("before", [b"", b"\n\n \n", b": wait\n\n"])
@pytest.mark.parametrize("size", [1, 1 << 30])
async def test_a_stream_that_is_called_json_is_read_as_one(before: bytes, size: int) -> None:
    stream = before + events(chunk({"content": "Hi"}), chunk({}, "stop"))
    async with (
        scripted(lambda _: response(stream), size=size) as server,
        open_model(openai_base_url=server.url, timeout_s=5) as model,
    ):
        assert "".join([str(one.content) async for one in model.astream("hello")]) == "Hi"
        server.answer = lambda _: response(events(chunk({"content": "Hi"}), done=False))
        with pytest.raises(openai.APIConnectionError):  # it was cut off
            [one async for one in model.astream("hello")]


async def test_an_error_in_old_words_of_vllm_is_one() -> None:
    error = {"object": "error", "message": "too long", "type": "BadRequestError", "param": None, "code": 400}
    with pytest.raises(openai.APIError, match="too long"):
        await heard(saying(events(chunk({"content": "Hi"}), error)))

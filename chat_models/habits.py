"""What servers that speak OpenAI's protocol do each in its own way, made alike for `ChatOpenAI`.

* Some tell the tokens used so far with each chunk, which LangChain would add up: the last count is the one.
* Some tell twice why the reply ended, which LangChain would add up to `stopstop`: the first reason is the one.
* Some refuse `stream_options`: they are asked without, from then on.
* Some tell what the model thinks, as `reasoning_content`: it is kept apart from the text.
* Some answer a request for a stream with one whole JSON: it is read as a stream of one chunk. Some call a stream JSON.
* A stream that ends with neither a `finish_reason` nor `[DONE]` was cut off, even where the connection closed well.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, Final

import httpx2
import openai
from langchain_core.messages import AIMessageChunk
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_openai.chat_models.base import BaseChatOpenAI
from pydantic import PrivateAttr
from typing_extensions import override

_THOUGHTS: Final = ("reasoning_content", "reasoning")
"""DeepSeek's and vLLM's word, and OpenRouter's."""

_OF_THE_END: Final = ("finish_reason", "model_name", "system_fingerprint", "service_tier")

_ENDED: Final = re.compile(rb'\[DONE\]|"finish_reason"\s*:\s*"|"error"\s*:')
_STREAMS: Final = re.compile(rb'"stream"\s*:\s*true')
_OVERLAP: Final = 64
"""What is looked for may come in two pieces: so many bytes of the one before are looked at again."""


class Habits(BaseChatOpenAI):
    """To be mixed into `ChatOpenAI`."""

    _refuses_options: bool = PrivateAttr(default=False)

    @override
    async def _astream(self, *args: Any, **kwargs: Any) -> AsyncIterator[ChatGenerationChunk]:
        begun, again, told = False, False, _Told()
        options = {"stream_usage": False} if self._refuses_options else {}
        try:
            async for chunk in super()._astream(*args, **{**kwargs, **options}):
                begun = True
                if told.notes(chunk):
                    yield chunk
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            again = not begun and self._refused_options(error)
            if not again:
                raise
        if again:
            async for chunk in super()._astream(*args, **{**kwargs, "stream_usage": False}):
                if told.notes(chunk):
                    yield chunk
        for chunk in told.last():
            yield chunk

    @override
    def _stream(self, *args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
        begun, again, told = False, False, _Told()
        options = {"stream_usage": False} if self._refuses_options else {}
        try:
            for chunk in super()._stream(*args, **{**kwargs, **options}):
                begun = True
                if told.notes(chunk):
                    yield chunk
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            again = not begun and self._refused_options(error)
            if not again:
                raise
        if again:
            for chunk in super()._stream(*args, **{**kwargs, "stream_usage": False}):
                if told.notes(chunk):
                    yield chunk
        yield from told.last()

    def _refused_options(self, error: openai.APIError) -> bool:
        """Whether it is for the first time that the server refused `stream_options`."""
        if self._refuses_options or "stream_options" not in str(error):
            return False
        self._refuses_options = True
        return True

    @override
    def _convert_chunk_to_generation_chunk(
        self, chunk: dict[str, Any], *args: Any, **kwargs: Any
    ) -> ChatGenerationChunk | None:
        made = super()._convert_chunk_to_generation_chunk(chunk, *args, **kwargs)
        choices = chunk.get("choices")
        if made is not None and choices:
            _add_beside(made.message.additional_kwargs, choices[0].get("delta") or {})
        return made

    @override
    def _create_chat_result(self, response: Any, generation_info: dict[str, Any] | None = None) -> ChatResult:
        result = super()._create_chat_result(response, generation_info)
        plain = response if isinstance(response, dict) else response.model_dump(warnings=False)
        for generation, choice in zip(result.generations, plain["choices"], strict=False):
            _add_beside(generation.message.additional_kwargs, choice.get("message") or {})
        return result


class _Told:
    """What a stream has told of its tokens and its end so far."""

    def __init__(self) -> None:
        self._usage: UsageMetadata | None = None
        self._ended = False

    def notes(self, chunk: ChatGenerationChunk) -> bool:
        """Takes from the chunk what is told at the end, or was told; whether it says anything else."""
        message, info = chunk.message, chunk.generation_info
        if info is not None and "finish_reason" in info:
            chunk.generation_info = _without_end(info) if self._ended else info
            self._ended = True
        if not isinstance(message, AIMessageChunk) or message.usage_metadata is None:
            return True
        self._usage, message.usage_metadata = message.usage_metadata, None
        return bool(message.content or message.tool_call_chunks or message.additional_kwargs or info)

    def last(self) -> list[ChatGenerationChunk]:
        if self._usage is None:
            return []
        return [ChatGenerationChunk(message=AIMessageChunk(content="", usage_metadata=self._usage))]


def _without_end(info: Mapping[str, Any]) -> dict[str, Any] | None:
    """What LangChain notes of a chunk, without what it notes of the one that says why the reply ended."""
    return {name: value for name, value in info.items() if name not in _OF_THE_END} or None


def _add_beside(kept: dict[str, Any], said: Mapping[str, Any]) -> None:
    """Keeps what a message, or part of one, says beside its text."""
    thought = next((said[name] for name in _THOUGHTS if isinstance(said.get(name), str) and said[name]), None)
    if thought is not None:
        kept["reasoning_content"] = thought
    if isinstance(said.get("refusal"), str) and said["refusal"]:
        kept["refusal"] = said["refusal"]


async def as_a_stream(response: httpx2.Response) -> None:
    """A hook for responses: makes a stream of one that should be, and hears when one was cut off."""
    request = response.request
    if response.status_code != 200 or "content-encoding" in response.headers or not _asks_for_stream(request):
        return
    kind = response.headers.get("content-type", "")
    if not isinstance(response.stream, httpx2.AsyncByteStream):
        return
    if kind.startswith("text/event-stream"):
        response.stream = _Watched(response.stream, request)
    elif kind.startswith("application/json"):
        response.headers["content-type"] = "text/event-stream"
        response.headers.pop("content-length", None)
        response.stream = _Opened(response.stream, request)


def _asks_for_stream(request: httpx2.Request) -> bool:
    try:
        return _STREAMS.search(request.content) is not None
    except httpx2.RequestNotRead:
        return False


class _Watched(httpx2.AsyncByteStream):
    """A stream of events. Its end is an error if it comes before the reply's."""

    def __init__(self, stream: httpx2.AsyncByteStream, request: httpx2.Request) -> None:
        self._stream, self._request = stream, request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        ended, tail = False, b""
        async for part in self._stream:
            if not ended:
                looked_at = tail + part
                ended, tail = _ENDED.search(looked_at) is not None, looked_at[-_OVERLAP:]
            yield part
        if not ended:
            raise httpx2.RemoteProtocolError("the stream ended before the reply did", request=self._request)

    async def aclose(self) -> None:
        await self._stream.aclose()


class _Opened(httpx2.AsyncByteStream):
    """One whole JSON, as the events of a stream; or such a stream, if it is one by a wrong name."""

    def __init__(self, stream: httpx2.AsyncByteStream, request: httpx2.Request) -> None:
        self._stream, self._request = stream, request
        self._is_read = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._is_read:  # OpenAI's client looks for more after the last event, and httpx would look for ever
            return
        self._is_read = True
        parts = aiter(self._stream)
        begun = b""
        async for part in parts:
            begun += part
            if begun.strip():
                break
        if not begun.lstrip().startswith((b"{", b"[")):
            async for part in _Watched(_Rest(begun, parts), self._request):
                yield part
            return
        yield _as_events(begun + b"".join([part async for part in parts]))

    async def aclose(self) -> None:
        await self._stream.aclose()


class _Rest(httpx2.AsyncByteStream):
    """A body of which the beginning has been read."""

    def __init__(self, begun: bytes, parts: AsyncIterator[bytes]) -> None:
        self._begun, self._parts = begun, parts

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._begun
        async for part in self._parts:
            yield part


def _as_events(body: bytes) -> bytes:
    try:
        reply = json.loads(body)
        choices = [{**choice, "delta": _delta(choice.pop("message"))} for choice in reply["choices"]]
        body = json.dumps({**reply, "object": "chat.completion.chunk", "choices": choices}).encode()
    except (ValueError, LookupError, TypeError, AttributeError):
        pass  # an error, which says so itself
    return b"data: " + b" ".join(body.splitlines()) + b"\n\ndata: [DONE]\n\n"


def _delta(message: dict[str, Any]) -> dict[str, Any]:
    calls = message.get("tool_calls")
    if isinstance(calls, list):
        return {**message, "tool_calls": [{"index": place, **call} for place, call in enumerate(calls)]}
    return message

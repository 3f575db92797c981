"""What servers write each in its own way: a chain hears of it the same as from LangChain's own `ChatOpenAI`.

Where Recollect's is to give more, `test_habits.py` says so.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID

import langchain_openai
import openai
import pytest
import pytest_asyncio
from langchain_core.callbacks import AsyncCallbackHandler
from langchain_core.messages import BaseMessage
from langchain_core.outputs import LLMResult
from pydantic import SecretStr
from typing_extensions import override

from chat_models.models import open_model
from tests.chat_models.scripted import USAGE, Body, Scripted, chunk, events, reply, response, saying, scripted
from tests.live_server import PLAIN

pytestmark = pytest.mark.asyncio(loop_scope="module")

HELLO = [chunk({"role": "assistant", "content": ""}), chunk({"content": "Hi "}), chunk({"content": "thére 💡"})]
STOP = chunk({}, "stop")
COUNT = chunk() | {"choices": [], "usage": USAGE}
WHOLE = reply({"content": "Hi thére 💡"})
DETAILS = USAGE | {"prompt_tokens_details": {"cached_tokens": 1}, "completion_tokens_details": {"reasoning_tokens": 2}}
LOGPROBS = {"content": [{"token": "Hi", "logprob": -0.1, "top_logprobs": [{"token": "Ho", "logprob": -3.0}]}]}


def choosing(message: Body, **rest: Any) -> Body:
    """A whole reply of one choice, with what that says beside the message."""
    whole = reply(message)
    return whole | {"choices": [whole["choices"][0] | rest]}


def without(event: Body, *names: str) -> Body:
    """An event or a reply whose choices lack these."""
    choices = [{name: value for name, value in one.items() if name not in names} for one in event["choices"]]
    return event | {"choices": choices}


def called(*calls: Body) -> list[Body]:
    return [chunk({"role": "assistant", "content": None, "tool_calls": [*calls]}), chunk({}, "tool_calls")]


F = {"name": "f", "arguments": '{"x": 1}'}
G = {"name": "g", "arguments": "{}"}
CALL = {"id": "a", "type": "function", "function": F}

SAID: dict[str, tuple[Sequence[Body | str], Body]] = {
    "openai": ([*HELLO, STOP, COUNT], WHOLE),
    "azure: filters of the prompt first": ([chunk() | {"id": "", "model": "", "choices": []}, *HELLO, STOP], WHOLE),
    "azure: a choice of filters alone": ([*HELLO, without(chunk(), "delta"), STOP], WHOLE),
    "openrouter": ([*HELLO, STOP, chunk({"content": ""}, provider="X", usage=USAGE)], reply({}, provider="X")),
    "mistral: usage with the end": (
        [*HELLO, chunk({"content": "", "tool_calls": None}, "stop", usage=USAGE)],
        reply({"content": "Hi", "tool_calls": None, "prefix": False}),
    ),
    "groq": ([*HELLO, chunk({}, "stop", x_groq={"usage": USAGE})], reply({"content": "Hi"}, service_tier="on_demand")),
    "together: another reason": ([*HELLO, chunk({}, "eos", usage=USAGE)], reply({"content": "Hi"}, "eos")),
    "ollama: its fingerprint": ([*HELLO, chunk({}, "stop", system_fingerprint="fp")], WHOLE),
    "vllm: all there is, as null": (
        [chunk({"role": "assistant", "content": "", "tool_calls": []}, prompt_token_ids=None), *HELLO, STOP],
        reply({"content": "Hi", "tool_calls": [], "audio": None, "annotations": None}, prompt_logprobs=None),
    ),
    "llama.cpp: times": ([*HELLO, STOP | {"timings": {"n": 1}}, COUNT], reply({"content": "Hi"}, timings={"n": 1})),
    "usage in detail": ([*HELLO, STOP, COUNT | {"usage": DETAILS}], reply({"content": "Hi"}, usage=DETAILS)),
    "usage of nothing": ([*HELLO, STOP, COUNT | {"usage": None}], reply({"content": "Hi"}, usage=None)),
    "usage of the half": (
        [*HELLO, STOP, COUNT | {"usage": {"completion_tokens": 4}}],
        reply({"content": "Hi"}, usage={"completion_tokens": 4}),
    ),
    "usage in words": (
        [*HELLO, STOP, COUNT | {"usage": {name: str(count) for name, count in USAGE.items()}}],
        reply({"content": "Hi"}, usage={name: str(count) for name, count in USAGE.items()}),
    ),
    "a tier and a fingerprint": (
        [*HELLO, STOP | {"service_tier": "flex", "system_fingerprint": "fp"}, COUNT | {"service_tier": "flex"}],
        reply({"content": "Hi"}, service_tier="flex", system_fingerprint="fp"),
    ),
    "no choices": ([*HELLO, STOP, {"id": "c1", "usage": USAGE}], {"id": "c1"}),
    "choices of null": ([*HELLO, STOP, COUNT | {"choices": None}], WHOLE | {"choices": None}),
    "choices of nothing": ([*HELLO, STOP, COUNT], WHOLE | {"choices": []}),
    "no content": ([chunk({"role": "assistant"}), STOP], without(reply({}), "finish_reason")),
    "a message of null": ([chunk({"role": "assistant"}), chunk() | {"choices": [{"delta": None}]}, STOP], choosing({})),
    "no message": ([*HELLO, STOP], without(WHOLE, "message")),
    "neither id nor model": (
        [{"choices": one["choices"]} for one in [*HELLO, STOP]],
        {"choices": WHOLE["choices"], "usage": USAGE},
    ),
    "a number for a name": ([*HELLO, STOP], WHOLE | {"id": 7}),
    "no place of a choice": ([without(one, "index") for one in [*HELLO, STOP]], without(WHOLE, "index")),
    "a call": (called({"index": 0, **CALL}), reply({"tool_calls": [CALL]}, "tool_calls")),
    "calls in parallel": (
        called({"index": 0, **CALL}, {"index": 1, "id": "b", "type": "function", "function": G}),
        reply({"tool_calls": [CALL, CALL | {"id": "b", "function": G}]}, "tool_calls"),
    ),
    "a call in pieces": (
        [
            chunk({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "f", "arguments": ""}}]}),
            chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"x": '}}]}),
            chunk({"tool_calls": [{"index": 0, "id": None, "function": {"name": None, "arguments": "1}"}}]}),
            *called()[1:],
        ],
        reply({"tool_calls": [CALL | {"function": F | {"arguments": "{no"}}]}, "tool_calls"),
    ),
    "gemini: a call without a place": (called(CALL), reply({"tool_calls": [CALL | {"index": 0}]}, "tool_calls")),
    "a call without an id": (
        called({"index": 0, "function": F}),
        reply({"tool_calls": [{"type": "function", "function": F}]}, "tool_calls"),
    ),
    "a call without arguments": (
        called({"index": 0, "id": "a", "function": {"name": "f"}}),
        reply({"tool_calls": [CALL | {"function": {"name": "f"}}]}, "tool_calls"),
    ),
    "a call of nothing": (called({"index": 0, "id": "a"}), reply({"tool_calls": [{"id": "a"}]}, "tool_calls")),
    "two calls in one place": (called({"index": 0, **CALL}, {"index": 0, **CALL, "id": "b"}), WHOLE),
    "an old call": (
        [chunk({"role": "assistant", "function_call": F}), chunk({}, "function_call")],
        reply({"function_call": F}, "function_call"),
    ),
    "a call of another kind": (
        called({"index": 0, "id": "a", "type": "custom", "custom": {"name": "f", "input": "x"}}),
        reply({"tool_calls": [{"id": "a", "type": "custom", "custom": {"name": "f", "input": "x"}}]}),
    ),
    "probabilities": (
        [chunk() | {"choices": [{"index": 0, "delta": {"content": "Hi"}, "logprobs": LOGPROBS}]}, STOP],
        choosing({"content": "Hi"}, logprobs=LOGPROBS),
    ),
    "two choices": (
        [chunk({"content": "A"}), chunk() | {"choices": [{"index": 1, "delta": {"content": "B"}}]}, STOP],
        WHOLE | {"choices": [choice | {"index": place} for place, choice in enumerate(WHOLE["choices"] * 2)]},
    ),
    "sound": (
        [chunk({"audio": {"id": "x", "data": "AA"}}), STOP],
        reply({"audio": {"id": "x", "data": "AA", "expires_at": 1, "transcript": "hi"}}),
    ),
    "citations": ([*HELLO, chunk({"annotations": [{}]}), STOP], reply({"content": "Hi"}, citations=["there"])),
    "perplexity: a message beside the delta": (
        [
            without(one, "x") | {"choices": [one["choices"][0] | {"message": {"content": "…"}}]}
            for one in [*HELLO, STOP]
        ],
        WHOLE,
    ),
    "roles again and again": ([chunk({"role": "assistant", "content": text}) for text in "abc"] + [STOP], WHOLE),
    "another role": ([chunk({"role": "user", "content": "a"}), STOP], reply({"role": "user", "content": "a"})),
    "an event of null": ([*HELLO, "null", STOP], WHOLE),
    "an event of text": ([*HELLO, '"hello"', STOP], WHOLE),
    "an error": ([*HELLO, chunk({}, "error") | {"error": {"code": 502, "message": "gone"}}], {"error": {"code": 1}}),
    "an error in words": ([*HELLO, {"error": "overloaded", "error_type": "x"}], {"error": "overloaded"}),
}


class Ears(AsyncCallbackHandler):
    """Notes what it is told of a call."""

    def __init__(self) -> None:
        self.heard: list[Any] = []

    @override
    async def on_chat_model_start(
        self, serialized: dict[str, Any], messages: list[list[BaseMessage]], **kwargs: Any
    ) -> None:
        self.heard.append(("start", serialized.get("id"), kwargs["invocation_params"], kwargs["metadata"]))

    @override
    async def on_llm_end(self, response: LLMResult, **_: Any) -> None:
        said = [plain(getattr(one, "message", None)) for batch in response.generations for one in batch]
        self.heard.append(("end", said, response.llm_output))

    @override
    async def on_llm_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        self.heard.append(("error", type(error)))


def plain(message: Any) -> Any:
    """A message without the number of its run."""
    told = message.model_dump() if isinstance(message, BaseMessage) else message
    if isinstance(told, dict) and str(told.get("id")).startswith("lc_run"):
        told["id"] = "lc_run"
    return told


async def told_of(asking: AsyncIterator[BaseMessage]) -> tuple[Any, Any]:
    """The sum of the messages, and the error that ended them."""
    total: Any = None
    try:
        async for message in asking:
            total = message if total is None else total + message
    except (openai.APIError, ValueError, TypeError, LookupError, AttributeError) as error:
        said = str(error).partition(" position ")[0]
        return plain(total), (type(error), said, getattr(error, "status_code", None), getattr(error, "body", None))
    return plain(total), None


async def once(model: langchain_openai.ChatOpenAI, prompt: Any, **options: Any) -> AsyncIterator[BaseMessage]:
    yield await model.ainvoke(prompt, **options)


async def all_of(model: langchain_openai.ChatOpenAI) -> list[Any]:
    """All that is to be known of a reply, whole and streamed, with and without a listener."""
    ears = Ears()
    seen: list[Any] = [await told_of(once(model, "hello")), await told_of(model.astream("hello"))]
    seen.append(await told_of(once(model, "hello", config={"callbacks": [ears]})))
    seen.append(await told_of(model.astream("hello", {"callbacks": [ears]})))
    return [*seen, ears.heard]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server() -> AsyncIterator[Scripted]:
    async with scripted(saying()) as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def both(server: Scripted) -> AsyncIterator[list[langchain_openai.ChatOpenAI]]:
    """LangChain's model and Recollect's, before that server."""
    async with (
        open_model(openai_base_url=server.url, model="m1", timeout_s=5) as ours,
        openai.DefaultAsyncHttpxClient(timeout=5, verify=PLAIN) as client,
        AsyncExitStack() as stack,
    ):
        sync_client = stack.enter_context(openai.DefaultHttpxClient(verify=PLAIN))
        plainly = langchain_openai.ChatOpenAI(
            openai_api_base=server.url,
            openai_api_key=SecretStr("none"),
            model_name="m1",
            stream_usage=True,
            max_retries=0,
            http_async_client=client,
            http_client=sync_client,
            stream_chunk_timeout=None,
            use_responses_api=False,
        )
        yield [plainly, ours]


@pytest.mark.parametrize("name", SAID)
async def test_what_a_server_says_in_its_own_way_is_heard_as_ever(
    server: Scripted, both: list[langchain_openai.ChatOpenAI], name: str
) -> None:
    stream, whole = SAID[name]
    server.answer = saying(events(*stream), whole)
    plainly, ours = [await all_of(model) for model in both]
    assert ours == plainly


@pytest.mark.parametrize("path", ["/", "//", "/a b/é", "/x?api-version=1", "#x"])
async def test_the_address_is_read_as_ever(
    server: Scripted, both: list[langchain_openai.ChatOpenAI], path: str
) -> None:
    server.answer = saying(whole=WHOLE)
    server.requests.clear()
    elsewhere = both[0].root_async_client.with_options(base_url=server.url + path)
    await both[0].model_copy(update={"async_client": elsewhere.chat.completions}).ainvoke("hello")
    async with open_model(openai_base_url=server.url + path, model="m1") as ours:
        for _ in range(2):
            await ours.ainvoke("hello")
    lines = [head.partition(b"\r\n")[0] for head, _ in server.requests]
    assert lines == lines[:1] * 3


ERRORS: dict[str, tuple[str, str, bytes]] = {
    "openai's": (
        "429 Too Many",
        "application/json",
        b'{"error": {"message": "slow", "code": "rate_limit", "type": "t"}}',
    ),
    "gemini's list": ("400 Bad", "application/json", b'[{"error": {"code": 400, "message": "no"}}]'),
    "fastapi's": ("422 Bad", "application/json", b'{"detail": [{"loc": ["body"], "msg": "bad"}]}'),
    "vllm's": ("400 Bad", "application/json", b'{"object": "error", "message": "no", "code": 400}'),
    "too long": ("400 Bad", "application/json", b'{"error": {"message": "m", "code": "context_length_exceeded"}}'),
    "a key": ("401 No", "application/json", b'{"error": "bad key"}'),
    "a model": ("404 None", "application/json", b'{"error": {"message": "no such model"}}'),
    "nginx's": ("502 Bad Gateway", "text/html", b"<html>nginx</html>"),
    "cloudflare's": ("524 A Timeout Occurred", "text/plain", b"error code: 524"),
    "an event": ("500 Internal", "text/event-stream", b'data: {"error": {"message": "boom"}}\n\n'),
    "half a JSON": ("503 Busy", "application/json", b'{"error":'),
    "nothing": ("529 Overloaded", "text/plain", b""),
    "a page of sign-in": ("200 OK", "text/html", b"<html>Sign in</html>"),
}


@pytest.mark.parametrize("name", ERRORS)
async def test_a_refusal_is_told_as_ever(server: Scripted, both: list[langchain_openai.ChatOpenAI], name: str) -> None:
    status, kind, body = ERRORS[name]
    server.answer = lambda _: response(body, kind, status=status, more="X-Request-Id: r7\r\nRetry-After: 3\r\n")
    plainly, ours = [await all_of(model) for model in both]
    assert ours == plainly


@pytest.mark.parametrize("size", [1, 7, 1 << 30], ids=["bytes", "pieces", "whole"])
@pytest.mark.parametrize("end", ["\n\n", "\r\n\r\n", "\r\r", "\r\n\n"], ids=repr)
@pytest.mark.parametrize("encoding", ["", "gzip", "deflate"])
async def test_a_stream_is_read_however_it_is_written_and_cut(
    server: Scripted, both: list[langchain_openai.ChatOpenAI], encoding: str, end: str, size: int
) -> None:
    body = events(*HELLO, STOP, COUNT, end=end, done=False)  # the last event is heard without more to come
    more = f"Content-Encoding: {encoding}\r\n" if encoding else ""
    encoders: dict[str, Callable[[bytes], bytes]] = {"": bytes, "gzip": gzip.compress, "deflate": zlib.compress}
    encoded = encoders[encoding](body)
    server.answer = lambda _: response(encoded, "text/event-stream", more=more)
    server.size = size
    try:
        plainly, ours = [await told_of(model.astream("hello")) for model in both]
    finally:
        server.size = 1 << 30
    assert ours == plainly
    assert plainly[0]["usage_metadata"]["total_tokens"] == 7


@pytest.mark.parametrize("status", ["301 M", "302 F", "303 S", "307 T", "308 P"])
async def test_who_is_sent_elsewhere_goes_there_as_ever(
    server: Scripted, both: list[langchain_openai.ChatOpenAI], status: str
) -> None:
    async def heard(model: langchain_openai.ChatOpenAI) -> tuple[Any, list[bytes]]:
        server.requests.clear()
        told = await told_of(once(model, "hello"))
        return told, [head.partition(b"\r\n")[0] for head, _ in server.requests]

    away = response(b"", status=status, more="Location: /other\r\n")
    server.answer = lambda _: away if len(server.requests) == 1 else response(json.dumps(WHOLE).encode())
    plainly, ours = [await heard(model) for model in both]
    assert ours == plainly
    assert len(ours[1]) == 2


async def test_a_huge_event_in_many_pieces_is_read_in_a_moment(
    server: Scripted, both: list[langchain_openai.ChatOpenAI]
) -> None:
    text = "x" * 10_000_000
    server.answer = saying(events(chunk({"content": text}), STOP))
    server.size = 4096
    try:
        async with asyncio.timeout(20):
            assert "".join([str(part.content) async for part in both[1].astream("hello")]) == text
    finally:
        server.size = 1 << 30

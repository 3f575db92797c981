"""How the fast client reads what a stream says."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2
import openai
import pytest

from chat_models.openai_events import EventStream, joined


def says(content: str, **rest: Any) -> dict[str, Any]:
    return {"id": "1", "choices": [{"index": 0, "delta": {"content": content, **rest}, "finish_reason": None}]}


def test_words_that_came_together_come_as_one() -> None:
    ends = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    events = [
        says("", role="assistant"),
        says("one "),
        says("two "),
        says("three"),
        ends,
        says("more"),
    ]
    assert list(joined(events)) == [says("one two three", role="assistant"), ends, says("more")]


async def test_what_comes_after_the_end_is_not_heard() -> None:
    assert [event async for event in stream_of(b'data: {"one": 1}\n\ndata: [DONE]\n\ndata: {"two": 2}\n\n')] == [
        {"one": 1}
    ]


async def test_an_event_of_nothing_is_not_the_end() -> None:
    assert [event async for event in stream_of(b'data: null\n\ndata: {"two": 2}\n\ndata: [DONE]\n\n')] == [
        None,
        {"two": 2},
    ]


@pytest.mark.parametrize(
    "other",
    [
        {"choices": [], "usage": {"total_tokens": 3}},
        {**says("two"), "usage": {"total_tokens": 3}},
        {"choices": [{"index": 1, "delta": {"content": "two"}}]},
        {"choices": [{"index": 0, "delta": {"content": "two"}, "logprobs": {"content": []}}]},
        {"choices": [{"index": 0, "delta": {"reasoning_content": "two"}}]},
        {"choices": [{"index": 0, "delta": {"content": "two", "reasoning_content": "three"}}]},
        {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0}]}}]},
        {"choices": [{"index": 0, "delta": None}]},
        {"choices": None},
        {},
        None,
    ],
)
def test_what_is_more_than_words_stays_an_event_of_its_own(other: Any) -> None:
    assert list(joined([says("one"), other, says("three")])) == [says("one"), other, says("three")]


def test_what_was_said_before_an_error_is_not_lost() -> None:
    def events() -> Iterator[dict[str, Any]]:
        yield says("one ")
        yield says("two")
        raise ValueError("odd")

    heard = joined(events())
    assert next(heard) == says("one two")
    with pytest.raises(ValueError, match="odd"):
        next(heard)


def stream_of(*parts: bytes) -> EventStream:
    class Body(httpx2.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            for part in parts:
                yield part

    return EventStream(httpx2.Response(200, stream=Body(), request=httpx2.Request("POST", "http://model.example")))


async def test_a_connection_that_breaks_in_tls_is_a_connection_error() -> None:
    class Body(httpx2.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b'data: {"one": 1}\n\n'
            raise ssl.SSLError("the end came without a word")

    broken = aiter(
        EventStream(httpx2.Response(200, stream=Body(), request=httpx2.Request("POST", "http://model.example")))
    )
    assert await anext(broken) == {"one": 1}
    with pytest.raises(openai.APIConnectionError):
        await anext(broken)


TWO = [{"one": "é"}, {"two": 2}]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["newline", "both", "return"])
@pytest.mark.parametrize(
    "lines",
    [
        ['data: {"one": "é"}', "", 'data: {"two": 2}', "", "data: [DONE]", ""],
        ['data:{"one": "é"}', "", ": a comment", "", "", "event: x", "id: 1", 'data: {"two":', "data: 2}", ""],
        [": a comment", 'data: {"one": "é"}', "retry: 3", "", "event: nothing", "", 'data: {"two": 2}', ""],
    ],
)
async def test_events_are_read_however_they_are_written_and_cut(lines: list[str], end: str) -> None:
    text = "".join(line + end for line in [*lines, ""]).encode()
    for size in (1, 2, 7, len(text)):
        parts = [text[place : place + size] for place in range(0, len(text), size)]
        assert [event async for event in stream_of(*parts)] == TWO


async def test_an_event_that_holds_half_a_surrogate_pair_is_read_as_ever() -> None:
    assert [event async for event in stream_of(b'data: {"one": "\\ud83d"}\n\n')] == [{"one": "\ud83d"}]


@pytest.mark.parametrize("error", ['{"message": "too long"}', '"too long"', '{"code": 7}'])
async def test_an_event_that_is_an_error_is_raised(error: str) -> None:
    with pytest.raises(openai.APIError):
        async for _ in stream_of(b'data: {"error": %s}\n\n' % error.encode()):
            pass

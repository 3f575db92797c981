"""What a turn says takes little room, and is given again as it was said."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk

from api.langserve_gaps import Serializer, StreamSerializer
from turns.merging import merged
from turns.pieces import Pieces
from turns.voice import encode

TEXTS = [f"wörd{place} \u2028\n\"' " for place in range(40)]
USAGE: Any = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
CALL: Any = {"name": "f", "args": "{", "id": "1", "index": 0}


def said(text: Any, **fields: Any) -> AIMessageChunk:
    return AIMessageChunk(content=text, **{"id": "run-1", **fields})


STREAMS: dict[str, list[Any]] = {
    "messages": [said(text) for text in TEXTS],
    "of OpenAI": [
        said("", response_metadata={"model_provider": "openai"}),
        *(said(text, response_metadata={"model_provider": "openai"}) for text in TEXTS),
        said("", response_metadata={"finish_reason": "stop", "model_name": "m", "model_provider": "openai"}),
        said("", usage_metadata=USAGE, chunk_position="last"),
    ],
    "two runs": [*(said(text) for text in TEXTS), "a text", *(said(text, id="run-2") for text in TEXTS)],
    "thoughts": [said("", additional_kwargs={"reasoning_content": text}) for text in TEXTS]
    + [said(text) for text in TEXTS],
    "the same thought": [said(text, additional_kwargs={"reasoning_content": "Hm. "}) for text in TEXTS],
    "what adds up": [said(text, usage_metadata=USAGE) for text in TEXTS],
    "calls": [*(said(text) for text in TEXTS), *(said("", tool_call_chunks=[CALL]) for _ in TEXTS)],
    "blocks": [said([{"type": "text", "text": text, "index": 0}]) for text in TEXTS],
    "extras": [said(text, extra=3) for text in TEXTS] + [said(text, extra=4) for text in TEXTS],
    "lone surrogates": [said(f"{text}\ud800") for text in TEXTS],
    "a name": [said(text, name="n", response_metadata={"headers": text}) for text in TEXTS],
    "texts": list(TEXTS),
    "few": [said(text) for text in TEXTS[:3]],
    "empty": [said("") for _ in TEXTS],
    "whole": [AIMessage("whole")],
    "values": [{"a": 1}, 3, None, [said("x")]],
}


def filled(stream: list[Any], encoder: Any = encode) -> Pieces:
    pieces = Pieces(encoder)
    for piece in stream:
        pieces.append(piece)
    return pieces


@pytest.mark.parametrize("name", STREAMS)
def test_each_piece_is_given_again_as_it_was_said(name: str) -> None:
    stream = STREAMS[name]
    pieces = filled(stream)
    assert len(pieces) == len(stream)
    assert list(pieces) == stream
    assert [type(piece) for piece in pieces] == [type(piece) for piece in stream]
    assert [pieces[place] for place in range(len(stream))] == pieces[:] == stream
    assert pieces[1:3] == stream[1:3]
    assert pieces[len(stream) // 2 :] == stream[len(stream) // 2 :]


@pytest.mark.parametrize("encoder", [encode, Serializer().dumps])
@pytest.mark.parametrize("name", STREAMS)
def test_its_bytes_are_what_they_would_have_been(name: str, encoder: Any) -> None:
    stream = STREAMS[name]
    pieces = filled(stream, encoder)
    assert [pieces.encoded(place) for place in range(len(stream))] == [encoder(piece) for piece in stream]


@pytest.mark.parametrize("name", STREAMS)
def test_in_debugging_streams_too_they_are_what_they_would_have_been(name: str) -> None:
    events = [{"event": "on_chain_stream", "data": {"chunk": piece}} for piece in STREAMS[name]]
    of_stream, plain = StreamSerializer(), Serializer()
    assert [of_stream.dumps(event) for event in events] == [plain.dumps(event) for event in events]


@pytest.mark.parametrize("name", STREAMS)
def test_put_together_they_come_to_the_same(name: str) -> None:
    stream = STREAMS[name]
    whole, joined = merged(stream), merged(filled(stream).joined())
    assert type(joined) is type(whole)
    assert joined == whole


def test_an_encoder_that_writes_the_text_twice_is_asked_for_each() -> None:
    def twice(piece: Any) -> bytes:
        return json.dumps([piece.content, piece.content] if isinstance(piece, AIMessageChunk) else piece).encode()

    pieces = filled(STREAMS["messages"], twice)
    assert [pieces.encoded(place) for place in range(40)] == [twice(piece) for piece in STREAMS["messages"]]
    assert not any(pieces.is_short(place) for place in range(40))


def test_a_piece_that_is_changed_after_it_was_given_changes_no_other() -> None:
    pieces = filled(STREAMS["messages"])
    pieces[20].additional_kwargs["a"] = 1
    pieces[21].content = "changed"
    assert list(pieces) == STREAMS["messages"]


def test_a_token_of_a_long_stream_takes_a_tenth_of_a_message() -> None:
    tracemalloc.start()
    try:
        kept = filled([said("word ") for _ in range(9)])
        before, _ = tracemalloc.get_traced_memory()
        for place in range(5_000):
            kept.append(said(f"word{place} "))
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown / 5_000 < 120

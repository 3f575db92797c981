"""The messages that the journal of a dead owner's turn comes to."""

from __future__ import annotations

import json

from langchain_core.messages import AIMessage

from histories.base import TurnStatus
from histories.journal import CRASHED, recovered, settled, text_lengths
from tests.proofs import proves


def words(*said: str) -> list[bytes]:
    return [json.dumps(word).encode() for word in said]


def test_a_journal_comes_to_the_messages_that_it_says() -> None:
    assert recovered(words("Hel", "lo")) == [AIMessage("Hello")]
    chunk = {"type": "AIMessageChunk", "content": "", "id": "run-1"}
    events = [
        {**chunk, "content": "22 "},
        {**chunk, "content": "degrees"},
        {"type": "tool", "content": "sunny", "tool_call_id": "1"},
        {**chunk, "id": "run-2", "content": "It is"},
        {"answer": "a"},
    ]
    messages = recovered([*(json.dumps(event).encode() for event in events), b"\xff not JSON"])
    assert [(message.type, message.content) for message in messages] == [
        ("ai", "22 degrees"),
        ("tool", "sunny"),
        ("ai", "It is"),
        ("ai", "a"),
    ]
    assert recovered([]) == []


@proves("G12")
def test_a_turn_whose_owner_died_is_interrupted_with_what_it_said() -> None:
    reply = settled(words("Hel", "lo"))
    assert (reply.status, reply.output, reply.kind) == (TurnStatus.INTERRUPTED, [AIMessage("Hello")], "text")
    assert reply.details == {"finish_reason": CRASHED, "events": 2, "lengths": [3, 2]}
    assert settled([]).output == []


def test_only_of_text_is_it_known_how_much_each_event_brought() -> None:
    chunk = {"type": "AIMessageChunk", "content": "ab"}
    assert text_lengths([json.dumps(chunk).encode(), b'"c"']) == [2, 1]
    assert text_lengths([json.dumps({**chunk, "tool_call_chunks": [{}]}).encode()]) is None
    assert text_lengths([b"1"]) is None

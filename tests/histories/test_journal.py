"""The messages that the journal of a dead owner's turn comes to."""

from __future__ import annotations

import json

from langchain_core.messages import AIMessage

from histories.journal import recovered


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

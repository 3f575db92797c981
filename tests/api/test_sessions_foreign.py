"""Conversations of other programs come in. The samples are made up, in the forms that are publicly documented."""

from __future__ import annotations

from typing import Any

import pytest

from api.sessions.exchange import Conversation
from api.sessions.foreign import Unreadable, converted


def chatgpt(node: str, parent: str | None, role: str, text: str) -> dict[str, Any]:
    content = {"content_type": "text", "parts": [text]}
    message = {"author": {"role": role}, "content": content, "create_time": 1700000000.5}
    return {node: {"id": node, "parent": parent, "message": message}}


MAPPING = {
    "root": {"id": "root", "parent": None, "message": None},
    **chatgpt("s", "root", "system", "hidden"),
    **chatgpt("q", "s", "user", "Why?"),
    **chatgpt("old", "q", "assistant", "An answer that was replaced."),
    **chatgpt("new", "q", "assistant", "Because."),
    **chatgpt("t", "new", "tool", "a tool's output"),
}
SAMPLES = {
    "ChatGPT": {"title": "Why", "create_time": 1700000000.5, "mapping": MAPPING, "current_node": "t"},
    "open-webui": {
        "id": "x",
        "created_at": 1700000000,
        "chat": {
            "title": "Why",
            "history": {
                "currentId": "b",
                "messages": {
                    "a": {"id": "a", "parentId": None, "role": "user", "content": "Why?", "timestamp": 1700000000},
                    "b": {"id": "b", "parentId": "a", "role": "assistant", "content": "Because."},
                },
            },
        },
    },
    "LibreChat": {
        "conversationId": "x",
        "title": "Why",
        "messages": [
            {"text": "Why?", "isCreatedByUser": True, "createdAt": "2023-11-14T22:13:20.000Z"},
            {"text": "", "content": [{"type": "text", "text": {"value": "Because."}}], "isCreatedByUser": False},
        ],
    },
    "LangChain": [
        {"type": "human", "data": {"content": "Why?", "type": "human"}},
        {"type": "ai", "data": {"content": "Because.", "type": "ai"}},
    ],
}


@pytest.mark.parametrize("program", SAMPLES)
def test_what_was_said_elsewhere_comes_along(program: str) -> None:
    conversation = Conversation.model_validate(converted(SAMPLES[program])["conversation"])
    [turn] = conversation.turns
    assert [str(message.text) for message in (*turn.input, *turn.output)] == ["Why?", "Because."]
    assert conversation.title == ("Why?" if program == "LangChain" else "Why")
    assert turn.status == "complete"
    assert program == "LangChain" or turn.started_at.year == 2023


def test_what_could_not_come_along_is_counted() -> None:
    assert converted(SAMPLES["ChatGPT"])["left_out"] == 1
    assert converted(SAMPLES["LangChain"])["left_out"] == 0


@pytest.mark.parametrize("key", ["messages", "messagesTree"])
def test_a_tree_of_librechats_gives_the_line_that_was_said_last(key: str) -> None:
    def said(text: str, *children: dict[str, Any], by_user: bool = False) -> dict[str, Any]:
        return {"text": text, "isCreatedByUser": by_user, "children": list(children)}

    again = said("Why again?", said("Once more."), by_user=True)
    tree = [said("Why?", said("Old.", said("Gone?", by_user=True)), said("Because.", again), by_user=True)]
    found = converted({"conversationId": "x", "title": "Why", "recursive": True, key: tree})
    turns = Conversation.model_validate(found["conversation"]).turns
    assert [[str(message.text) for message in (*turn.input, *turn.output)] for turn in turns] == [
        ["Why?", "Because."],
        ["Why again?", "Once more."],
    ]
    assert found["left_out"] == 2


@pytest.mark.parametrize("value", [None, 1, "x", {}, [], [1], {"mapping": {}}, {"messages": [None]}, {"chat": []}])
def test_what_is_no_conversation_is_refused_with_a_sentence(value: Any) -> None:
    with pytest.raises(Unreadable, match=r"^[A-Z].*\.$"):
        converted(value)

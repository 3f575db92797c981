"""Chains as people bring them, what they say, and what is kept of it: for tests in process and over HTTP."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any

from langchain_core.documents import Document
from langchain_core.messages import AIMessage, AIMessageChunk, ToolMessage
from langchain_core.runnables.utils import AddableDict
from pydantic import BaseModel


class Colour(Enum):
    RED = "red"


class City(BaseModel):
    name: str
    founded: datetime | None = None


@dataclass
class Point:
    x: int


CALL = {"name": "weather", "args": {"city": "Oslo"}, "id": "c1"}
DOCUMENT = Document("It is sunny.", metadata={"title": "Weather", "source": "https://example.org/w"})

OUTPUTS: dict[str, tuple[Any, str]] = {
    "a list of texts": (["a", "b"], '["a", "b"]'),
    "a list of dictionaries": ([{"a": 1}], '[{"a": 1}]'),
    "texts under a key": ({"output": ["a"]}, '["a"]'),
    "a text under a key": ({"output": "a"}, "a"),
    "a text under a key of the chain's own": ({"headline": "a"}, "a"),
    "blocks of content": ({"output": [{"type": "text", "text": "hi", "index": 0}]}, "hi"),
    "two keys": ({"a": 1, "b": [2]}, '{"a": 1, "b": [2]}'),
    "an answer and more": ({"answer": "sunny", "score": 0.5}, "sunny"),
    "nothing": (None, "null"),
    "a number": (7, "7"),
    "a model": (City(name="Oslo"), '{"name": "Oslo", "founded": null}'),
    "a dataclass": (Point(1), '{"x": 1}'),
    "a set": ({3}, "[3]"),
    "a number that Python does not write out": (2**20_000, f'"{hex(2**20_000)}"'),
}


STREAMS: dict[str, tuple[list[Any], list[str]]] = {
    "tokens under a key": ([{"answer": "It "}, {"answer": "is"}], ["It is"]),
    "sources, then tokens": (
        [AddableDict(context=[DOCUMENT]), AddableDict(answer="a"), AddableDict(answer="b")],
        ["ab"],
    ),
    "progress, then tokens": ([{"progress": 0.1}, {"progress": 0.9}, {"answer": "a"}, {"answer": "b"}], ["ab"]),
    "an object that grows": ([{}, {"a": "he"}, {"a": "hello"}, {"a": "hello", "b": 1}], ['{"a": "hello", "b": 1}']),
    "items of a list": ([["a"], ["b"]], ['["a", "b"]']),
    "several whole messages": ([AIMessage("a"), AIMessage("b")], ["a", "b"]),
    "a text, then a message": (["a", AIMessage("b")], ["a", "b"]),
    "parts of two messages": (
        [AIMessageChunk(content=text, id=id) for text, id in (("a", "1"), ("b", "1"), ("c", "2"))],
        ["ab", "c"],
    ),
    "messages with where they come from": (
        [(AIMessageChunk(content=text, id="1"), {"langgraph_node": "model"}) for text in "ab"],
        ["ab"],
    ),
    "updates of a graph": (
        [{"model": {"messages": [AIMessage("a", id="1")]}}, {"tools": {"messages": [AIMessage("b", id="2")]}}],
        ["a", "b"],
    ),
    "a call, its result and an answer": (
        [
            AIMessageChunk(content="", id="1", tool_call_chunks=[{"id": "c", "name": "w", "args": "{}", "index": 0}]),
            ToolMessage("22", tool_call_id="c", id="2"),
            AIMessageChunk(content="It ", id="3"),
            AIMessageChunk(content="is 22.", id="3"),
        ],
        ["", "22", "It is 22."],
    ),
    "numbers": ([1, 5, 2], ["[1, 5, 2]"]),
}

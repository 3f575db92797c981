"""A turn's reply in parts, in order: what was thought, said, called, found."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

from histories.base import Turn, jsonable
from turns.usage import reasoning_of

MAX_SOURCES: Final = 50
"""More documents than anybody looks at: a retriever's whole shelf is not copied into the record."""

_SOURCE_TEXT: Final = 2000

Part = dict[str, Any]


def parts_of(turn: Turn) -> list[Part]:
    """The reply in parts; none if it is text alone.

    * `{"type": "reasoning", "text"}`, `{"type": "text", "text"}`
    * `{"type": "tool_call", "id", "name", "args"}`, and `"error"` if it could not be read
    * `{"type": "tool_result", "id", "name", "text", "status"}`, with the `id` of its call
    * `{"type": "source", "text", "metadata"}`, and `"id"`, `"title"`, `"url"` where there are any
    """
    parts = [part for message in turn.output for part in _parts(message)]
    reasoning = turn.details.get("reasoning")
    if reasoning and not any(part["type"] == "reasoning" for part in parts):
        parts.insert(0, {"type": "reasoning", "text": reasoning})
    parts += [{"type": "source", **source} for source in turn.details.get("sources", ())]
    return [] if all(part["type"] == "text" for part in parts) else parts


def _parts(message: BaseMessage) -> Iterator[Part]:
    if isinstance(message, ToolMessage):
        yield _result(message)
        return
    thought = reasoning_of(message)
    if thought:
        yield {"type": "reasoning", "text": thought}
    text = str(message.text)
    if text:
        yield {"type": "text", "text": text}
    if isinstance(message, AIMessage):
        for call in message.tool_calls:
            yield {"type": "tool_call", "id": call["id"], "name": call["name"], "args": call["args"]}
        for bad in message.invalid_tool_calls:
            call_part = {"type": "tool_call", "id": bad["id"], "name": bad["name"], "args": bad["args"]}
            yield {**call_part, "error": bad["error"] or "The call is not complete."}


def _result(message: ToolMessage) -> Part:
    text = str(message.text) or (json.dumps(jsonable(message.content)) if message.content else "")
    return {
        "type": "tool_result",
        "id": message.tool_call_id,
        "name": message.name,
        "text": text,
        "status": message.status,
    }


def source_of(text: str, metadata: Mapping[str, Any], id: str | None = None) -> dict[str, Any]:
    """A document that was answered from, as the record and clients have it."""
    plain = jsonable(dict(metadata))
    where, title = plain.get("url") or plain.get("source"), plain.get("title")
    told = {"id": id, "title": title, "url": where if isinstance(where, str) else None}
    return {"text": str(text)[:_SOURCE_TEXT], "metadata": plain, **{k: v for k, v in told.items() if v is not None}}

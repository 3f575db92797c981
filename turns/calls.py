"""Tool calls: those that were cut off are none, and a history that a model is shown answers each of the others."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import chain, islice, takewhile
from typing import Any

from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    InvalidToolCall,
    SystemMessage,
    ToolCall,
    ToolMessage,
)

_THOUGHTS = ("reasoning", "thinking", "redacted_thinking")
_CALLS = ("tool_use", "tool_call", "tool_call_chunk", "function_call", "server_tool_call", "invalid_tool_call")


def settled_calls(messages: Iterable[BaseMessage], *, cut: bool = False) -> list[BaseMessage]:
    """The messages, where a call whose arguments are not whole JSON is an invalid one, with what there is of them.

    LangChain guesses how the arguments of a chunk would go on: `{"ci` would become a call without arguments.
    """
    return [_settled(message, cut) if isinstance(message, AIMessageChunk) else message for message in messages]


def _settled(message: AIMessageChunk, cut: bool) -> AIMessageChunk:
    if not message.tool_call_chunks:
        return message
    calls, invalid = list[ToolCall](), list[InvalidToolCall]()
    for chunk in message.tool_call_chunks:
        args = _arguments(chunk["args"], cut)
        if args is None or not chunk["name"]:
            told = "The call is not complete." if cut else "The arguments are not a JSON object."
            bad = {"name": chunk["name"], "args": chunk["args"], "id": chunk["id"], "error": told}
            invalid.append(InvalidToolCall(type="invalid_tool_call", **bad))  # type: ignore[typeddict-item]
        else:
            calls.append(ToolCall(type="tool_call", name=chunk["name"], args=args, id=chunk["id"]))
    return message.model_copy(update={"tool_calls": calls, "invalid_tool_calls": invalid})


def _arguments(text: str | None, cut: bool) -> dict[str, Any] | None:
    if not text:
        return None if cut else {}
    try:
        args = json.loads(text)
    except ValueError:
        return None
    return args if isinstance(args, dict) else None


def fit_to_show(past: Sequence[BaseMessage], new: Sequence[BaseMessage] = ()) -> list[BaseMessage]:
    """A history as any model's server takes it, before `new`.

    * Each tool call is answered, by the messages that follow it or by `new`; others are left out, and so are results
      of no call.
    * No reply is empty: one that was refused, filtered, or only thought, is left out.
    * No message speaks as the system.
    """
    shown: list[BaseMessage] = []
    open_calls: set[str | None] = set()
    for place, message in enumerate(past):
        if isinstance(message, AIMessage):
            fit = _with_calls(message, _results_after(place, past, new))
            if fit is not None:
                shown.append(fit)
                open_calls = {call["id"] for call in fit.tool_calls}
        elif isinstance(message, ToolMessage):
            if message.tool_call_id in open_calls:
                open_calls.discard(message.tool_call_id)
                shown.append(message)
        elif not isinstance(message, SystemMessage):
            shown.append(message)
            open_calls = set()
    return shown


def _results_after(place: int, past: Sequence[BaseMessage], new: Sequence[BaseMessage]) -> set[str | None]:
    """The ids of the calls whose results follow a message before anybody else speaks."""
    following = takewhile(lambda message: isinstance(message, ToolMessage), chain(islice(past, place + 1, None), new))
    return {message.tool_call_id for message in following if isinstance(message, ToolMessage)}


def _with_calls(message: AIMessage, answered: set[str | None]) -> AIMessage | None:
    """The reply with its answered calls alone; None if nothing is left of it."""
    kept = [call for call in message.tool_calls if call["id"] in answered]
    if len(kept) == len(message.tool_calls) and not message.invalid_tool_calls:
        return message if kept or _says_something(message.content) else None
    ids = {call["id"] for call in kept}
    content: Any = message.content
    if isinstance(content, list):
        content = [part for part in content if not (_is_call(part) and part.get("id") not in ids)]
    told = {k: v for k, v in message.additional_kwargs.items() if k not in ("tool_calls", "function_call")}
    changes = {"content": content, "tool_calls": kept, "invalid_tool_calls": [], "additional_kwargs": told}
    return message.model_copy(update=changes) if kept or _says_something(content) else None


def _is_call(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") in _CALLS


def _says_something(content: Any) -> bool:
    if isinstance(content, str):
        return bool(content.strip())
    for part in content:
        if isinstance(part, str):
            if part.strip():
                return True
        elif part.get("type") not in (*_THOUGHTS, *_CALLS) and str(part.get("text", "part")).strip():
            return True
    return False

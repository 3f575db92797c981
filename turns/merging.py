"""The chunks of a stream as one output: what `invoke` would have given, whatever mixture the chain streams."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any, Final

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, BaseMessageChunk

_GRAPH_MODES: Final = frozenset({"messages", "updates", "values", "custom", "debug", "tasks", "checkpoints"})
"""LangGraph's stream modes, of which the first three hold what is said."""


@dataclass(frozen=True, slots=True)
class Several:
    """Outputs of different kinds, one after another."""

    outputs: Sequence[Any]


def merged(chunks: Sequence[Any]) -> Any:
    """The chunks as one output.

    * Text is joined; messages, and parts of them, are put together by their ids.
    * Dictionaries are merged key by key, the updates and states of a graph by their messages' ids; lists are joined.
    * Where each chunk is the one before it and more (as JSON parsers give), it is the last one.
    * What is of several kinds is `Several`.
    """
    if len(chunks) < 2 and not (chunks and isinstance(chunks[0], (tuple, dict))):
        return chunks[0] if chunks else None
    if all(isinstance(chunk, str) for chunk in chunks):
        return "".join(chunks)
    plain = [one for chunk in chunks for one in _untagged(chunk)]
    outputs = [_MERGE[kind](list(some)) for kind, some in groupby(plain, _kind)]
    if len(outputs) < 2:
        return outputs[0] if outputs else None
    return _with_state(outputs)


def by_id(messages: Iterable[BaseMessage]) -> list[BaseMessage]:
    """Messages and parts of messages as whole ones, in the order in which each began; a later whole one replaces."""
    slots: list[_Slot] = []
    for message in messages:
        slot = _slot_of(message, slots)
        if slot is None:
            slots.append(_Slot(message.id, [message]))
        elif isinstance(message, BaseMessageChunk) and isinstance(slot.parts[-1], BaseMessageChunk):
            slot.id = slot.id or message.id
            slot.parts.append(message)
        else:
            slot.parts[:] = [message]
    return [_joined(slot.parts) for slot in slots]


@dataclass
class _Slot:
    """A message that is being put together."""

    id: str | None
    parts: list[BaseMessage]


def _slot_of(message: BaseMessage, slots: list[_Slot]) -> _Slot | None:
    if message.id is not None:
        known = next((slot for slot in reversed(slots) if slot.id == message.id), None)
        if known is not None:
            return known
    last = slots[-1] if slots else None
    if last is None or not isinstance(message, BaseMessageChunk) or type(message) is not type(last.parts[-1]):
        return None
    return last if message.id is None or last.id is None else None


def _joined(parts: list[BaseMessage]) -> BaseMessage:
    if len(parts) == 1:
        return parts[0]
    first, *rest = parts
    try:
        if isinstance(first, AIMessageChunk):
            return first.__add__(rest)  # all in one pass; one by one is quadratic
        whole: Any = first
        for part in rest:
            whole = whole + part
    except (TypeError, ValueError):  # parts that contradict each other
        return AIMessage("".join(str(part.text) for part in parts), id=first.id)
    return whole if isinstance(whole, BaseMessage) else first


def _untagged(chunk: Any) -> Iterator[Any]:
    """A chunk without what LangGraph says of where it comes from; nothing if it is not part of an output."""
    if isinstance(chunk, dict):
        if chunk.keys() == {"type", "ns", "data"} and chunk["type"] in _GRAPH_MODES:
            chunk = (chunk["type"], chunk["data"])
        else:
            yield _state(chunk)
            return
    if isinstance(chunk, tuple):
        if len(chunk) > 1 and isinstance(chunk[0], tuple) and all(isinstance(name, str) for name in chunk[0]):
            chunk = chunk[1:] if len(chunk) > 2 else chunk[1]  # of a graph within the graph
        if isinstance(chunk, tuple) and len(chunk) == 2 and isinstance(chunk[0], str) and chunk[0] in _GRAPH_MODES:
            mode, chunk = chunk
            if mode not in ("messages", "updates", "values"):
                return
        if isinstance(chunk, tuple) and len(chunk) == 2 and isinstance(chunk[0], BaseMessage):
            chunk = chunk[0]
        elif isinstance(chunk, dict):
            chunk = _state(chunk)
    yield chunk


def _state(chunk: dict[str, Any]) -> dict[str, Any]:
    """The updates of a graph's nodes (`{node: {…}}`) as one update of its state; any other dictionary as it is."""
    updates = [update for update in chunk.values() if update is not None]
    if not updates or not all(isinstance(update, dict) for update in updates):
        return chunk
    if not any(_are_messages(update.get("messages")) for update in updates):
        return chunk
    merged_update: dict[str, Any] = _merged_dicts(updates)
    return merged_update


def _kind(chunk: Any) -> str:
    if isinstance(chunk, str):
        return "text"
    if isinstance(chunk, BaseMessage):
        return "messages"
    return "dict" if isinstance(chunk, Mapping) else "list" if isinstance(chunk, list) else "data"


def _merged_messages(messages: list[BaseMessage]) -> Any:
    whole = by_id(messages)
    return whole[0] if len(whole) == 1 else whole


def _merged_dicts(dicts: list[dict[str, Any]]) -> Any:
    if _is_growing(dicts):
        return dicts[-1]
    total: dict[str, Any] = {}
    for one in dicts:
        for key, value in one.items():
            total[key] = _added(total[key], value) if key in total else value
    return {key: by_id(value) if _are_messages(value) else value for key, value in total.items()}


def _added(old: Any, new: Any) -> Any:
    """Two values of one key. What does not add up is replaced."""
    if isinstance(old, str) and isinstance(new, str):
        return old + new
    if isinstance(old, list) and isinstance(new, list):
        return new if _extends(old, new) and not _are_messages(new) else old + new
    if isinstance(old, BaseMessage) and isinstance(new, BaseMessage):
        return _merged_messages([old, new])
    return _merged_dicts([old, new]) if isinstance(old, dict) and isinstance(new, dict) else new


def _merged_lists(lists: list[list[Any]]) -> Any:
    if _is_growing(lists):
        return lists[-1]
    joined = [item for one in lists for item in one]
    return by_id(joined) if _are_messages(joined) else joined


def _merged_data(values: list[Any]) -> Any:
    same_class = len({type(value) for value in values}) == 1 and not isinstance(values[0], (int, float))
    if len(values) == 1 or _is_growing(values) or (same_class and hasattr(values[0], "model_fields")):
        return values[-1]  # of structured output, each chunk is the whole so far
    return values


_MERGE: Final[dict[str, Callable[[list[Any]], Any]]] = {
    "text": "".join,
    "messages": _merged_messages,
    "dict": _merged_dicts,
    "list": _merged_lists,
    "data": _merged_data,
}


def _is_growing(values: Sequence[Any]) -> bool:
    return len(values) > 1 and all(_extends(old, new) and old != new for old, new in pairwise(values))


def _extends(old: Any, new: Any) -> bool:
    """Whether `new` is `old` and more, as the next object of a parser that has read further."""
    if old is None or old == new:
        return True
    if isinstance(old, dict) and isinstance(new, dict):
        return all(key in new and _extends(value, new[key]) for key, value in old.items())
    if isinstance(old, list) and isinstance(new, list):
        return len(old) <= len(new) and all(_extends(*pair) for pair in zip(old, new, strict=False))
    numbers = isinstance(old, (int, float)) and isinstance(new, (int, float))
    if numbers or (isinstance(old, str) and isinstance(new, str)):
        return str(new).startswith(str(old))
    return False


def _are_messages(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, BaseMessage) for item in value)


def _with_state(outputs: list[Any]) -> Any:
    """Outputs of several kinds. What a graph's state holds beside its messages goes with the messages streamed."""
    states = [one for one in outputs if isinstance(one, dict) and _are_messages(one.get("messages"))]
    if not states or any(not isinstance(one, (dict, BaseMessage)) and not _are_messages(one) for one in outputs):
        return Several(outputs)
    streamed = [m for one in outputs if not isinstance(one, dict) for m in (one if isinstance(one, list) else [one])]
    state = _merged_dicts([one for one in outputs if isinstance(one, dict)])
    return {**state, "messages": by_id([*streamed, *state["messages"]])}

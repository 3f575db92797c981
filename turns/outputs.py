"""What of a chain's output goes on the record, and how it is given again from there.

The record has messages, which models are shown later; `kind`, the shape that the output had; and in its details what
messages alone can't give again: the other keys of a dictionary, data that is no text, sources.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from langchain_core.agents import AgentAction, AgentFinish
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, BaseMessage, RemoveMessage, ToolMessage

from histories.base import Turn, TurnDetails, Usage, estimate_tokens, jsonable, new_id, storable
from turns.calls import settled_calls
from turns.merging import Several, by_id
from turns.parts import MAX_SOURCES, source_of
from turns.usage import ModelNotes, finish_reason_of, reasoning_of, usage_of

_ANSWER_KEYS: Final = ("output", "answer", "result")
"""Where LangChain's own chains put their text, in the order in which they are looked for."""


@dataclass(frozen=True, slots=True)
class Given:
    """The messages that a chain was given: the past, and this turn's own. They are no part of what it says."""

    past: Sequence[BaseMessage] = ()
    new: Sequence[BaseMessage] = ()

    def new_in(self, messages: Sequence[BaseMessage]) -> list[BaseMessage]:
        """Those that the chain was not given. A chain may have made its copies of them without their ids.

        What has none of this turn's own messages is no state of all: a model may give each reply the same id.
        """
        given = [*self.past, *self.new]
        ids = {message.id for message in given}
        if self.new and not any(self._is_new(message) for message in messages):
            return list(messages)
        new = [message for message in messages if message.id is None or message.id not in ids]
        count = len(given)
        if count and len(new) == len(messages) >= count and _same(given, messages[:count]):
            return list(messages[count:])
        return new

    def _is_new(self, message: BaseMessage) -> bool:
        return any(
            message.id == own.id or (message.type, message.content) == (own.type, own.content) for own in self.new
        )

    def without_past(self, output: Any) -> Any:
        """An output without the messages of earlier turns: the client heard them then."""
        ids = {message.id for message in self.past}
        return _without(output, ids, 4) if ids else output


def _without(value: Any, ids: set[str | None], deepest: int) -> Any:
    if not deepest or not isinstance(value, (list, tuple, dict)):
        return value
    if isinstance(value, dict):
        items = {key: _without(item, ids, deepest - 1) for key, item in value.items()}
        return items if any(items[key] is not item for key, item in value.items()) else value
    kept = [one for one in value if not (isinstance(one, BaseMessage) and one.id in ids)]
    kept = [_without(one, ids, deepest - 1) for one in kept]
    if len(kept) == len(value) and all(new is old for new, old in zip(kept, value, strict=True)):
        return value
    return tuple(kept) if isinstance(value, tuple) else kept


def _same(some: Sequence[BaseMessage], others: Sequence[Any]) -> bool:
    return all(
        isinstance(other, BaseMessage) and (one.type, one.content) == (other.type, other.content)
        for one, other in zip(some, others, strict=True)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """An output as it goes on the record."""

    messages: Sequence[BaseMessage]
    kind: str
    tokens: int
    usage: Usage | None = None
    details: TurnDetails = field(default_factory=TurnDetails)


def recorded(output: Any, given: Given, *, key: str | None = None, cut: bool = False) -> Recorded:
    """An output as messages and what else is needed to give it again.

    `key` is where the chain puts its messages in a dictionary. `cut` tells that the output is not whole.
    """
    answer = _answer_of(output, given, key)
    messages = [with_id(storable(message)) for message in settled_calls(answer.messages, cut=cut)]
    details = TurnDetails()
    if answer.value is not None or answer.kind == "json":
        details["value"] = answer.value
    if answer.key is not None:
        details["key"] = answer.key
    sources = sources_in(output)
    if sources:
        details["sources"] = sources
    return Recorded(messages=messages, kind=answer.kind, tokens=estimate_tokens(messages), details=details)


def noted(done: Recorded, notes: ModelNotes | None) -> Recorded:
    """The same, with what the models told: the output's own messages, or, where they don't, the notes."""
    details = TurnDetails(**done.details)
    last = next((message for message in reversed(done.messages) if isinstance(message, AIMessage)), None)
    reason = finish_reason_of(last) if last is not None else None
    reason = reason or (notes.finish_reason if notes is not None else None)
    if reason:
        details["finish_reason"] = reason
    if notes is not None and notes.reasoning and not any(reasoning_of(message) for message in done.messages):
        details["reasoning"] = "".join(notes.reasoning)
    usage = notes.usage if notes is not None and notes.usage is not None else usage_of(done.messages)
    return replace(done, details=details, usage=usage)


def as_text(chunks: Sequence[Any]) -> Recorded:
    """Whatever was said, as the text that Python shows of it: for what nothing else can be made of."""
    messages = [with_id(AIMessage("".join(one if isinstance(one, str) else str(jsonable(one)) for one in chunks)))]
    return Recorded(messages=messages, kind="text", tokens=estimate_tokens(messages))


def with_id(message: BaseMessage) -> BaseMessage:
    """The message, with an id: by that an agent's own messages are told from those it was given."""
    return message if message.id is not None else message.model_copy(update={"id": new_id()})


def named(past: Sequence[BaseMessage]) -> Sequence[BaseMessage]:
    """The same of messages that are the caller's own copies: they get their ids in place."""
    start = ""
    for place, message in enumerate(past):
        if message.id is None:
            start = start or new_id()
            message.id = f"{start}-{place}"
    return past


@dataclass(frozen=True, slots=True)
class _Answer:
    messages: Sequence[BaseMessage]
    kind: str
    key: str | None = None
    value: Any = None


def _answer_of(output: Any, given: Given, key: str | None) -> _Answer:
    if isinstance(output, Several):
        return _of_several(output, given, key)
    if isinstance(output, AgentFinish):
        output = output.return_values
    if isinstance(output, Mapping):
        return _of_mapping(output, given, key)
    if isinstance(output, str):
        return _Answer([AIMessage(str(output))], "text")
    if isinstance(output, BaseMessage):
        return _Answer([output], "message")
    if _are_messages(output):
        new = given.new_in(by_id(message for message in output if not isinstance(message, RemoveMessage)))
        return _Answer(new, "messages")
    value = jsonable(output)
    if _are_content_blocks(value):
        return _Answer([AIMessage(value)], "json", None, value)
    return _Answer([AIMessage(_json(value))], "json", None, value)


def _of_several(output: Several, given: Given, key: str | None) -> _Answer:
    """All of what was said. What is only data is kept beside it, or is all there is."""
    answers = [_answer_of(one, given, key) for one in output.outputs]
    spoken = [answer for answer in answers if not answer.kind.endswith("json")] or answers
    data = [answer.value for answer in answers if answer.kind.endswith("json")]
    return _Answer([m for answer in spoken for m in answer.messages], "several", None, data or None)


def _of_mapping(output: Mapping[Any, Any], given: Given, key: str | None) -> _Answer:
    found = _answer_key(output, key)
    if found is None:
        value = jsonable(given.without_past(output))
        return _Answer([AIMessage(_json(value))], "dict:json", None, value)
    inner = _answer_of(output[found], given, None)
    steps = given.new_in(_steps_of(output))
    rest = jsonable(given.without_past({name: value for name, value in output.items() if name != found}))
    kind = inner.kind
    if inner.kind == "json":
        rest[found] = inner.value
    elif inner.kind == "messages" and len(inner.messages) < len(output[found]):
        kind = "turn"  # the messages of the turn's input are among them
    told = str(found) if rest or found != key else None
    said = [*steps, *inner.messages] or _asked(output.get("__interrupt__"))
    return _Answer(said, f"dict:{kind}", told, rest or None)


def _asked(interrupts: Any) -> list[BaseMessage]:
    """What a graph that has stopped for a person asks, where it has said nothing else."""
    values = [getattr(one, "value", one) for one in interrupts or ()]
    texts = [value if isinstance(value, str) else _json(jsonable(value)) for value in values]
    return [AIMessage("\n".join(texts))] if texts else []


def _answer_key(output: Mapping[Any, Any], key: str | None) -> Any:
    """Under which key of a dictionary the answer is; None if it is data all over."""
    if key is not None and key in output:
        return key
    if "messages" in output and _are_messages(output["messages"]):
        return "messages"
    said = [name for name in _ANSWER_KEYS if name in output and _is_said(output[name])]
    if said:
        return said[0]
    names = [name for name, value in output.items() if _is_said(value)]
    return names[0] if len(output) == 1 and names else "output" if "output" in output else None


def _is_said(value: Any) -> bool:
    return isinstance(value, (str, BaseMessage)) or _are_messages(value) or _are_content_blocks(value)


def _are_messages(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and bool(value) and all(isinstance(one, BaseMessage) for one in value)


def _are_content_blocks(value: Any) -> bool:
    """Whether it is the content of a message in parts, as Claude and Gemini give it."""
    return (
        isinstance(value, list)
        and any(isinstance(part, dict) and isinstance(part.get("text"), str) for part in value)
        and all(isinstance(part, dict) and isinstance(part.get("type"), str) for part in value)
    )


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _steps_of(output: Mapping[Any, Any]) -> list[BaseMessage]:
    """The tool steps of an `AgentExecutor`, as calls and results."""
    steps = output.get("intermediate_steps") or output.get("steps") or ()
    messages: list[BaseMessage] = []
    for step in steps if isinstance(steps, (list, tuple)) else ():
        action, observation = step if isinstance(step, tuple) and len(step) == 2 else (
            getattr(step, "action", None), getattr(step, "observation", None)
        )  # fmt: skip
        if isinstance(action, AgentAction):
            messages += _step(action, observation, messages)
    return by_id(messages)


def _step(action: AgentAction, observation: Any, so_far: Sequence[BaseMessage]) -> Iterable[BaseMessage]:
    call_id = getattr(action, "tool_call_id", None) or new_id()
    log = [message for message in getattr(action, "message_log", ()) if message not in so_far]
    if not any(isinstance(m, AIMessage) and call_id in {call["id"] for call in m.tool_calls} for m in [*log, *so_far]):
        arguments = action.tool_input if isinstance(action.tool_input, dict) else {"input": action.tool_input}
        log.append(AIMessage("", tool_calls=[{"name": action.tool, "args": arguments, "id": call_id}]))
    said = observation if isinstance(observation, str) else _json(jsonable(observation))
    return [*log, ToolMessage(said, tool_call_id=call_id, name=action.tool)]


def sources_in(output: Any) -> list[dict[str, Any]]:
    """The documents that an output brings along: those that a RAG chain answered from."""
    found: list[Document] = []
    if isinstance(output, Several):
        return [source for one in output.outputs for source in sources_in(one)][:MAX_SOURCES]
    for value in output.values() if isinstance(output, Mapping) else [output]:
        if isinstance(value, (list, tuple)):
            found += [one for one in value if isinstance(one, Document)]
        elif isinstance(value, Document):
            found.append(value)
    return [source_of(document.page_content, document.metadata, document.id) for document in found[:MAX_SOURCES]]


def output_of(turn: Turn, key: str | None) -> Any:
    """The output that a turn on the record had."""
    outer, _, inner = turn.kind.partition(":")
    value = turn.details.get("value")
    if outer in ("json", "several") or inner == "json":
        if outer == "several":
            return list(turn.output)
        return value
    messages = [*turn.input, *turn.output] if inner == "turn" else list(turn.output)
    said = _in_shape(messages, inner or outer)
    if outer != "dict":
        return said
    rest = value if isinstance(value, dict) else {}
    return {**rest, turn.details.get("key") or key or "output": said}


def _in_shape(messages: list[BaseMessage], kind: str) -> Any:
    if kind == "text":
        return "".join(str(message.text) for message in messages if not _is_step(message))
    if kind in ("messages", "turn") or not messages:
        return messages
    return messages[-1]


def _is_step(message: BaseMessage) -> bool:
    return isinstance(message, ToolMessage) or bool(isinstance(message, AIMessage) and message.tool_calls)

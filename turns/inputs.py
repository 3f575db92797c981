"""What a client sends as messages: every form that LangChain documents, and a sentence for all else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from langchain_core.messages import BaseMessage, HumanMessage, convert_to_messages
from pydantic import BaseModel

from histories.base import message_to_json, whole
from turns.errors import InvalidInput
from turns.shown import well_formed

_FROM_CLIENTS: Final = ("human", "tool")
"""The types of message that a client may say. Others would speak with the voice of the system or of the model."""

_ROLES: Final = ("human", "user", "ai", "assistant", "system", "developer", "tool", "function")

_USUAL_KEYS: Final = ("input", "messages")

_DEEPEST: Final = 60
"""How far parts of a message may be nested: it is nested a few times more when it is stored."""


class Fields(dict[str, Any]):
    """A pydantic model that a chain gets as a dictionary, with the history in it: its fields are attributes, too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


def fields_of(value: Any) -> Any:
    """An input as a dictionary, if it is a model of pydantic's (LangServe's `CustomUserType`); else as it is."""
    if isinstance(value, BaseModel) and not isinstance(value, BaseMessage):
        return Fields({name: getattr(value, name) for name in type(value).model_fields})
    return value


def new_messages(value: Any, key: str | None) -> list[BaseMessage]:
    """The new messages in an input; under `key`, if the chain has one. Raises `InvalidInput`."""
    if key is not None:
        if not isinstance(value, Mapping):
            raise InvalidInput(f"Send an object with the message under {key!r}.")
        value = value.get(key)
    elif isinstance(value, Mapping) and not _is_message(value):
        value = _under_usual_key(value)
    try:
        messages = [whole(message) for message in _converted(value)]
    except InvalidInput:
        raise
    except Exception:  # noqa: BLE001 - LangChain raises what comes along for what is no message
        raise InvalidInput(_HOW) from None
    return _checked(messages)


_HOW: Final = (
    "The input holds no message that this server reads: send a text, a message such as "
    '{"type": "human", "content": "…"}, or a list of them.'
)


def with_past(
    input: Any, past: list[BaseMessage], said: list[BaseMessage], past_key: str | None, said_key: str | None
) -> Any:
    """What a chain is called with: the input with the past under a key of its own, or before what is said now.

    Raises InvalidInput.
    """
    if past_key is not None:
        if not isinstance(input, dict):
            raise InvalidInput("Send an object: this chain puts the past under a key of its own.")
        return type(input)({**well_formed(input), past_key: past})
    messages = [*past, *said]
    if said_key is None:
        return messages
    return type(input)({**well_formed(input), said_key: messages})


def _under_usual_key(value: Mapping[str, Any]) -> Any:
    if len(value) == 1:
        return next(iter(value.values()))
    return next((value[key] for key in _USUAL_KEYS if key in value), None)


def _is_message(value: Any) -> bool:
    return isinstance(value, Mapping) and "content" in value and ("role" in value or "type" in value)


def _converted(value: Any) -> Sequence[BaseMessage]:
    if isinstance(value, str):
        return [HumanMessage(value)]
    if isinstance(value, BaseMessage):
        return [value]
    if _is_message(value) or _is_pair(value):
        return convert_to_messages([value])
    if not isinstance(value, (list, tuple)):
        raise InvalidInput(_HOW)
    if len(value) == 1 and isinstance(value[0], list) and not _is_pair(value[0]):
        return _converted(value[0])  # as a chat model's batch has it
    if value and all(_is_part(part) for part in value):
        return [HumanMessage(list(value))]
    return convert_to_messages(value)


def _is_pair(value: Any) -> bool:
    """Whether it is a message as (role, content)."""
    return isinstance(value, (list, tuple)) and len(value) == 2 and value[0] in _ROLES and not _is_message(value[1])


def _is_part(value: Any) -> bool:
    """Whether it is a part of a message's content: text, an image, a file."""
    kind = value.get("type") if isinstance(value, dict) else None
    return isinstance(kind, str) and kind not in _ROLES and not _is_message(value)


_TYPES: Final = {"user": "human", "assistant": "ai", "developer": "system"}


def as_typed(value: Any) -> Any:
    """Messages as `{"type": …, "content": …}`, from any other form that `convert_to_messages` takes; else as it is."""
    if isinstance(value, dict):
        if isinstance(value.get("role"), str) and "content" in value and "type" not in value:
            rest = {name: item for name, item in value.items() if name != "role"}
            return {"type": _TYPES.get(value["role"], value["role"]), **rest}
        return value
    if _is_pair(value):
        return as_typed({"role": value[0], "content": value[1]})
    if isinstance(value, list):
        if value and all(_is_part(part) and "content" not in part for part in value):
            return [{"type": "human", "content": value}]
        return [{"type": "human", "content": one} if isinstance(one, str) else as_typed(one) for one in value]
    return value


def _checked(messages: list[BaseMessage]) -> list[BaseMessage]:
    if not messages:
        raise InvalidInput("Send at least one message.")
    if any(message.type not in _FROM_CLIENTS for message in messages):
        raise InvalidInput("Send human messages only: the past is the server's, and comes with the session.")
    for message in messages:
        if not isinstance(message.content, str) or message.additional_kwargs or message.response_metadata:
            _check_depth(message)
    return messages


def _check_depth(message: BaseMessage) -> None:
    try:
        if _depth(message_to_json(message)) <= _DEEPEST:
            return
    except (ValueError, RecursionError):
        pass
    raise InvalidInput(f"A message holds what can't be kept: lists and objects, nested up to {_DEEPEST} deep.")


def _depth(value: Any) -> int:
    level, depth = [value], 0
    while level and depth <= _DEEPEST:
        inner = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, (dict, list))]
        level, depth = [part for parts in inner for part in parts], depth + 1
    return depth

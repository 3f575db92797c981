"""Messages to JSON and back, without loss.

The form of a message is LangChain's `message_to_dict`: `{"type": …, "data": {…}}`. What is read back is built from the
table below and nothing else: a stored constructor, whatever it looks like, stays the dictionary that it is.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    BaseMessageChunk,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
    message_chunk_to_message,
)

from histories.jsonable import DEEPEST
from histories.jsonable import jsonable as jsonable

MESSAGE_TYPES: Final[dict[str, type[BaseMessage]]] = {
    "human": HumanMessage,
    "ai": AIMessage,
    "system": SystemMessage,
    "chat": ChatMessage,
    "function": FunctionMessage,
    "tool": ToolMessage,
    "remove": RemoveMessage,
}

_compact: Final = json.JSONEncoder(separators=(",", ":")).encode

#: Two lone surrogates in a row read back from JSON's escapes as one character: such text goes in as bytes instead.
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_LONE: Final = re.compile("[\ud800-\udfff]")
_PAIR_ESCAPED = re.compile(r"\\ud[89ab][0-9a-f]{2}\\ud[c-f][0-9a-f]{2}")


class UnknownMessage(ValueError):
    """A message that is none of LangChain's, or that JSON can't hold."""


def whole(message: BaseMessage) -> BaseMessage:
    """The message itself, or, of a chunk, the whole message that it stands for."""
    while isinstance(message, BaseMessageChunk):
        extra = message.model_extra
        message = message_chunk_to_message(message)
        if extra:
            message = message.model_copy(update=extra)
    return message


def message_to_json(message: BaseMessage) -> dict[str, Any]:
    """LangChain's `message_to_dict` form of a message (chunks become whole messages).

    Raises `UnknownMessage` for what `message_from_json` could not give back: `storable` makes it fit.
    """
    return _both_forms(message)[0]


def _both_forms(message: BaseMessage) -> tuple[dict[str, Any], BaseMessage]:
    """The message's JSON, and the message that is read back from it."""
    message = whole(message)
    kind = MESSAGE_TYPES.get(message.type)
    if kind is None or not isinstance(message, kind):
        raise UnknownMessage(f"{type(message).__name__} is not one of LangChain's message types")
    try:
        data = message.model_dump(warnings=False)
        if type(message) is not kind:  # a subclass: only its fields can be read back
            data = kind(**data).model_dump(warnings=False)
        _check(data, DEEPEST)
        read = kind(**data)
    except (TypeError, ValueError, RecursionError) as error:
        raise UnknownMessage("a message holds something that JSON can't: use text, numbers, lists, dicts") from error
    return {"type": message.type, "data": data}, read


def storable(message: BaseMessage) -> BaseMessage:
    """The message, or the nearest one that `message_to_json` takes. Never raises.

    What JSON can't hold of it (a date in an artifact, an integer as a key) becomes what it can: see `jsonable`. What is
    no message of LangChain's is kept as the text of a reply.
    """
    try:
        message = whole(message)
        kind = MESSAGE_TYPES[message.type]
        if type(message) is kind:
            try:
                _check(message.__dict__, DEEPEST)
                _check(message.model_extra, DEEPEST)
            except (TypeError, RecursionError):
                message = _converted(message, kind)
            else:
                return message
        message_to_json(message)
    except Exception:  # noqa: BLE001 - of others' classes, anything may be expected
        return AIMessage(_words(message))
    return message


def _converted(message: BaseMessage, kind: type[BaseMessage]) -> BaseMessage:
    """A message with all in it made fit for JSON. A list that may hold only text and dictionaries does."""
    fields = jsonable({name: getattr(message, name, None) for name in kind.model_fields} | (message.model_extra or {}))
    if isinstance(fields["content"], list):
        fields["content"] = [part if isinstance(part, str | dict) else str(part) for part in fields["content"]]
    return kind(**fields)


def _words(message: BaseMessage) -> str:
    content: Any = jsonable(getattr(message, "content", ""))
    return content if isinstance(content, str) else json.dumps(content)


def _check(value: object, deepest: int) -> None:
    """Raises `TypeError` for what JSON can't hold, or would change (a tuple, a key that is a number)."""
    if isinstance(value, dict) and deepest:
        for key, item in value.items():
            if not isinstance(key, str):
                raise TypeError(f"a key is {type(key).__name__}")
            if type(item) not in _PLAIN:
                _check(item, deepest - 1)
    elif isinstance(value, list) and deepest:
        for item in value:
            if type(item) not in _PLAIN:
                _check(item, deepest - 1)
    elif not isinstance(value, _VALUES):
        raise TypeError(f"a value is {type(value).__name__}")


_VALUES: Final = (str, int, float, type(None))
_PLAIN: Final = frozenset({*_VALUES, bool})
"""The types themselves: asked first, as nearly all values are of them, and it takes a tenth of the time."""


def message_from_json(value: object) -> BaseMessage:
    """The message; raises `UnknownMessage` when `value` is not in the form of `message_to_json`."""
    if not isinstance(value, dict) or not isinstance(value.get("data"), dict):
        raise UnknownMessage('a message is {"type": …, "data": {…}}')
    kind = MESSAGE_TYPES.get(value["type"]) if isinstance(value.get("type"), str) else None
    if kind is None:
        raise UnknownMessage(f"a message's type is one of {', '.join(MESSAGE_TYPES)}")
    try:
        return kind(**value["data"])
    except (TypeError, ValueError) as error:
        raise UnknownMessage(f"this is not a message of type {value['type']}") from error


def copied(message: BaseMessage) -> BaseMessage:
    """A copy of a message that a store gave, which shares nothing with it that can be changed.

    Made by hand: pydantic's copy of one takes several times as long. What was read from JSON is made of dictionaries
    and lists alone.
    """
    copy, put = object.__new__(type(message)), object.__setattr__
    fields = {**message.__dict__}
    for name, value in fields.items():
        if type(value) in _CHANGEABLE:
            fields[name] = _copied(value)
    put(copy, "__dict__", fields)
    put(copy, "__pydantic_extra__", _copied(message.__pydantic_extra__))
    put(copy, "__pydantic_fields_set__", {*message.__pydantic_fields_set__})
    put(copy, "__pydantic_private__", None)
    return copy


_CHANGEABLE: Final = frozenset({dict, list})


def _copied(value: Any) -> Any:
    if type(value) is dict:
        return {key: _copied(item) for key, item in value.items()} if value else {}
    if type(value) is list:
        return [_copied(item) for item in value] if value else []
    return value


def is_plain(message: BaseMessage) -> bool:
    """Whether a message is somebody's well-formed text and nothing else: what any model takes as it is."""
    kind, content = type(message), message.content
    if not isinstance(content, str) or not (content.isascii() or _LONE.search(content) is None):
        return False
    if isinstance(message, AIMessage):
        return kind is AIMessage and not (message.tool_calls or message.invalid_tool_calls) and bool(content.strip())
    return kind is HumanMessage


def dump_messages(messages: Iterable[BaseMessage]) -> str:
    """A JSON value in ASCII that `load_messages` reads. Raises `UnknownMessage` for what JSON can't hold."""
    return dumped(messages)[0]


def dumped(messages: Iterable[BaseMessage]) -> tuple[str, list[BaseMessage]]:
    """The same, with the messages as they will be read back: copies, which share nothing with these."""
    forms = [_both_forms(message) for message in messages]
    return dump([form for form, _ in forms]), [read for _, read in forms]


def load_messages(value: object) -> list[BaseMessage]:
    """The messages of a parsed `dump_messages`."""
    plain = undump(value)
    if not isinstance(plain, list):
        raise UnknownMessage("messages are a list")
    return [message_from_json(m) for m in plain]


def dump(value: object) -> str:
    """`value` as JSON in ASCII, so that `undump(json.loads(…))` equals it, lone surrogates and all."""
    looks_packed = isinstance(value, dict) and value.keys() == {"wtf8"}
    try:
        text = _compact(value)
        if _PAIR_ESCAPED.search(text) is None and not looks_packed:
            return text
        raw = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise UnknownMessage("a message holds something that JSON can't: use text, numbers, lists, dicts") from error
    if _PAIR.search(raw) is None and not looks_packed:
        return text
    packed = base64.b64encode(raw.encode("utf-8", "surrogatepass")).decode("ascii")
    return json.dumps({"wtf8": packed}, separators=(",", ":"))


def undump(value: object) -> object:
    """What `dump` was given, from its parsed JSON. Raises `UnknownMessage` for what `dump` never gives."""
    if isinstance(value, dict) and value.keys() == {"wtf8"} and isinstance(value["wtf8"], str):
        try:
            return json.loads(base64.b64decode(value["wtf8"]).decode("utf-8", "surrogatepass"))
        except (ValueError, RecursionError) as error:
            raise UnknownMessage("packed text is base64 of JSON") from error
    return value


def load(text: str | bytes) -> object:
    """What `dump` was given, from what it gave. Raises `ValueError` for what is no JSON, `UnknownMessage`."""
    return undump(json.loads(text))


def text_of(messages: Sequence[BaseMessage]) -> str:
    """All that was said in these messages, for search: text and text parts, a line each."""
    found: list[str] = []
    for message in messages:
        parts: list[Any] = message.content if isinstance(message.content, list) else [message.content]
        for part in parts:
            text = part.get("text") if isinstance(part, dict) else part
            if isinstance(text, str):
                found.append(text)
    return "\n".join(found)

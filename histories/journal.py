"""What a running turn says, event by event: for its readers in this process, and as messages for its record."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    BaseMessageChunk,
    HumanMessageChunk,
    SystemMessageChunk,
    ToolMessageChunk,
)

from histories.codec import MESSAGE_TYPES, whole
from histories.model import Event, Reply, TurnDetails, TurnStatus
from histories.window import MOST_TOKENS, estimate_tokens

_CHUNKS: dict[str, type[BaseMessageChunk]] = {
    "AIMessageChunk": AIMessageChunk,
    "HumanMessageChunk": HumanMessageChunk,
    "SystemMessageChunk": SystemMessageChunk,
    "ToolMessageChunk": ToolMessageChunk,
}


class Journal:
    """The events of one turn, for readers on any event loop of this process."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._events: list[bytes] = []
        self._readers: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()
        self._is_over = False

    def append(self, events: Sequence[bytes]) -> None:
        with self._guard:
            self._events += events
        self._tell()

    def close(self) -> None:
        """No more events will come."""
        self._is_over = True
        self._tell()

    def _tell(self) -> None:
        with self._guard:
            readers = list(self._readers)
        for loop, news in readers:
            with suppress(RuntimeError):  # the reader's event loop is gone
                loop.call_soon_threadsafe(news.set)

    async def read(self, after: int = -1) -> AsyncIterator[Sequence[Event]]:
        """Those after that number, some at a time, as they come; ends when no more will."""
        position, news = after + 1, asyncio.Event()
        reader = (asyncio.get_running_loop(), news)
        self._readers.add(reader)
        try:
            while True:
                news.clear()
                is_over = self._is_over
                with self._guard:
                    some = self._events[position:]
                if some:
                    yield [Event(position + place, data) for place, data in enumerate(some)]
                    position += len(some)
                elif is_over:
                    return
                else:
                    await news.wait()
        finally:
            self._readers.discard(reader)


CRASHED: Final = "crashed"
"""The finish_reason of a turn whose owner died."""


def settled(events: Sequence[bytes]) -> Reply:
    """How a turn whose owner died is ended by whoever finds it: interrupted, with what its journal came to."""
    output = recovered(events)
    details = TurnDetails(finish_reason=CRASHED, events=len(events))
    lengths = text_lengths(events)
    if lengths:
        details["lengths"] = lengths
    status = TurnStatus.INTERRUPTED
    tokens = min(estimate_tokens(output), MOST_TOKENS)
    return Reply(status=status, output=output, tokens=tokens, kind=_kind(events), details=details)


def _kind(events: Sequence[bytes]) -> str:
    return "text" if all(event.startswith(b'"') for event in events) else "message"


def text_lengths(events: Iterable[bytes]) -> list[int]:
    """How many characters of the reply's text each event brought, up to the first that brought anything else.

    So the rest of a reply can be told to who has heard some of its events, when only the record is left.
    """
    lengths = list[int]()
    for event in events:
        text = _text_alone(json.loads(event))
        if text is None:
            break
        lengths.append(len(text))
    return lengths


def _text_alone(value: Any) -> str | None:
    """The text of an event that says nothing else; None of any other."""
    if isinstance(value, dict) and value.get("type") == "AIMessageChunk":
        more = any(value.get(key) for key in ("tool_call_chunks", "additional_kwargs", "usage_metadata"))
        value = None if more or "finish_reason" in (value.get("response_metadata") or {}) else value.get("content")
    return value if isinstance(value, str) else None


def recovered(events: Sequence[bytes]) -> list[BaseMessage]:
    """The messages that the journal of a dead owner's turn comes to, for its record.

    Texts are joined, parts of messages merged by their id, and dictionaries added up by key; what is none of them is
    kept as JSON. A tool call whose arguments broke off is none: it stays what LangChain calls an invalid one.
    """
    text, messages = list[str](), list[BaseMessage]()
    for event in events:
        with suppress(ValueError, RecursionError):
            for piece in _pieces(json.loads(event)):
                if isinstance(piece, str):
                    text.append(piece)
                else:
                    _merge(messages, piece)
    if text:
        messages.append(AIMessage("".join(text)))
    return [whole(message) for message in messages]


def _pieces(value: Any) -> list[str | BaseMessage]:
    """The texts and messages in one value that a chain gave."""
    if isinstance(value, str):
        return [value]
    message = _message(value)
    if message is not None:
        return [message]
    if isinstance(value, Mapping):
        return [piece for part in value.values() for piece in _pieces(part)]
    if isinstance(value, list):
        return [piece for part in value for piece in _pieces(part)]
    return [] if value is None else [json.dumps(value)]


def _message(value: Any) -> BaseMessage | None:
    if not isinstance(value, dict) or not isinstance(value.get("type"), str):
        return None
    kind: type[BaseMessage] | None = _CHUNKS.get(value["type"]) or MESSAGE_TYPES.get(value["type"])
    if kind is None or "content" not in value:
        return None
    try:
        return kind(**value)
    except (TypeError, ValueError):
        return None


def _merge(messages: list[BaseMessage], piece: BaseMessage) -> None:
    """Adds a message, or a part to the one that it continues: of the same kind and id, else the last one."""
    if isinstance(piece, BaseMessageChunk):
        for place in range(len(messages) - 1, -1, -1):
            earlier = messages[place]
            if type(earlier) is type(piece) and (earlier.id == piece.id or None in (earlier.id, piece.id)):
                messages[place] = earlier + piece
                return
    messages.append(piece)

"""What others are shown: models only well-formed text, clients of the debugging streams nothing old and no secrets."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, Final

from langchain_core.messages import BaseMessage, SystemMessage
from langchain_core.prompt_values import ChatPromptValue

from histories.base import jsonable

_REFUSAL = frozenset({"body", "headers", "status_code", "request_id"})
"""Where LangChain puts what a model's server said when it failed. Clients are told of that in our words."""

_DEEPEST: Final = 100
"""How far a value is looked into; what a list holds that holds itself has no end."""

_LONE = re.compile("[\ud800-\udfff]")


def well_formed(value: Any) -> Any:
    """`value` with U+FFFD for each lone surrogate: no model's API takes one, as UTF-8 has none.

    What is well-formed is given back as it is, not copied.
    """
    if isinstance(value, BaseMessage):
        said = value.content
        content = said if isinstance(said, str) and said.isascii() else well_formed(said)
        return value if content is said else value.model_copy(update={"content": content})
    if isinstance(value, str):
        return value if value.isascii() or _LONE.search(value) is None else _LONE.sub("\ufffd", value)
    if isinstance(value, list):
        items = [well_formed(item) for item in value]
        return items if any(new is not old for new, old in zip(items, value, strict=True)) else value
    if isinstance(value, dict):
        pairs = {well_formed(key): well_formed(item) for key, item in value.items()}
        return pairs if any(pairs.get(key) is not item for key, item in value.items()) else value
    return value


def finite(value: Any) -> Any:
    """A value that can be written down: what holds itself, or has keys that JSON has not, as what JSON can hold of it.

    LangChain's debugging streams compare and write down whatever was said.
    """
    if isinstance(value, (str, BaseMessage)):
        return value
    try:
        json.dumps(value, default=lambda _: None)
    except (TypeError, ValueError, RecursionError):
        return jsonable(value)
    return value


class Redaction:
    """What `stream_log` and `stream_events` leave out: old messages, the system prompt, and what a model failed with.

    Without it each event carries the whole window again, and the length of a history shows in the bytes of a turn.
    """

    def __init__(self, *, show_prompts: bool) -> None:
        self._show_prompts = show_prompts
        self._past: list[BaseMessage] = []
        self._ids: set[int] = set()
        self._names: set[str | None] = set()

    def hide(self, past: Iterable[BaseMessage]) -> None:
        """These messages, and copies of them, are left out from now on."""
        self._past += past  # kept alive, so that no other message gets one of their ids
        self._ids.update(id(message) for message in self._past)
        self._names.update(message.id for message in self._past if message.id is not None)

    def _hidden(self, item: object) -> bool:
        if id(item) in self._ids or (isinstance(item, BaseMessage) and item.id in self._names):
            return True
        return isinstance(item, SystemMessage) and not self._show_prompts

    def clean(self, value: Any, deepest: int = _DEEPEST) -> Any:
        """`value` without what is hidden, in lists, dictionaries and prompts, and without what holds itself."""
        if isinstance(value, str):
            return value
        if not deepest:
            return jsonable(value)
        if isinstance(value, dict):
            return {key: self.clean(item, deepest - 1) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.clean(item, deepest - 1) for item in value if not self._hidden(item)]
        if isinstance(value, ChatPromptValue):
            return ChatPromptValue(messages=self.clean(list(value.messages)))
        if isinstance(value, BaseMessage) and "status_code" in value.response_metadata:
            told = {key: item for key, item in value.response_metadata.items() if key not in _REFUSAL}
            return value.model_copy(update={"response_metadata": told})
        return None if self._hidden(value) else value

"""How much memory the texts of a value take: what a turn holds of its input while it waits and runs."""

from __future__ import annotations

import sys
from typing import Any

from langchain_core.messages import BaseMessage


def size_of(value: Any) -> int:
    """Bytes, of all texts in it. What is no text, list, dictionary or message is nothing."""
    if isinstance(value, str):
        return sys.getsizeof(value)
    found, parts, seen = 0, [value], set[int]()
    while parts:
        part = parts.pop()
        if isinstance(part, (str, bytes)):
            found += sys.getsizeof(part)
        elif id(part) not in seen:
            seen.add(id(part))
            parts.extend(_inner(part))
    return found


def _inner(part: Any) -> list[Any]:
    if isinstance(part, dict):
        return [*part.values()]
    if isinstance(part, (list, tuple)):
        return [*part]
    return [part.content] if isinstance(part, BaseMessage) else []

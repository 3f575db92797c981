"""Which part of a history a model is shown: whole turns, within a number of tokens.

The window moves in steps. It grows to its limit, then drops its older half at once, so that nearly every prompt
extends the one before it, and the prompt caches of model servers stay warm. Where it starts follows from the token
counts on the record alone: no state is kept, and any server that goes on with a conversation goes on with its window.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import BaseMessage


def window_floor(tokens: int, limit: int) -> int:
    """The token count from which on turns are shown, when the history with the new input has come to `tokens`.

    What is shown is at most `limit` tokens, and at least half of them once the history has so many.
    """
    half = max(1, limit // 2)
    return max(0, tokens // half - 1) * half


def estimate_tokens(messages: Sequence[BaseMessage]) -> int:
    """How many tokens a model makes of the messages: a byte-based estimate, on the high side for most of them.

    A token is taken to be 3.5 bytes of UTF-8 (English averages above 4, most other scripts about 3), and each message
    to cost 4 more. Images and other parts without text are taken at 800 each.
    """
    return sum(4 + _size(message.content) for message in messages)


def _size(content: str | list[Any]) -> int:
    if isinstance(content, str):
        size = len(content) if content.isascii() else len(content.encode("utf-8", "surrogatepass"))
        return (size * 2 + 6) // 7
    total = 0
    for part in content:
        text = part if isinstance(part, str) else part.get("text") if isinstance(part, dict) else None
        total += _size(text) if isinstance(text, str) else 800
    return total

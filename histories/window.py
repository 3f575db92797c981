"""Which part of a history a model is shown: whole turns, within a number of tokens.

The window moves in steps. It grows to its limit, then drops its older half at once, so that nearly every prompt
extends the one before it, and the prompt caches of model servers stay warm. Where it starts follows from the token
counts on the record alone: no state is kept, and any server that goes on with a conversation goes on with its window.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

from langchain_core.messages import AIMessage, BaseMessage


def window_floor(tokens: int, limit: int) -> int:
    """The token count from which on turns are shown, when the history with the new input has come to `tokens`.

    What is shown is at most `limit` tokens, and at least half of them once the history has so many.
    """
    half = max(1, limit // 2)
    return max(0, tokens // half - 1) * half


MOST_TOKENS: Final = 4000
"""The most that a turn counts where nobody knows the model's window: of an import, of a crashed server. More would put
all that was said before it out of the window."""


PART_TOKENS: Final = 800
"""What a picture, or another part of a message that has no text, is taken at."""


def estimate_tokens(messages: Sequence[BaseMessage]) -> int:
    """How many tokens a model makes of the messages: an estimate, on the high side for most of them.

    Each message costs 4 beside its text. Images and other parts without text are taken at 800 each, a tool call's
    arguments at what their text would be.
    """
    total = 0
    for message in messages:
        content = message.content
        total += 4 + (text_tokens(content) if isinstance(content, str) else _size(content))
        if isinstance(message, AIMessage) and message.tool_calls:
            total += _calls(message)
    return total


def text_tokens(text: str) -> int:
    """The estimate for a text.

    A token is taken to be 3.5 bytes of UTF-8 (English averages above 4, most other scripts about 3). Of a longer text,
    what models cut finer counts for more: digits, what has hardly a space (base64, hashes), Chinese, emoji. Of a very
    long text so much is looked at as tells it.
    """
    if len(text) <= _KEPT:
        return _counted_once(text)
    if len(text) <= _SAMPLE:
        return _counted(text)
    step = len(text) // _SAMPLES
    sample = "".join(text[start : start + _SAMPLE // _SAMPLES] for start in range(0, step * _SAMPLES, step))
    return -(-_counted(sample) * len(text) // len(sample))


_SAMPLE: Final = 256 * 1024
"""Characters that are looked at, at most. A text of 12 MB, which is counted some times for each turn that comes after
it, would hold the event loop for a quarter of a second each time."""

_SAMPLES: Final = 256


_KEPT: Final = 1000
"""Characters of the texts whose count is kept: the same messages are counted turn after turn."""


def _counted(text: str) -> int:
    if not text.isascii():
        size = len(text.encode("utf-8", "surrogatepass"))
        return (size * 2 + 4) // 5 if size > 2.5 * len(text) else (size * 2 + 6) // 7
    size = len(text)
    if size < _LONG:
        return (size * 2 + 6) // 7
    if text.count(" ") + text.count("\n") < size / 20:
        return size // 2
    digits = size - len(text.encode("ascii").translate(None, b"0123456789"))  # of a megabyte in a millisecond
    return ((size - digits) * 2 + 6) // 7 + digits * 2 // 3


_counted_once: Final = lru_cache(maxsize=4096)(_counted)

_LONG: Final = 64


def _size(content: list[Any]) -> int:
    total = 0
    for part in content:
        text = part if isinstance(part, str) else part.get("text") if isinstance(part, dict) else None
        total += text_tokens(text) if isinstance(text, str) else PART_TOKENS
    return total


def _calls(message: AIMessage) -> int:
    return sum(8 + text_tokens(str(call["args"])) for call in message.tool_calls)

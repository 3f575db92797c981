"""The errors of a model's client, told apart by name: to import OpenAI's takes half a second, which no start needs.

What such a client raises, it has imported itself.
"""

from __future__ import annotations

from collections.abc import Iterator


def names_of(error: BaseException | None) -> Iterator[str]:
    """What an error is, from its own class on: `openai.APITimeoutError`, `openai.APIConnectionError`, …"""
    return (f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(error).__mro__)


def is_one(error: BaseException | None, *names: str) -> bool:
    """Whether an error is of a class of one of these names, or derived from it."""
    return any(name in names for name in names_of(error))

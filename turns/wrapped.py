"""A call of the runnable that a chain with a memory wraps."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any

from langchain_core.runnables import RunnableConfig

from turns.outputs import Given
from turns.quiet import Note, Steps


@dataclass(slots=True)
class Call:
    """A call of the wrapped runnable: with what, and what it was given of the history."""

    value: Any
    config: RunnableConfig
    steps: Steps
    """What is called in the runnable's place."""

    note: Note | None
    given: Given = field(default_factory=Given)
    state: Any = None
    """Of a graph's stream, what its state came to be."""


Run = Callable[[Call], AsyncGenerator[Any, None]]
"""Calls the wrapped runnable, and gives its output, or its chunks."""

"""What a chain may say, or raise, at random."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.runnables import Runnable

from tests.any_chains import DOCUMENT, City, Colour, Point


class Speaker(Runnable[Any, Any]):
    """Says things without LangChain adding them up, which it can't do with all of them."""

    def __init__(self, chunks: list[Any]) -> None:
        self.chunks = chunks

    def invoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:
        raise NotImplementedError

    async def ainvoke(self, input: Any, config: Any = None, **kwargs: Any) -> Any:
        async for chunk in self.astream(input):
            return chunk
        return None

    async def astream(self, input: Any, config: Any = None, **kwargs: Any) -> AsyncIterator[Any]:
        for chunk in self.chunks:
            if isinstance(chunk, BaseException):
                raise chunk
            yield chunk


class Hostile:
    """Raises at every touch."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not compared")

    __hash__ = object.__hash__


def anything(dice: random.Random, depth: int = 0) -> Any:
    """A value of any kind that a chain may say."""
    loop: list[Any] = []
    loop.append(loop)
    leaves: list[Any] = [
        "text", "", None, 3, float("nan"), True, b"\xff", 10**30, datetime(2026, 1, 1, tzinfo=UTC), Decimal(1), {1, 2},
        AIMessage("a"), AIMessageChunk(content="b", id="1"), AIMessageChunk(content=[{"type": "text", "text": "c"}]),
        ToolMessage("t", tool_call_id="c1", artifact=object()), HumanMessage("h"), SystemMessage("s"),
        RemoveMessage(id="1"), DOCUMENT, City(name="x"), Point(1), Colour.RED, "\ud800", loop, object(), Hostile(),
        AIMessageChunk(content="", tool_call_chunks=[{"name": "w", "args": '{"ci', "id": "c", "index": 0}]),
    ]  # fmt: skip
    if depth > 3 or dice.random() < 0.5:
        return dice.choice(leaves)
    items = [anything(dice, depth + 1) for _ in range(dice.randrange(4))]
    keys = dice.choices(["messages", "output", "answer", "a", "steps", 1, None, (1, 2)], k=len(items))
    shapes: list[Any] = [items, tuple(items), dict(zip(keys, items, strict=True)), {"node": {"messages": items}}]
    return dice.choice(shapes)


FAILURES: list[Callable[[], BaseException]] = [
    lambda: ValueError("x"),
    KeyboardInterrupt,
    GeneratorExit,
    RecursionError,
    lambda: SystemExit(3),
    asyncio.CancelledError,
    StopAsyncIteration,
    TimeoutError,
    lambda: BaseExceptionGroup("two", [ValueError(), KeyboardInterrupt()]),
]


def said_by(dice: random.Random) -> list[Any]:
    """Up to four things that a chain says; one time in five it raises in the end."""
    chunks = [anything(dice) for _ in range(dice.randrange(1, 4))]
    return [*chunks, dice.choice(FAILURES)()] if dice.random() < 0.2 else chunks

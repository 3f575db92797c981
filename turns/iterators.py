"""Functions that give their output piece by piece: what is an iterator is gone through, not kept as the name of one."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing
from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableGenerator, RunnableSequence
from langchain_core.runnables.config import run_in_executor

from turns import quiet
from turns.merging import Several, merged

_END = object()


async def invoked(
    steps: quiet.Steps, value: Any, note: quiet.Note | None = None, **kwargs: Any
) -> AsyncGenerator[Any, None]:
    """What a runnable of these steps gives when it is invoked: its output, or the pieces of a generator at its end.

    LangChain's own adds the pieces up by `+`, which dictionaries don't have, and which makes a prompt of two messages.
    """
    last = steps.each[-1]
    last = last.last if isinstance(last, RunnableSequence) else last
    if not isinstance(last, RunnableGenerator):
        yield await whole(await quiet.invoke(steps, value, note, **kwargs))
        return
    async for piece in pieces(quiet.stream(steps, value, note, **kwargs)):
        yield piece


async def pieces(chunks: AsyncIterator[Any]) -> AsyncGenerator[Any, None]:
    """The chunks, and those of each iterator among them in its place."""
    async for chunk in chunks:
        if isinstance(chunk, (str, BaseMessage)) or not isinstance(chunk, (AsyncIterator, Iterator)):
            yield chunk
            continue
        async with aclosing(_all_of(chunk)) as inner:
            async for piece in inner:
                yield piece


async def whole(output: Any) -> Any:
    """An output; of an iterator, all that it gives, as one."""
    if isinstance(output, (AsyncIterator, Iterator)):
        output = merged([piece async for piece in _all_of(output)])
    return list(output.outputs) if isinstance(output, Several) else output


async def _all_of(iterator: AsyncIterator[Any] | Iterator[Any]) -> AsyncGenerator[Any, None]:
    if isinstance(iterator, AsyncGenerator):
        async with aclosing(iterator) as items:
            async for item in items:
                yield item
    elif isinstance(iterator, AsyncIterator):
        async for item in iterator:
            yield item
    else:
        while (item := await run_in_executor(None, next, iterator, _END)) is not _END:
            yield item


def from_generator(function: Callable[[Iterator[Any]], Iterator[Any]]) -> RunnableGenerator[Any, Any]:
    """LangChain's runnable for a generator of which there is no `async` form: it runs in a thread."""

    async def in_a_thread(inputs: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for piece in _all_of(function(iter([value async for value in inputs]))):
            yield piece

    return RunnableGenerator(function, in_a_thread, name=getattr(function, "__name__", None))

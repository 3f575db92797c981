"""The rest of a runnable's face: all of it goes through `ainvoke`, `abatch` and `astream`, not past them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.history import RunnableWithMessageHistory
from typing_extensions import override

from histories.base import run_blocking


async def after_the_first(items: AsyncGenerator[Any, None]) -> AsyncGenerator[Any, None]:
    """The items, the first of which is held until there is a second one: what is refused has said nothing before."""
    async with aclosing(items):
        first = await anext(items, None)
        async for item in items:
            if first is not None:
                yield first
                first = None
            yield item
        if first is not None:
            yield first


class RunnableFace(RunnableWithMessageHistory):
    """LangChain's class, whose methods would otherwise call the wrapped runnable by themselves."""

    @override
    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        return run_blocking(lambda: self.ainvoke(input, config, **kwargs))

    @override
    def batch(
        self,
        inputs: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        return run_blocking(lambda: self.abatch(inputs, config, return_exceptions=return_exceptions, **kwargs))

    @override
    def stream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Any]:
        chunks = self.astream(input, config, **kwargs)
        nothing = object()

        async def following() -> Any:
            return await anext(chunks, nothing)

        try:
            while (chunk := run_blocking(following)) is not nothing:
                yield chunk
        finally:
            run_blocking(chunks.aclose)  # type: ignore[attr-defined]  # an async generator, declared as an iterator

    @override
    def transform(self, input: Iterator[Any], config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Any]:
        return Runnable.transform(self, input, config, **kwargs)

    @override
    def atransform(
        self, input: AsyncIterator[Any], config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        return Runnable.atransform(self, input, config, **kwargs)

    @override
    def batch_as_completed(self, *args: Any, **kwargs: Any) -> Any:
        return Runnable.batch_as_completed(self, *args, **kwargs)

    @override
    def abatch_as_completed(self, *args: Any, **kwargs: Any) -> Any:
        return Runnable.abatch_as_completed(self, *args, **kwargs)

    @override
    def stream_events(self, *args: Any, **kwargs: Any) -> Any:
        return Runnable.stream_events(self, *args, **kwargs)

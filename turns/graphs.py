"""LangGraph's graphs, agents among them: their messages as they are said, and their state in the end.

Nothing of LangGraph is imported: it need not be installed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable, RunnableBinding, RunnableConfig, RunnableSequence
from langchain_core.runnables.base import RunnableBindingBase
from typing_extensions import override


def is_graph(runnable: Any) -> bool:
    """Whether it is a compiled graph, whose `stream` has modes."""
    return hasattr(runnable, "stream_mode") and hasattr(runnable, "stream_channels")


def keeps_its_own_history(runnable: Any) -> bool:
    """Whether a graph has a checkpointer."""
    return is_graph(runnable) and getattr(runnable, "checkpointer", None) not in (None, False)


class WholeGraph(RunnableBinding[Any, Any]):
    """A graph that further steps follow. It gives them its state, streamed too, as `invoke` does.

    LangGraph's own stream is one of updates, `{node: {...}}`: what takes the last message of a state fails on it.
    """

    @override
    async def astream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> AsyncIterator[Any]:
        yield await self.ainvoke(input, config, **kwargs)

    @override
    async def atransform(
        self, input: AsyncIterator[Any], config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        async for output in Runnable.atransform(self, input, config, **kwargs):  # what came as one, to `astream`
            yield output


def with_whole_graphs(runnable: Runnable[Any, Any]) -> Runnable[Any, Any]:
    """The same, whose graphs are whole ones where steps follow them."""
    if not isinstance(runnable, RunnableSequence):
        return runnable
    *steps, last = runnable.steps
    if not any(map(_ends_in_graph, steps)):
        return runnable
    whole = [WholeGraph(bound=step) if _ends_in_graph(step) else step for step in steps]
    return RunnableSequence(*whole, last, name=runnable.name)


def _ends_in_graph(step: Any) -> bool:
    return is_graph(step) or (isinstance(step, RunnableBindingBase) and _ends_in_graph(step.bound))


class GraphStream:
    """The stream of a graph: messages and parts of them, then whatever else its state came to hold."""

    def __init__(self, graph: Runnable[Any, Any], value: Any, config: RunnableConfig, kwargs: dict[str, Any]) -> None:
        self._graph, self._value, self._config, self._kwargs = graph, value, config, kwargs
        self.state: Any = None
        """The last state: it has all that was said, in its order, and nothing that was only thought aloud."""

    async def chunks(self) -> AsyncIterator[Any]:
        said = False
        mode = self._kwargs.pop("stream_mode", None)
        if mode is not None:  # the caller's own, as it is
            async for chunk in self._graph.astream(self._value, self._config, stream_mode=mode, **self._kwargs):
                yield chunk
            return
        modes = ["messages", "values"]
        async for kind, data in self._graph.astream(self._value, self._config, stream_mode=modes, **self._kwargs):
            if kind == "values":
                self.state = data
            elif isinstance(data, tuple) and isinstance(data[0], BaseMessage):
                said = True
                yield data[0]
        if self.state is not None:
            rest = self.state if not said else _beside_messages(self.state)
            if rest:
                yield rest


def _beside_messages(state: Any) -> dict[str, Any]:
    """What an agent answers in a form that it was asked for; and that it waits for somebody."""
    if not isinstance(state, dict):
        return {}
    return {key: state[key] for key in ("structured_response", "__interrupt__") if state.get(key) is not None}

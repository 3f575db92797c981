"""LangGraph's graphs, agents among them: their messages as they are said, and their state in the end.

Nothing of LangGraph is imported: it need not be installed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.runnables import (
    Runnable,
    RunnableAssign,
    RunnableBinding,
    RunnableConfig,
    RunnableParallel,
    RunnableSequence,
)
from langchain_core.runnables.base import RunnableBindingBase
from typing_extensions import override


def is_graph(runnable: Any) -> bool:
    """Whether it is a compiled graph, whose `stream` has modes."""
    if type(runnable) is RunnableSequence:  # most are: what pydantic does for an attribute that is not there takes long
        return False
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


def with_whole_graphs(runnable: Any) -> Any:
    """The same runnable, whose graphs are whole ones where steps follow them, within dictionaries and bindings too."""
    changes: dict[str, Any] = {}
    if isinstance(runnable, RunnableSequence):
        *steps, last = map(with_whole_graphs, runnable.steps)
        steps = [WholeGraph(bound=step) if _ends_in_graph(step) else step for step in steps]
        changes = {"first": steps[0], "middle": steps[1:], "last": last}
    elif isinstance(runnable, RunnableParallel):
        changes = {"steps__": {key: with_whole_graphs(step) for key, step in runnable.steps__.items()}}
    elif isinstance(runnable, RunnableAssign):
        changes = {"mapper": with_whole_graphs(runnable.mapper)}
    elif type(runnable) is RunnableBinding:
        changes = {"bound": with_whole_graphs(runnable.bound)}
    if all(_is_same(value, getattr(runnable, name)) for name, value in changes.items()):
        return runnable
    return runnable.model_copy(update=changes)


def _is_same(value: Any, before: Any) -> bool:
    if isinstance(before, (list, Mapping)):
        pairs = zip(value, before, strict=True) if isinstance(before, list) else ((value[k], before[k]) for k in before)
        return all(one is other for one, other in pairs)
    return value is before


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

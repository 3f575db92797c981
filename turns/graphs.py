"""LangGraph's graphs, agents among them: their messages as they are said, and their state in the end.

Nothing of LangGraph is imported: it need not be installed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable, RunnableConfig, RunnableSequence


def is_graph(runnable: Any) -> bool:
    """Whether it is a compiled graph, whose `stream` has modes."""
    if type(runnable) is RunnableSequence:  # most are: what pydantic does for an attribute that is not there takes long
        return False
    return hasattr(runnable, "stream_mode") and hasattr(runnable, "stream_channels")


def keeps_its_own_history(runnable: Any) -> bool:
    """Whether a graph has a checkpointer."""
    return is_graph(runnable) and getattr(runnable, "checkpointer", None) not in (None, False)


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

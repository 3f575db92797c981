"""LangChain's stream of events, `astream_events`, at less cost: see `turns/debug_streams.py`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from typing import Any
from uuid import UUID

from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import ensure_config
from langchain_core.runnables.schema import StreamEvent
from langchain_core.tracers.event_stream import _AstreamEventsCallbackHandler  # private; pinned with langchain-core
from langchain_core.utils.uuid import uuid7
from typing_extensions import override

from turns.debug_runs import Say, within
from turns.debug_streams import FILTERS, Queue, heard_by
from turns.face import after_the_first
from turns.shown import Redaction, finite


class _Events(_AstreamEventsCallbackHandler):
    """LangChain's, told of events where they happen, as the log is."""

    run_inline = True

    def __init__(self, **filters: Any) -> None:
        super().__init__(**filters)
        self.queue = Queue()
        self._parents: dict[UUID, list[str]] = {}

    @override
    def _send(self, event: StreamEvent, event_type: str) -> None:
        if self.root_event_filter.include_event(event, event_type):
            self.queue.put(event)

    @override
    def __aiter__(self) -> AsyncIterator[Any]:
        return self.queue.__aiter__()

    @override
    def _get_parent_ids(self, run_id: UUID) -> list[str]:
        if run_id not in self._parents:  # they are asked for with each token
            self._parents[run_id] = super()._get_parent_ids(run_id)
        return [*self._parents[run_id]]

    def said(self, run_id: UUID, chunk: Any) -> None:
        """A run has said a chunk, as when LangChain taps what it gives."""
        info = self.run_map.get(run_id)
        if info is None:
            return
        told: StreamEvent = {
            "event": f"on_{info['run_type']}_stream",
            "run_id": str(run_id),
            "name": info["name"],
            "tags": info["tags"],
            "metadata": info["metadata"],
            "data": {"chunk": chunk},
            "parent_ids": self._get_parent_ids(run_id),
        }
        self._send(told, info["run_type"])


async def run_events(
    name: str, say: Say, value: Any, config: RunnableConfig, redaction: Redaction, **kwargs: Any
) -> AsyncGenerator[StreamEvent, None]:
    """What `Runnable.astream_events` gives of a run around what is said, but what is to be hidden.

    What is not its own in `kwargs` is `say`'s. The first event is held until there is another one.
    """
    version = kwargs.pop("version", "v2")
    if version == "v2":
        events: Any = _events(name, say, value, config, **kwargs)
    else:
        events = _Around(name, say).astream_events(value, config, version=version, **kwargs)
    async with aclosing(after_the_first(events)) as told:
        async for event in told:
            event["data"] = redaction.clean(event["data"])
            yield event


async def _events(name: str, say: Say, value: Any, config: RunnableConfig, **kwargs: Any) -> AsyncGenerator[Any, None]:
    """The second version."""
    events = _Events(**{name: kwargs.pop(name, None) for name in FILTERS})
    config = heard_by(events, ensure_config(config))
    run_id: Any = config.setdefault("run_id", uuid7())
    telling = within(name, say, lambda chunk: events.said(run_id, finite(chunk)), value, config, **kwargs)
    task = asyncio.create_task(events.queue.filled_by(telling))
    first: Any = None
    try:
        async for event in events:
            if first is None:  # what goes into a run is not known before all of it is there
                first, event["data"]["input"] = event, value
            elif event["run_id"] == first["run_id"] and event["event"].endswith("_end"):
                event["data"].pop("input", None)
            yield event
    finally:
        events.queue.close()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


class _Around(Runnable[Any, Any]):
    """A run around what is said as a runnable, for versions of `astream_events` that are LangChain's own."""

    def __init__(self, name: str, say: Say) -> None:
        self.name, self._say = name, say

    @override
    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        raise NotImplementedError("It is streamed.")

    @override
    async def astream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> AsyncIterator[Any]:
        queue = Queue()
        telling = within(self.get_name(), self._say, queue.put, input, ensure_config(config), **kwargs)
        task = asyncio.create_task(queue.filled_by(telling))
        try:
            async for chunk in queue:
                yield chunk
            await task
        finally:
            queue.close()
            task.cancel()
            await asyncio.wait([task])

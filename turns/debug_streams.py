"""LangChain's streams of all that happens within a run, `astream_log` and `astream_events`, at less cost.

LangChain makes a task and a call from thread to thread of each event, copies each chunk of a log deeply, and compares
the JSON of the whole output before and after it. And what is said is told where it is said, not where it is heard: so
events have LangChain's order, whatever else the event loop does.
"""

from __future__ import annotations

import asyncio
import copy
import threading
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterable
from contextlib import aclosing, suppress
from typing import Any, Final

import jsonpatch
from langchain_core.callbacks import BaseCallbackManager
from langchain_core.load.dump import dumps
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.runnables import Runnable, RunnableConfig, RunnableSequence
from langchain_core.runnables.config import ensure_config
from langchain_core.tracers.log_stream import LogStreamCallbackHandler, RunLog, RunLogPatch
from typing_extensions import override

from turns.debug_runs import Say, added, within
from turns.face import after_the_first
from turns.pieces import with_text
from turns.shown import Redaction, finite

FILTERS: Final = ("include_names", "include_types", "include_tags", "exclude_names", "exclude_types", "exclude_tags")

_END: Final = object()


class Queue:
    """What is told of a run, in its order, from any thread. It is read where it was made."""

    def __init__(self) -> None:
        self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()
        self._items = deque[Any]()
        self._news: asyncio.Future[None] | None = None
        self._is_closed = False

    def put(self, item: Any) -> None:
        if threading.get_ident() == self._thread:
            self._add(item)
        else:
            with suppress(RuntimeError):  # the loop is closed: nobody reads
                self._loop.call_soon_threadsafe(self._add, item)

    def _add(self, item: Any) -> None:
        if self._is_closed:
            return
        self._items.append(item)
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    def close(self) -> None:
        """Nobody reads it any more. A turn may go on for long, and all that it says would be kept."""
        self._is_closed = True
        self._items.clear()

    async def filled_by(self, telling: Coroutine[Any, Any, None]) -> None:
        """Waits for who puts things into it. Then it ends."""
        try:
            await telling
        finally:
            self.put(_END)

    async def __aiter__(self) -> AsyncGenerator[Any, None]:
        while True:
            while self._items:
                item = self._items.popleft()
                if item is _END:
                    return
                yield item
            self._news = self._loop.create_future()
            await self._news


def heard_by(handler: Any, config: RunnableConfig) -> RunnableConfig:
    callbacks = config.get("callbacks")
    if isinstance(callbacks, BaseCallbackManager):
        callbacks = callbacks.copy()
        callbacks.add_handler(handler, inherit=True)
        return {**config, "callbacks": callbacks}
    return {**config, "callbacks": [*(callbacks or ()), handler]}


class _Log(LogStreamCallbackHandler):
    """LangChain's, told of events where they happen: all it does is to put them into a queue."""

    run_inline = True

    def __init__(self, **filters: Any) -> None:
        super().__init__(auto_close=False, _schema_format="original", **filters)
        self.queue = Queue()

    @override
    def send(self, *ops: dict[str, Any]) -> bool:
        self.queue.put(RunLogPatch(*ops))
        return True

    @override
    def __aiter__(self) -> AsyncIterator[Any]:
        return self.queue.__aiter__()

    def hear(self, chunk: Any) -> None:
        """A chunk of the output, of which the log's reader makes a patch."""
        self.queue.put((finite(chunk),))


async def run_log(
    bound: Runnable[Any, Any],
    say: Say,
    value: Any,
    config: RunnableConfig | None,
    redaction: Redaction,
    **kwargs: Any,
) -> AsyncGenerator[RunLogPatch | RunLog, None]:
    """What `Runnable.astream_log` gives of `bound`, which `say` calls, but what is to be hidden.

    What is not its own in `kwargs` is `say`'s. The first patch is held until there is another one.
    """
    async with aclosing(after_the_first(_log(bound, say, value, config, **kwargs))) as patches:
        async for patch in patches:
            if type(patch) is RunLogPatch:
                patch.ops = [{name: redaction.clean(part) for name, part in op.items()} for op in patch.ops]
            yield patch


async def _log(
    bound: Runnable[Any, Any], say: Say, value: Any, config: RunnableConfig | None, **kwargs: Any
) -> AsyncGenerator[RunLogPatch | RunLog, None]:
    diff, output = kwargs.pop("diff", True), _Output(lists=kwargs.pop("with_streamed_output_list", True))
    log = _Log(**{name: kwargs.pop(name, None) for name in FILTERS})
    heard = heard_by(log, ensure_config(config))
    if type(bound) is RunnableSequence:  # anything else makes a run of its own, which is the log's
        telling = within(bound.get_name(), say, log.hear, value, heard, **kwargs)
    else:
        telling = say(log.hear, value, heard, **kwargs)
    task = asyncio.create_task(log.queue.filled_by(telling))
    state = RunLog(state=None)  # type: ignore[arg-type]  # as LangChain begins
    try:
        async for told in log:
            patch = output.patch(*told) if isinstance(told, tuple) else told
            if not diff:
                state += patch
            yield patch if diff else state
    finally:
        log.queue.close()
        with suppress(asyncio.CancelledError):
            await task


class _Output:
    """What has become of a log's output, chunk by chunk."""

    def __init__(self, *, lists: bool) -> None:
        self._lists = lists
        self._output: Any = None
        self._like: dict[str, Any] | None = None
        """A chunk that has added text alone, without its text: one like it adds text alone, too."""

    def patch(self, chunk: Any) -> RunLogPatch:
        """What a chunk changes."""
        before, self._output = self._output, self._added(chunk)
        ops = [{**op, "path": f"/final_output{op['path']}"} for op in _changes(before, self._output)]
        if self._lists:  # nobody changes a text or a message in place
            own = chunk if isinstance(chunk, (str, BaseMessage)) else copy.deepcopy(chunk)
            ops.insert(0, {"op": "add", "path": "/streamed_output/-", "value": own})
        return RunLogPatch(*ops)

    def _added(self, chunk: Any) -> Any:
        before = self._output
        if before is None:
            return chunk
        if type(chunk) is not AIMessageChunk or type(before) is not AIMessageChunk or type(chunk.content) is not str:
            return added(before, chunk)
        rest = {**chunk.__dict__, "content": ""}
        if rest == self._like and not chunk.model_extra:
            return with_text(before, f"{before.content}{chunk.content}")
        after = added(before, chunk)
        is_text = type(after) is AIMessageChunk and after == with_text(before, f"{before.content}{chunk.content}")
        self._like = rest if is_text and not chunk.model_extra else None
        return after


def _changes(before: Any, after: Any) -> Iterable[dict[str, Any]]:
    """The JSON patch from one output to the next."""
    if not isinstance(after, (str, BaseMessage)):
        return iter(jsonpatch.JsonPatch.from_diff(before, after, dumps=dumps))
    return [] if type(before) is type(after) and before == after else [{"op": "replace", "path": "", "value": after}]

"""LangChain's streams of all that happens within a run, `astream_log` and `astream_events`, at less cost.

LangChain sends each token of a log through a thread, copies it deeply, and compares the JSON of the whole output before
and after it; and what stands around the steps of a chain makes a task of each chunk, and adds up all of them.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
from contextlib import aclosing, suppress
from typing import Any, Final

import jsonpatch
from langchain_core.callbacks import BaseCallbackManager
from langchain_core.load.dump import dumps
from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable, RunnableConfig, RunnableSequence
from langchain_core.runnables.config import ensure_config, get_async_callback_manager_for_config, patch_config
from langchain_core.tracers.log_stream import LogStreamCallbackHandler, RunLog, RunLogPatch
from typing_extensions import override

from turns.merging import merged

Say = Callable[..., AsyncGenerator[Any, None]]
"""Called as `astream` is; with `inside=True` within a run around it."""

_FILTERS: Final = ("include_names", "include_types", "include_tags", "exclude_names", "exclude_types", "exclude_tags")


class Around(Runnable[Any, Any]):
    """A run around what is said: it has begun before, and ends when all of it has been heard."""

    def __init__(self, name: str, say: Say) -> None:
        self.name, self._say = name, say

    @override
    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        raise NotImplementedError("It is streamed.")

    @override
    async def astream(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> AsyncIterator[Any]:
        config, said = ensure_config(config), list[Any]()
        run = await get_async_callback_manager_for_config(config).on_chain_start(
            None, {"input": ""}, name=config.get("run_name") or self.name, run_id=config.pop("run_id", None)
        )
        child = patch_config(config, callbacks=run.get_child())
        try:
            async with aclosing(self._say(input, child, inside=True, **kwargs)) as chunks:
                async for chunk in chunks:
                    said.append(chunk)
                    yield chunk
        except GeneratorExit:
            await run.on_chain_end(_sum_of(said), inputs=input)
            raise
        except BaseException as error:
            await run.on_chain_error(error, inputs=input)
            raise
        await run.on_chain_end(_sum_of(said), inputs=input)


def _sum_of(chunks: list[Any]) -> Any:
    """All chunks as LangChain adds them up, in one step where that comes to the same; several messages as a list."""
    if not chunks:
        return None
    if all(isinstance(chunk, str) for chunk in chunks):
        return "".join(chunks)
    first, *rest = chunks
    if rest and all(isinstance(chunk, BaseMessage) for chunk in chunks):
        return merged(chunks)
    for chunk in rest:
        first = _added(first, chunk)
    return first


def _added(so_far: Any, chunk: Any) -> Any:
    both = [*(so_far if isinstance(so_far, list) else [so_far]), chunk]
    if all(isinstance(one, BaseMessage) for one in both):
        return merged(both)  # `+` makes a prompt of several messages
    try:
        return so_far + chunk
    except TypeError:
        return chunk


def steps(bound: Runnable[Any, Any], value: Any, config: RunnableConfig, **kwargs: Any) -> AsyncIterator[Any]:
    """What `bound.astream` gives within a run that stands for its own: its steps are steps of that one."""
    manager = config.get("callbacks")
    if type(bound) is not RunnableSequence or not isinstance(manager, BaseCallbackManager):
        return bound.astream(value, config, **kwargs)
    chunks: AsyncIterator[Any] = _one(value)
    for place, step in enumerate(bound.steps, 1):
        of_step = manager.copy()
        of_step.add_tags([f"seq:step:{place}"], inherit=False)
        chunks = step.atransform(chunks, patch_config(config, callbacks=of_step), **(kwargs if place == 1 else {}))
    return chunks


async def _one(value: Any) -> AsyncIterator[Any]:
    yield value


class _Log(LogStreamCallbackHandler):
    """LangChain's, told of events where they happen: all it does is to put them into a queue."""

    run_inline = True


async def run_log(
    bound: Runnable[Any, Any], say: Say, value: Any, config: RunnableConfig | None, **kwargs: Any
) -> AsyncGenerator[RunLogPatch | RunLog, None]:
    """What `Runnable.astream_log` gives of `bound`, which `say` calls. What is not its own in `kwargs` is `say`'s."""
    diff, lists = kwargs.pop("diff", True), kwargs.pop("with_streamed_output_list", True)
    filters = {name: kwargs.pop(name, None) for name in _FILTERS}
    log = _Log(auto_close=False, _schema_format="original", **filters)
    heard = _heard_by(log, ensure_config(config))
    if type(bound) is RunnableSequence:  # anything else makes a run of its own, which is the log's
        chunks = Around(bound.get_name(), say).astream(value, heard, **kwargs)
    else:
        chunks = say(value, heard, **kwargs)
    task = asyncio.create_task(_write(log, chunks, lists=lists))
    state = RunLog(state=None)  # type: ignore[arg-type]  # as LangChain begins
    try:
        async for patch in log:
            if not diff:
                state += patch
            yield patch if diff else state
    finally:
        with suppress(asyncio.CancelledError):
            await task


def _heard_by(log: _Log, config: RunnableConfig) -> RunnableConfig:
    callbacks = config.get("callbacks")
    if isinstance(callbacks, BaseCallbackManager):
        callbacks = callbacks.copy()
        callbacks.add_handler(log, inherit=True)
        return {**config, "callbacks": callbacks}
    return {**config, "callbacks": [*(callbacks or ()), log]}


async def _write(log: _Log, chunks: AsyncIterator[Any], *, lists: bool) -> None:
    """Writes down each chunk, and what has become of the output by it."""
    output: Any = None
    try:
        async for chunk in chunks:
            before, output = output, chunk if output is None else _added(output, chunk)
            ops = [{**op, "path": f"/final_output{op['path']}"} for op in _changes(before, output)]
            if lists:  # nobody changes a text or a message in place
                own = chunk if isinstance(chunk, (str, BaseMessage)) else copy.deepcopy(chunk)
                ops.insert(0, {"op": "add", "path": "/streamed_output/-", "value": own})
            await log.send_stream.send(RunLogPatch(*ops))
    finally:
        await log.send_stream.aclose()


def _changes(before: Any, after: Any) -> Iterable[dict[str, Any]]:
    """The JSON patch from one output to the next."""
    if not isinstance(after, (str, BaseMessage)):
        return iter(jsonpatch.JsonPatch.from_diff(before, after, dumps=dumps))
    return [] if type(before) is type(after) and before == after else [{"op": "replace", "path": "", "value": after}]

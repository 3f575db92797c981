"""The runs around a turn and its steps, as LangChain tells of them in `astream_log` and `astream_events`.

LangChain makes a task of each chunk of each step, and `StrOutputParser` sends each through a thread.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import aclosing
from typing import Any

from langchain_core.callbacks import BaseCallbackManager
from langchain_core.messages import BaseMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import Runnable, RunnableConfig, RunnableSequence
from langchain_core.runnables.config import ensure_config, get_async_callback_manager_for_config, patch_config
from langchain_core.tracers._streaming import _StreamingCallbackHandler  # private; pinned with langchain-core

from turns.merging import merged
from turns.quiet import text_of

Hear = Callable[[Any], None]
"""Is told of a chunk at once."""

Say = Callable[..., Coroutine[Any, Any, None]]
"""Called with who is to hear of each chunk, the input and the config; `inside=True` within a run around it. Returns
when all has been said and is durable."""

_NOTHING = object()


async def within(name: str, say: Say, hear: Hear, value: Any, config: RunnableConfig, **kwargs: Any) -> None:
    """Has it said within a run around it, which begins before, and ends when all is durable."""
    config, said = ensure_config(config), list[Any]()
    run = await get_async_callback_manager_for_config(config).on_chain_start(
        None, {"input": ""}, name=config.get("run_name") or name, run_id=config.pop("run_id", None)
    )

    def heard(chunk: Any) -> None:
        said.append(chunk)
        hear(chunk)

    try:
        await say(heard, value, patch_config(config, callbacks=run.get_child()), inside=True, **kwargs)
    except BaseException as error:
        await run.on_chain_error(error, inputs=value)
        raise
    await run.on_chain_end(sum_of(said), inputs=value)


def steps(bound: Runnable[Any, Any], value: Any, config: RunnableConfig, **kwargs: Any) -> AsyncIterator[Any]:
    """What `bound.astream` gives within a run that stands for its own: its steps are steps of that one."""
    manager = config.get("callbacks")
    if type(bound) is not RunnableSequence or not isinstance(manager, BaseCallbackManager):
        return bound.astream(value, config, **kwargs)
    chunks: AsyncIterator[Any] = _one(value)
    for place, step in enumerate(bound.steps, 1):
        of_step = manager.copy()
        of_step.add_tags([f"seq:step:{place}"], inherit=False)
        own = patch_config(config, callbacks=of_step)
        if type(step) is StrOutputParser and place > 1:
            chunks = _parsed(step, chunks, own)
        else:
            chunks = step.atransform(chunks, own, **(kwargs if place == 1 else {}))
    return chunks


async def _one(value: Any) -> AsyncIterator[Any]:
    yield value


async def _parsed(
    parser: StrOutputParser, chunks: AsyncIterator[Any], config: RunnableConfig
) -> AsyncGenerator[str, None]:
    """What the parser's `atransform` gives, and those who listen to its run are told."""
    first = await anext(chunks, _NOTHING)  # LangChain lets the step before it begin first
    run = await get_async_callback_manager_for_config(config).on_chain_start(
        None,
        {"input": ""},
        run_type="parser",
        name=config.get("run_name") or parser.get_name(),
        run_id=config.pop("run_id", None),
    )
    said, parsed = list[Any](), list[Any]()

    async def texts() -> AsyncGenerator[Any, None]:
        if first is not _NOTHING:
            said.append(first)
            yield _text_of(first)
        async for chunk in chunks:
            said.append(chunk)
            yield _text_of(chunk)

    listener = next((one for one in run.handlers if isinstance(one, _StreamingCallbackHandler)), None)
    told: Any = texts() if listener is None else listener.tap_output_aiter(run.run_id, texts())
    try:
        async with aclosing(told):
            async for text in told:
                parsed.append(text)
                yield text
    except BaseException as error:
        await run.on_chain_error(error, inputs=sum_of(said))
        raise
    await run.on_chain_end(sum_of(parsed), inputs=sum_of(said))


def _text_of(chunk: Any) -> str:
    """As LangChain has it: a message's own text is of a class of its own, which shows in a log."""
    is_text = isinstance(chunk, BaseMessage) and isinstance(chunk.content, str)
    return chunk.text if is_text else text_of(chunk)


def sum_of(chunks: list[Any]) -> Any:
    """All chunks as LangChain adds them up, in one step where that comes to the same; several messages as a list."""
    if not chunks:
        return None
    if all(isinstance(chunk, str) for chunk in chunks):
        return "".join(chunks)
    first, *rest = chunks
    if rest and all(isinstance(chunk, BaseMessage) for chunk in chunks):
        return merged(chunks)
    for chunk in rest:
        first = added(first, chunk)
    return first


def added(so_far: Any, chunk: Any) -> Any:
    """A chunk added to what was said before it; in its place, if it can't be added."""
    both = [*(so_far if isinstance(so_far, list) else [so_far]), chunk]
    if all(isinstance(one, BaseMessage) for one in both):
        return merged(both)  # `+` makes a prompt of several messages
    try:
        return so_far + chunk
    except TypeError:
        return chunk

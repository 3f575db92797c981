"""Running a sequence of steps without telling anybody of each of them.

`RunnableSequence` makes a run of itself: it adds up its output chunk by chunk, and makes a task of each chunk, for the
callbacks that are told of it in the end. When nobody listens, that is two thirds of what a stream costs.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGeneration, Generation
from langchain_core.prompt_values import ChatPromptValue
from langchain_core.prompts import BasePromptTemplate, ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableConfig, RunnableSequence
from langchain_core.runnables.config import ensure_config, get_async_callback_manager_for_config

from turns.quiet_model import asked, may_be_asked, streamed
from turns.quiet_prompt import filled

Note = Callable[[BaseMessage], None]
"""Is told of each message, or part of one, that a chat model among the steps says."""


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps to be called one after another, and their config: one, the runnable itself, if somebody listens to it.

    `only_read`: none of them changes a message that it is given.
    """

    each: Sequence[Runnable[Any, Any]]
    config: RunnableConfig
    only_read: bool = False

    @property
    def say_usage(self) -> bool:
        """Whether `note` will be told of what a chat model says, so that nobody has to listen for it."""
        return any(isinstance(step, BaseChatModel) for step in self.each[1:])


def steps_of(bound: Runnable[Any, Any], config: RunnableConfig) -> Steps:
    """How to call `bound`."""
    if type(bound) is RunnableSequence:
        config = ensure_config(config)  # an outer run's callbacks may be in the context
        if not get_async_callback_manager_for_config(config).handlers:
            config.pop("run_id", None)  # these were the sequence's own
            config.pop("run_name", None)
            return Steps(bound.steps, config, all(map(_only_reads, bound.steps)))
    return Steps([bound], config)


def _only_reads(step: Runnable[Any, Any]) -> bool:
    """Whether a step plainly leaves messages that it is given as they are. A model says so itself."""
    if type(step) is ChatPromptTemplate:
        return all(type(part).__module__.startswith("langchain_core.") for part in step.messages)
    return type(step) is StrOutputParser or (getattr(step, "only_reads", False) is True and may_be_asked(step))


async def invoke(steps: Steps, value: Any, note: Note | None = None, **kwargs: Any) -> Any:
    """What the `ainvoke` of the runnable gives whose steps these are."""
    (first, *rest), config = steps.each, steps.config
    value = await _first(first, value, config, kwargs)
    for step in rest:
        if type(step) is StrOutputParser:
            value = text_of(value)
        else:
            value = await (asked(step, value) if may_be_asked(step) else step.ainvoke(value, config))
        if note is not None and isinstance(step, BaseChatModel):
            note(value)
    return value


async def stream(steps: Steps, value: Any, note: Note | None = None, **kwargs: Any) -> AsyncIterator[Any]:
    """What its `astream` gives."""
    (first, *rest), config = steps.each, steps.config
    chunks: AsyncIterator[Any]
    if rest and isinstance(first, BasePromptTemplate):
        prompt = await _first(first, value, config, kwargs)
        first, *rest = rest
        said = streamed(first, prompt) if may_be_asked(first) else first.astream(prompt, config)
        chunks = _noted(first, said, note)
    else:
        chunks = first.astream(value, config, **kwargs)
    for step in rest:
        said = _texts_of(chunks) if type(step) is StrOutputParser else step.atransform(chunks, config)
        chunks = _noted(step, said, note)
    async for chunk in chunks:
        yield chunk


async def _first(step: Runnable[Any, Any], value: Any, config: RunnableConfig, kwargs: dict[str, Any]) -> Any:
    """The first step's output. A prompt is filled in without the run that it makes of itself."""
    if type(step) is ChatPromptTemplate and isinstance(value, dict) and not kwargs:
        # Without a look at each message again: the past is long, and all of them are messages.
        return ChatPromptValue.model_construct(messages=await filled(step, value))
    if isinstance(step, BasePromptTemplate) and isinstance(value, dict) and not kwargs:
        return await step.aformat_prompt(**value)
    return await step.ainvoke(value, config, **kwargs)


def _noted(step: Runnable[Any, Any], chunks: AsyncIterator[Any], note: Note | None) -> AsyncIterator[Any]:
    return chunks if note is None or not isinstance(step, BaseChatModel) else _tapped(chunks, note)


async def _tapped(chunks: AsyncIterator[Any], note: Note) -> AsyncIterator[Any]:
    async for chunk in chunks:
        note(chunk)
        yield chunk


async def _texts_of(chunks: AsyncIterator[Any]) -> AsyncIterator[str]:
    """What `StrOutputParser` gives. It sends each chunk through a thread, and adds up all that came before it."""
    async for chunk in chunks:
        yield text_of(chunk)


def text_of(value: Any) -> str:
    if not isinstance(value, BaseMessage):
        return Generation(text=value).text  # or says that it is none
    return value.content if isinstance(value.content, str) else ChatGeneration(message=value).text

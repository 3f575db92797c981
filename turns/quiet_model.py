"""Asking a chat model of which nobody listens to the run: what it says is the same, without what callbacks are told.

`BaseChatModel` gathers what each run is called with, keeps all chunks of a reply and adds them up for who hears of its
end, and asks in a task of its own: half of what a short turn costs, and most of the memory of a stream.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import cache
from typing import Any, Final, TypeGuard

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun
from langchain_core.globals import get_llm_cache
from langchain_core.language_models import BaseChatModel
from langchain_core.language_models._utils import _normalize_messages
from langchain_core.language_models.chat_models import _gen_info_and_msg_metadata
from langchain_core.messages import LC_ID_PREFIX, AIMessageChunk, BaseMessage
from langchain_core.utils._signature import _signature_parameters

from histories.base import new_uuid

_OWN: Final = ("ainvoke", "astream", "agenerate", "agenerate_prompt", "_agenerate_with_cache", "_convert_input")
"""What is done here in LangChain's place. A model that does some of it otherwise is asked by its own methods."""


def may_be_asked(model: object) -> TypeGuard[BaseChatModel]:
    """Whether `asked` and `streamed` give what the model's own methods do, if no config names somebody who listens."""
    if not isinstance(model, BaseChatModel) or not _is_usual(type(model)):
        return False
    return not (model.callbacks or model.verbose or model.output_version == "v1")


@cache
def _is_usual(kind: type[BaseChatModel]) -> bool:
    return all(getattr(kind, name) is getattr(BaseChatModel, name) for name in _OWN)


async def asked(model: BaseChatModel, value: Any) -> BaseMessage:
    """What `model.ainvoke(value)` gives. `value` is a prompt, messages, or whatever can be made messages."""
    manager = AsyncCallbackManagerForLLMRun(
        run_id=new_uuid(),
        handlers=[],
        inheritable_handlers=[],
        tags=[],
        inheritable_tags=[],
        metadata={},
        inheritable_metadata={},
    )
    messages = _messages(model, value)
    # Private, as some functions above are; held against `ainvoke` in a test.
    is_cached = model.cache or get_llm_cache() is not None
    if is_cached or model.rate_limiter or model._should_stream(async_api=True):
        result = await model._agenerate_with_cache(messages, run_manager=manager)
        return result.generations[0].message
    told: dict[str, Any] = {"run_manager": manager} if _takes_manager(type(model)) else {}
    result = await model._agenerate(messages, **told)
    generation = result.generations[0]
    message = generation.message
    if message.id is None:
        message.id = f"{LC_ID_PREFIX}-{manager.run_id}-0"
    message.response_metadata = _gen_info_and_msg_metadata(generation)
    if len(result.generations) == 1 and result.llm_output is not None:
        message.response_metadata = {**result.llm_output, **message.response_metadata}
    return message


@cache
def _takes_manager(kind: type[BaseChatModel]) -> bool:
    return "run_manager" in _signature_parameters(kind._agenerate)


async def streamed(model: BaseChatModel, value: Any) -> AsyncIterator[BaseMessage]:
    """What `model.astream(value)` gives."""
    if not model._should_stream(async_api=True, stream=True):
        yield await asked(model, value)
        return
    messages = _messages(model, value)
    if model.rate_limiter:
        await model.rate_limiter.aacquire(blocking=True)
    name = f"{LC_ID_PREFIX}-{new_uuid()}"
    last: BaseMessage | None = None
    async for chunk in model._astream(messages):
        last = chunk.message
        if last.id is None:
            last.id = name
        if chunk.generation_info or last.response_metadata:
            last.response_metadata = _gen_info_and_msg_metadata(chunk)
        yield last
    if last is None:
        raise ValueError("No generation chunks were returned")
    if isinstance(last, AIMessageChunk) and not last.chunk_position:
        empty: Any = "" if isinstance(last.content, str) else []
        yield AIMessageChunk(content=empty, chunk_position="last", id=name)


def _messages(model: BaseChatModel, value: Any) -> list[BaseMessage]:
    if not isinstance(value, list) or not all(isinstance(one, BaseMessage) for one in value):
        value = model._convert_input(value).to_messages()
    return _normalize_messages(value)

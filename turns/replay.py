"""A turn that is on the record, said again."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.runnables import RunnableConfig, RunnableGenerator

from histories.base import Turn
from turns.errors import WrongChain
from turns.outputs import output_of


def replayed(turn: Turn, chain_name: str, output_messages_key: str | None) -> Any:
    """What the turn's chain gave, in the shape in which it gave it.

    Raises `WrongChain` if that was another chain than this one.
    """
    if turn.chain != chain_name and turn.chain:
        raise WrongChain(f"A turn of this turn_id was answered by /{turn.chain}: give this one another turn_id.")
    return output_of(turn, output_messages_key)


async def replaying(
    outputs: Sequence[Any], input: Any, config: RunnableConfig, *, streaming: bool
) -> AsyncGenerator[Any, None]:
    """The outputs, as a run of its own, so that every endpoint shows it as it shows others."""

    async def say(_: AsyncIterator[Any]) -> AsyncIterator[Any]:
        for one in outputs:
            yield AIMessageChunk(**one.model_dump(exclude={"type"})) if streaming and _is_whole(one) else one

    async for chunk in RunnableGenerator(say).astream(input, config):
        yield chunk


def _is_whole(message: Any) -> bool:
    return isinstance(message, AIMessage) and not isinstance(message, AIMessageChunk)

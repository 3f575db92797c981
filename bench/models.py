"""The models of the benchmark: what they say is always the same, so that only the server around them is measured."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from typing_extensions import override

TOKENS = [f"word{place:02d} " for place in range(60)]
"""What every model of the benchmark says: 60 tokens."""


class TimedModel(BaseChatModel):
    """A model inside the process that needs `seconds_per_token`, 0 by default: instant."""

    seconds_per_token: float = 0.0

    @property
    @override
    def _llm_type(self) -> str:
        return "timed"

    @override
    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=AIMessage("".join(TOKENS)))])

    @override
    async def _agenerate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        if self.seconds_per_token:
            await asyncio.sleep(self.seconds_per_token * len(TOKENS))
        return self._generate(messages)

    @override
    async def _astream(
        self, messages: list[BaseMessage], *args: Any, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        for token in TOKENS:
            if self.seconds_per_token:
                await asyncio.sleep(self.seconds_per_token)
            yield ChatGenerationChunk(message=AIMessageChunk(content=token))


def open_model(name: str) -> BaseChatModel:
    """The model of that name: `instant`, `slow` (20 tokens/s), or the URL of a server that speaks OpenAI's protocol."""
    if name == "instant":
        return TimedModel()
    if name == "slow":
        return TimedModel(seconds_per_token=0.05)
    os.environ.setdefault("OPENAI_API_KEY", "none")
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(model_name="stub", openai_api_base=name, max_retries=0)

"""A chat model that says what it was shown, so that a test sees what a chain remembers. In process, without HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import Field, PrivateAttr
from typing_extensions import override

USAGE = UsageMetadata(input_tokens=7, output_tokens=3, total_tokens=10)


def heard(messages: Sequence[BaseMessage]) -> str:
    """What an `EchoModel` answers: all that people said, as in "one, two, three."."""
    return ", ".join(str(message.text) for message in messages if isinstance(message, HumanMessage)) + "."


class EchoModel(BaseChatModel):
    """Answers with `heard`, word by word. What it was shown is in `prompts`.

    `pause` is awaited before each word with the number of words said so far: it may wait, or raise.
    """

    pause: Callable[[int], Any] | None = None
    prompts: list[list[BaseMessage]] = Field(default_factory=list)
    _running: int = PrivateAttr(default=0)

    @property
    def running(self) -> int:
        """How many answers are being given at the moment."""
        return self._running

    @property
    @override
    def _llm_type(self) -> str:
        return "echo"

    @override
    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        self.prompts.append(messages)
        return ChatResult(generations=[ChatGeneration(message=AIMessage(heard(messages), usage_metadata=USAGE))])

    @override
    async def _agenerate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        self._running += 1
        try:
            await self._wait(0)
            return self._generate(messages)
        finally:
            self._running -= 1

    @override
    async def _astream(
        self, messages: list[BaseMessage], *args: Any, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        self.prompts.append(messages)
        self._running += 1
        try:
            words = heard(messages).split(" ")
            for said, word in enumerate(words):
                await self._wait(said)
                text = word if said == 0 else f" {word}"
                yield ChatGenerationChunk(message=AIMessageChunk(content=text))
            yield ChatGenerationChunk(message=AIMessageChunk(content="", usage_metadata=USAGE))
        finally:
            self._running -= 1

    async def _wait(self, said: int) -> None:
        if self.pause is not None:
            waiting = self.pause(said)
            if asyncio.iscoroutine(waiting):
                await waiting

"""What the models of a turn tell beside their text: tokens, why they ended, what they thought."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import LLMResult
from typing_extensions import override

from histories.base import Usage

_REASONS: Final = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "eos": "stop",
    "max_tokens": "length",
    "model_length": "length",
    "safety": "content_filter",
    "recitation": "content_filter",
    "prohibited_content": "content_filter",
    "tool_use": "tool_calls",
    "function_call": "tool_calls",
}
"""How vendors call what OpenAI calls otherwise."""


class ModelNotes(BaseCallbackHandler):
    """Notes what all model calls of a turn tell, for chains whose output does not."""

    run_inline = True

    def __init__(self) -> None:
        self.heard = False
        self.usage: Usage | None = None
        self.finish_reason: str | None = None
        self.reasoning: list[str] = []
        self._refused = set[str]()

    @override
    def on_llm_end(self, response: LLMResult, **kwargs: Any) -> None:
        said = [getattr(generation, "message", None) for batch in response.generations for generation in batch]
        for message in said:
            if isinstance(message, BaseMessage):
                self.note(message)

    def note(self, message: BaseMessage) -> None:
        """Notes what this message, or part of one, says of tokens, reasons and thoughts."""
        if not isinstance(message, AIMessage):
            return
        self.heard = True
        if message.usage_metadata is not None:
            usage = usage_of([message])
            self.usage = usage if self.usage is None or usage is None else _added(self.usage, usage)
        reason = finish_reason_of(message)
        if message.id is not None:
            if reason == "refusal":
                self._refused.add(message.id)
            elif message.id in self._refused:  # of a message in parts, the last one says that it has stopped
                reason = "refusal"
        self.finish_reason = reason or self.finish_reason
        thought = reasoning_of(message)
        if thought:
            self.reasoning.append(thought)


def _added(one: Usage, other: Usage) -> Usage:
    return Usage(
        input_tokens=one["input_tokens"] + other["input_tokens"],
        output_tokens=one["output_tokens"] + other["output_tokens"],
        total_tokens=one["total_tokens"] + other["total_tokens"],
    )


def usage_of(messages: Sequence[BaseMessage]) -> Usage | None:
    total: Usage | None = None
    for message in messages:
        counted = message.usage_metadata if isinstance(message, AIMessage) else None
        if counted is not None:
            usage = Usage(
                input_tokens=counted["input_tokens"],
                output_tokens=counted["output_tokens"],
                total_tokens=counted["total_tokens"],
            )
            total = usage if total is None else _added(total, usage)
    return total


def finish_reason_of(message: BaseMessage) -> str | None:
    """Why the model ended, in OpenAI's words: stop, length, content_filter, tool_calls, refusal, …"""
    if message.additional_kwargs.get("refusal"):
        return "refusal"
    told = message.response_metadata
    reason = told.get("finish_reason") or told.get("stop_reason") or told.get("done_reason")
    if not isinstance(reason, str) or not reason:
        return None
    plain = reason.rpartition(".")[2].lower()[:40]  # of Google's enums, the name alone
    return _REASONS.get(plain, plain)


def reasoning_of(message: BaseMessage) -> str:
    """What the model thought, where it tells: DeepSeek's and vLLM's `reasoning_content`, or blocks of reasoning."""
    thought = message.additional_kwargs.get("reasoning_content") if message.additional_kwargs else None
    if isinstance(thought, str) and thought:
        return thought
    if isinstance(message.content, str):
        return ""
    return "".join(_thought(part) for part in message.content if isinstance(part, dict))


def _thought(part: dict[str, Any]) -> str:
    if part.get("type") not in ("reasoning", "thinking"):
        return ""
    said = part.get("reasoning") or part.get("thinking") or part.get("text")
    if said is None and isinstance(part.get("summary"), list):
        said = "\n".join(str(one.get("text", "")) for one in part["summary"] if isinstance(one, dict))
    return said if isinstance(said, str) else ""

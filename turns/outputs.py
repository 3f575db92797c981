"""What of a chain's output goes on the record: its shape, so that it can be given again, and what it cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import LLMResult
from typing_extensions import override

from histories.base import Turn, Usage


class UsageCounter(BaseCallbackHandler):
    """Adds up the tokens of all model calls of a turn, for chains whose output does not tell them."""

    run_inline = True

    def __init__(self) -> None:
        self.total: Usage | None = None

    @override
    def on_llm_end(self, response: LLMResult, **kwargs: Any) -> None:
        said = [getattr(generation, "message", None) for batch in response.generations for generation in batch]
        for message in said:
            if isinstance(message, BaseMessage):
                self.note(message)

    def note(self, message: BaseMessage) -> None:
        """Counts what this message, or part of one, says of tokens."""
        usage = usage_of([message])
        if usage is not None:
            self.total = usage if self.total is None else _added(self.total, usage)


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


def kind_of(output: Any) -> str:
    """The shape of an output, so that a turn on the record can be answered in the same one."""
    if isinstance(output, Mapping):
        return f"dict:{kind_of(next(iter(output.values()), None))}" if len(output) == 1 else "dict"
    return "text" if isinstance(output, str) else "message" if isinstance(output, BaseMessage) else "messages"


def output_of(turn: Turn, key: str | None) -> Any:
    """The output that a turn on the record had: of a dictionary, the messages alone were kept."""
    messages = list(turn.output)
    kind = turn.kind.removeprefix("dict").removeprefix(":")
    value: Any = messages
    if kind == "text":
        value = "".join(str(message.text) for message in messages)
    elif kind != "messages" and len(messages) == 1:
        value = messages[0]
    return {key or "output": value} if turn.kind.startswith("dict") else value

"""What the stub of OpenAI's chat completions puts on the wire."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.stub_server import Wire


def tokens_of(text: str) -> list[str]:
    """The text in pieces: each word with the white space that follows it."""
    return re.findall(r"\S+\s*|^\s+", text)


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply: text, or calls of tools by name and arguments, or a refusal."""

    content: str | None = None
    tool_calls: Sequence[tuple[str, Mapping[str, Any]]] = ()
    refusal: str | None = None

    @property
    def tokens(self) -> list[str]:
        """Its words, those of the refusal if there is one."""
        return tokens_of(self.refusal or self.content or "")

    @property
    def calls(self) -> list[dict[str, Any]]:
        """The tool calls as OpenAI writes them."""
        return [
            {"id": f"call_{i}", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
            for i, (name, arguments) in enumerate(self.tool_calls)
        ]


@dataclass(frozen=True, slots=True)
class Habits:
    """What servers do each in its own way: see the stub's special words."""

    finish: str | None = None
    think: str | None = None
    unended: bool = False
    counts: bool = False


class Completion:
    """A reply that is sent when it is complete."""

    def __init__(
        self, wire: Wire, body: Mapping[str, Any], reply: Reply, prompt_tokens: int, habits: Habits = Habits()
    ) -> None:
        self.wire, self.body, self.reply, self.habits = wire, body, reply, habits
        made = len(reply.tokens)
        self.usage = {"prompt_tokens": prompt_tokens, "completion_tokens": made, "total_tokens": prompt_tokens + made}
        self.finish = habits.finish or ("tool_calls" if reply.tool_calls else "stop")
        self.said = 0

    def envelope(self, kind: str, **rest: Any) -> dict[str, Any]:
        model = self.body.get("model", "stub")
        return {"id": "chatcmpl-stub", "object": kind, "created": int(time.time()), "model": model, **rest}

    async def token(self, text: str) -> None:
        """One more token."""

    async def comments(self, count: int) -> None:
        """So many signs of life."""

    async def event(self, data: str) -> None:
        """Something else than a token, in the middle: all that is sent."""
        await self.wire.text(200, data)
        raise ConnectionAbortedError("the reply has ended")

    async def cut(self) -> None:
        """Breaks the connection in the middle of the body: uvicorn does it when an application fails there."""
        await self.wire.start(200, "application/json", {"content-length": "1000"})
        await self.wire.write("{", more=True)
        raise ConnectionResetError("the connection is to break")

    async def end(self) -> None:
        reply = self.reply
        message = {"role": "assistant", "content": reply.content, "refusal": reply.refusal}
        if self.habits.think:
            message["reasoning_content"] = self.habits.think
        if reply.tool_calls:
            message["tool_calls"] = reply.calls  # type: ignore[assignment]
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": self.finish}
        await self.wire.json(200, self.envelope("chat.completion", choices=[choice], usage=self.usage))


class _Streamed(Completion):
    """A reply in server-sent events."""

    started = False

    async def begin(self) -> None:
        if not self.started:
            self.started = True
            await self.wire.start(200, "text/event-stream")

    async def event(self, data: str) -> None:
        await self.begin()
        await self.wire.write(f"data: {data}\n\n", more=True)

    async def cut(self) -> None:
        await self.begin()
        raise ConnectionResetError("the connection is to break")

    async def chunk(self, delta: Mapping[str, Any], finish: str | None = None) -> None:
        if not self.started:
            delta = {"role": "assistant", **delta}
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        so_far = {"usage": self.usage} if self.habits.counts else {}
        await self.event(json.dumps(self.envelope("chat.completion.chunk", choices=[choice], **so_far)))

    async def comments(self, count: int) -> None:
        for _ in range(count):
            await self.begin()
            await self.wire.write(": PROCESSING\n\n", more=True)

    async def token(self, text: str) -> None:
        if self.habits.think and not self.said:
            await self.chunk({"reasoning_content": self.habits.think})
        self.said += 1
        await self.chunk({"refusal" if self.reply.refusal else "content": text})

    async def end(self) -> None:
        for index, call in enumerate(self.reply.calls):
            function = call["function"]
            first = {**call, "index": index, "function": {**function, "arguments": ""}}
            await self.chunk({"tool_calls": [first]})
            for piece in re.findall(r".{1,6}", function["arguments"]):
                await self.chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
        if self.habits.unended:
            await self.begin()
            await self.wire.write("", more=False)
            return
        await self.chunk({}, self.finish)
        if (self.body.get("stream_options") or {}).get("include_usage"):
            await self.event(json.dumps(self.envelope("chat.completion.chunk", choices=[], usage=self.usage)))
        await self.event("[DONE]")
        await self.wire.write("", more=False)


def completion(
    wire: Wire, body: Mapping[str, Any], reply: Reply, prompt_tokens: int, habits: Habits = Habits()
) -> Completion:
    """The reply's way out, streamed or whole as the request asked."""
    return (_Streamed if body.get("stream") else Completion)(wire, body, reply, prompt_tokens, habits)

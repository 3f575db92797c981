"""A server that speaks OpenAI's chat completions over real HTTP, and does what a test asks of it.

    with OpenAIStub() as stub:
        model = ChatOpenAI(base_url=stub.base_url, api_key="none", model="stub")

By default the reply repeats all that the model was shown of the user, so that a test of memory can look for it:
`You said: two. I have seen 2 user messages: one | two`. `stub.reply` may be any other function of the messages.

What goes wrong, or slowly, is a `Behaviour`. A test in the same process gives it to `stub.behave`; any client can also
put it as special words into the last user message, which is how tests drive a stub in another process, started with
`python -m tests.openai_stub --port 0`:

    [[n 60]]         a reply of 60 tokens                 [[fail 429]]     that status
    [[slow 0.1]]     seconds before each token            [[retry 7]]      with that Retry-After
    [[cut 3]]        the connection breaks after 3        [[hang]]         never answers
    [[bad 3]]        3 tokens, then no JSON               [[tool name]]    a call of that tool
    [[error 3]]      3 tokens, then an error event        [[refuse]]       a refusal
    [[stall 3]]      3 tokens, then silence               [[null]]         no content at all
    [[finish length]] that finish_reason                  [[think why]]    that reasoning_content first
    [[unended]]      neither finish_reason nor [DONE]     [[counts]]       the usage so far with each chunk
    [[whole]]        a stream is one whole JSON           [[strict]]       refuses stream_options
    [[calls 2]]      so many calls of one tool            [[processing 3]] so many comments before the reply

Methods that wait block their thread for as long: from a coroutine, call them with `asyncio.to_thread`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import threading
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple

from tests.openai_stub_wire import Habits, Reply, completion, tokens_of
from tests.stub_server import StubServer, Wire

Messages = Sequence[Mapping[str, Any]]
_WORD = re.compile(r"\[\[(\w+)(?: ([^\]]+))?\]\]")


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How a request is answered. Numbers of tokens count from the start of the reply; 0 is before anything is sent."""

    fail: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str | None = None
    retry: str | None = None
    hang: bool = False
    slow: float = 0.0
    cut: int | None = None
    bad: int | None = None
    error: int | None = None
    stall: int | None = None
    n: int | None = None
    tool: str | None = None
    refuse: bool = False
    null: bool = False
    finish: str | None = None
    think: str | None = None
    unended: bool = False
    counts: bool = False
    whole: bool = False
    strict: bool = False
    calls: int = 1
    processing: int = 0

    def with_words(self, text: str) -> Behaviour:
        """This, changed by the special words in a text."""
        kinds = {one.name: str(one.type) for one in fields(self)}
        changes: dict[str, Any] = {}
        for word, value in _WORD.findall(text):
            kind = kinds.get(word, "")
            if kind == "bool":
                changes[word] = True
            elif kind.startswith(("int", "float")):
                changes[word] = float(value) if kind == "float" else int(value)
            elif kind.startswith("str"):
                changes[word] = value
        return replace(self, **changes)


class Recorded(NamedTuple):
    """A request as it came."""

    body: dict[str, Any]
    headers: dict[str, str]

    @property
    def messages(self) -> list[dict[str, Any]]:
        return list(self.body["messages"])


class Gate:
    """Holds every reply after so many tokens, until it is released."""

    def __init__(self, after: int) -> None:
        self.after = after
        self._waiting = 0
        self._changed = threading.Condition()
        self._released = Future[None]()

    def wait(self, timeout: float = 60, *, times: int = 1) -> None:
        """Returns when so many replies have come this far; raises `TimeoutError` otherwise."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._waiting >= times, timeout):
                raise TimeoutError(f"{self._waiting} replies came to the gate, not {times}")

    def release(self) -> None:
        """Lets all replies go on, those to come too."""
        if not self._released.done():
            self._released.set_result(None)

    async def pass_through(self, sent: int) -> None:
        if sent == self.after and not self._released.done():
            with self._changed:
                self._waiting += 1
                self._changed.notify_all()
            await asyncio.shield(asyncio.wrap_future(self._released))


_MEANS = {"puppy": "dog", "hound": "dog", "automobile": "car", "physician": "doctor", "residence": "house"}
"""Words that mean the same to the stub's embeddings."""


def hashed_words(text: str) -> list[float]:
    """A vector in which each word, or what it means, has a place of its own, nearly: nothing is left to chance."""
    vector = [0.0] * 256
    for word in re.findall(r"\w+", text.lower()):
        vector[zlib.crc32(_MEANS.get(word, word).encode()) % 256] += 1.0
    return vector if any(vector) else [1.0] * 256


class OpenAIStub(StubServer):
    """The server, as a context manager; see the module. All attributes may be changed while it runs."""

    def __init__(self, *, port: int = 0) -> None:
        self.requests: list[Recorded] = []
        self.reply: Callable[[Messages], str | Reply] = echo
        self.context: int | None = None
        """How many tokens it reads at once: a longer prompt is refused, as OpenAI does. See `counted`."""

        self.model: dict[str, Any] = {"id": "stub", "object": "model", "owned_by": "stub"}
        self.times_asked_for_models = 0
        self.embeds: Callable[[str], list[float]] = hashed_words
        """The vector of a text, for `/v1/embeddings`."""

        self.embedded: list[str] = []
        self.embeddings_status = 200
        self.embeddings_delay_s = 0.0
        self.delay_s = 0.0
        self.gate: Gate | None = None
        self.cancelled_at: list[float] = []
        self.active = self.most_active = 0
        self._lock = threading.Condition()
        self._coming: list[Behaviour] = []
        super().__init__(port=port)

    @property
    def base_url(self) -> str:
        """What `OPENAI_BASE_URL` is set to."""
        return f"{self.url}/v1"

    def behave(self, behaviour: Behaviour, *, times: int = 1) -> None:
        """The next so many requests are answered like this."""
        with self._lock:
            self._coming += [behaviour] * times

    def fail_with(
        self, status: int, headers: Mapping[str, str] | None = None, body: str | None = None, *, times: int = 1
    ) -> None:
        """The next so many requests get this status."""
        self.behave(Behaviour(fail=status, headers=headers or {}, body=body), times=times)

    def pause_after(self, tokens: int) -> Gate:
        """A new gate for all replies, also as `stub.gate`."""
        self.gate = Gate(tokens)
        return self.gate

    def wait_cancelled(self, timeout: float = 60, *, times: int = 1) -> float:
        """Returns when so many clients in all have left before their reply ended: the last one's `time.monotonic()`."""
        with self._lock:
            if not self._lock.wait_for(lambda: len(self.cancelled_at) >= times, timeout):
                raise TimeoutError(f"{len(self.cancelled_at)} clients left early, not {times}")
            return self.cancelled_at[times - 1]

    def wait_idle(self, timeout: float = 60) -> None:
        """Returns when no request is being answered."""
        with self._lock:
            if not self._lock.wait_for(lambda: self.active == 0, timeout):
                raise TimeoutError(f"{self.active} requests are still being answered")

    async def exchange(self, wire: Wire) -> None:
        if wire.path == "/v1/models":
            self.times_asked_for_models += 1
            await wire.json(200, {"object": "list", "data": [self.model]})
            return
        if wire.path == "/v1/embeddings":
            await self._embed(wire)
            return
        if wire.path != "/v1/chat/completions":
            await wire.json(404, {"error": {"message": f"no {wire.path}", "type": "invalid_request_error"}})
            return
        body = json.loads(await wire.body())
        behaviour = self._begin(Recorded(body, wire.headers))
        try:
            if await wire.until_gone(self._answer(wire, body, behaviour)):
                with self._lock:
                    self.cancelled_at.append(time.monotonic())
        finally:
            with self._lock:
                self.active -= 1
                self._lock.notify_all()

    async def _embed(self, wire: Wire) -> None:
        body = json.loads(await wire.body())
        await asyncio.sleep(self.embeddings_delay_s)
        if self.embeddings_status != 200:
            await wire.json(self.embeddings_status, {"error": {"message": "the stub was told to fail"}})
            return
        self.embedded += body["input"]
        vectors = [self.embeds(text) for text in body["input"]]
        data = [{"object": "embedding", "index": place, "embedding": one} for place, one in enumerate(vectors)]
        await wire.json(200, {"object": "list", "model": body["model"], "data": data})

    def _begin(self, request: Recorded) -> Behaviour:
        with self._lock:
            self.requests.append(request)
            self.active += 1
            self.most_active = max(self.most_active, self.active)
            behaviour = self._coming.pop(0) if self._coming else Behaviour(slow=self.delay_s)
        said = user_texts(request.messages)
        return behaviour.with_words(said[-1]) if said else behaviour

    async def _refused(self, wire: Wire, body: dict[str, Any], behaviour: Behaviour) -> bool:
        """Whether the request was answered with an error. It may never be."""
        if behaviour.hang:
            await asyncio.Event().wait()
        if behaviour.fail is not None:
            headers = {**behaviour.headers, **({"retry-after": behaviour.retry} if behaviour.retry else {})}
            error = {"error": {"message": "the stub was told to fail", "type": "stub", "code": None, "param": None}}
            await wire.text(behaviour.fail, behaviour.body or json.dumps(error), headers)
            return True
        if behaviour.strict and "stream_options" in body:
            error = {"error": {"message": "Unrecognized argument: stream_options", "type": "x", "code": None}}
            await wire.text(400, json.dumps(error))
            return True
        if self.context is not None and (sent := counted(body["messages"])) > self.context:
            told = f"This model's maximum context length is {self.context} tokens. However, your messages resulted in "
            code = {"type": "invalid_request_error", "param": "messages", "code": "context_length_exceeded"}
            await wire.json(400, {"error": {"message": f"{told}{sent} tokens.", **code}})
            return True
        return False

    async def _answer(self, wire: Wire, body: dict[str, Any], behaviour: Behaviour) -> None:
        if await self._refused(wire, body, behaviour):
            return
        if behaviour.whole:
            body = {**body, "stream": False}
        reply = self._reply(body["messages"], behaviour)
        words = sum(len(tokens_of(text_of(message))) for message in body["messages"])
        prompt_tokens = words if self.context is None else counted(body["messages"])
        habits = Habits(behaviour.finish, behaviour.think, behaviour.unended, behaviour.counts)
        stream = completion(wire, body, reply, prompt_tokens, habits)
        await stream.comments(behaviour.processing)
        for sent in range(len(reply.tokens) + 1):
            if self.gate is not None:
                await self.gate.pass_through(sent)
            if behaviour.cut == sent:
                await stream.cut()
            if behaviour.stall == sent:
                await asyncio.Event().wait()
            if behaviour.bad == sent:
                await stream.event("{not json")
            if behaviour.error == sent:
                await stream.event('{"error": {"message": "the stub was told to fail", "type": "server_error"}}')
            if sent < len(reply.tokens):
                await asyncio.sleep(behaviour.slow)  # even for no time: others are served, and who left is noticed
                await stream.token(reply.tokens[sent])
        await stream.end()

    def _reply(self, messages: Messages, behaviour: Behaviour) -> Reply:
        if behaviour.n is not None:
            return Reply(" ".join(f"w{i}" for i in range(behaviour.n)))
        if behaviour.tool is not None and messages[-1]["role"] != "tool":
            return Reply(None, tool_calls=[(behaviour.tool, {"city": "Oslo"})] * behaviour.calls)
        if behaviour.refuse:
            return Reply(None, refusal="I can't help with that.")
        if behaviour.null:
            return Reply(None)
        reply = self.reply(messages)
        return reply if isinstance(reply, Reply) else Reply(reply)


def text_of(message: Mapping[str, Any]) -> str:
    """The text of a message, without its images and the like."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return " ".join(str(part.get("text", "")) if isinstance(part, dict) else str(part) for part in content)


def counted(messages: Messages) -> int:
    """What a small model makes of the messages: each digit is a token, and so is each byte that is not ASCII."""
    text = json.dumps([[text_of(message), message.get("tool_calls")] for message in messages], ensure_ascii=False)
    plain, digits = text.encode("ascii", "ignore").decode(), sum(map(text.count, "0123456789"))
    return digits + len(text.encode()) - len(plain) + (len(plain) - digits) // 3 + 4 * len(messages)


def user_texts(messages: Messages) -> list[str]:
    """What the user said, first to last."""
    return [text_of(message) for message in messages if message["role"] == "user"]


def echo(messages: Messages) -> str:
    """The reply that shows what the model was shown."""
    said = user_texts(messages) or [""]
    return f"You said: {said[-1]}. I have seen {len(said)} user messages: {' | '.join(said)}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A stub of OpenAI's chat completions.")
    parser.add_argument("--port", type=int, default=0)
    stub = OpenAIStub(port=parser.parse_args().port)
    print(stub.base_url, flush=True)
    stub.run()

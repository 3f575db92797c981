"""What `ChatOpenAI` needs of OpenAI's client, without a model of each message and each chunk.

`ChatOpenAI` works with dictionaries: it makes them of messages, and turns what OpenAI's client gives into dictionaries
again. In between, that client makes models of its own of all of them, which takes most of a turn's processor time.
Here the payload is posted as it is, by OpenAI's client still: authentication, retries, errors, hooks and logs are its
own. What a stream says comes as dictionaries, and words that came together come as one.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from contextlib import aclosing, suppress
from inspect import signature
from types import TracebackType
from typing import Any, Final, Self, cast
from uuid import UUID

import httpx2
import openai
import orjson
from openai.types.chat import ChatCompletion

_DRAIN_S: Final = 0.1
"""How long to wait for the end of a body after its last event: without it the connection can't be used again."""

_RAW: Final = {"X-Stainless-Raw-Response": "true"}
"""What `with_raw_response` tells OpenAI's client: to give the response, and leave its body to be parsed."""

_OPTIONS: Final = {"extra_query": "params", "extra_body": "extra_json", "timeout": "timeout"}
"""Arguments that don't go into the body, and what OpenAI's client calls them in the options of a request."""

Event = dict[str, Any]


class ChatCompletions:
    """Stands for `AsyncOpenAI().chat.completions`, where `ChatOpenAI` has its `async_client`."""

    def __init__(self, client: openai.AsyncOpenAI) -> None:
        self._client = client
        self._known = frozenset(signature(client.chat.completions.create).parameters)
        self.with_raw_response = _WithRawResponse(self)

    async def create(self, **payload: Any) -> Any:
        """The reply: a stream of dictionaries, if the payload asks for a stream, or one."""
        return (await self.with_raw_response.create(**payload)).parse()

    async def post(self, payload: dict[str, Any]) -> Any:
        """OpenAI's raw response, of which nothing has been read if the payload asks for a stream."""
        if not self._known.issuperset(payload):
            return await self._client.chat.completions.with_raw_response.create(**payload)  # which says what is wrong
        options = {name: payload.pop(key) for key, name in _OPTIONS.items() if key in payload}
        options["headers"] = {**(payload.pop("extra_headers", None) or {}), **_RAW}
        # As the client would name it, but without asking the system, which lets go of Python's lock each time.
        options["idempotency_key"] = f"stainless-python-retry-{UUID(int=random.getrandbits(128), version=4)}"
        return await self._client.post(
            "/chat/completions",
            **(_encoded(payload) if "extra_json" not in options else {"body": payload}),
            options=cast(Any, options),
            cast_to=ChatCompletion,
            stream=bool(payload.get("stream")),
            stream_cls=openai.AsyncStream[Any],
        )


class _WithRawResponse:
    def __init__(self, completions: ChatCompletions) -> None:
        self._completions = completions

    async def create(self, **payload: Any) -> RawReply:
        """The response, whose `parse` gives what `ChatCompletions.create` does."""
        streams = bool(payload.get("stream"))
        return RawReply(await self._completions.post(payload), streams=streams)


class RawReply:
    """What `ChatOpenAI` asks of a raw response."""

    def __init__(self, raw: Any, *, streams: bool) -> None:
        self._raw, self._streams = raw, streams
        self.http_response: httpx2.Response = raw.http_response

    @property
    def headers(self) -> httpx2.Headers:
        return self.http_response.headers

    def parse(self) -> Any:
        """The reply. A body that is no JSON is left to OpenAI's client."""
        if self._streams:
            return EventStream(self.http_response)
        try:
            return orjson.loads(self.http_response.content)
        except orjson.JSONDecodeError:
            return self._raw.parse()


def _encoded(payload: dict[str, Any]) -> dict[str, Any]:
    """A payload as an argument for OpenAI's client, which encodes what orjson can't."""
    try:
        return {"content": orjson.dumps(payload)}
    except TypeError:
        return {"body": payload}


class EventStream:
    """The events of a streamed reply."""

    def __init__(self, response: httpx2.Response) -> None:
        self._response = response

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._response.aclose()

    async def __aiter__(self) -> AsyncGenerator[Event, None]:
        try:
            async with aclosing(self._response.aiter_bytes()) as parts:
                buffer = b""
                async for part in parts:
                    *texts, buffer = _with_newlines(buffer + part).split(b"\n\n")
                    for event in joined(map(self._read, filter(None, map(_data, texts)))):
                        if event is None:
                            await _drain(parts)
                            return
                        yield event
                        await asyncio.sleep(0)  # so that who listens to each step hears of this one before the next
        except httpx2.TimeoutException as error:
            raise openai.APITimeoutError(request=self._response.request) from error
        except httpx2.RequestError as error:
            raise openai.APIConnectionError(request=self._response.request) from error
        finally:
            await self._response.aclose()

    def _read(self, data: bytes) -> Event | None:
        """The event; None for the last one. Raises what OpenAI's client raises for one that is an error."""
        if data.startswith(b"[DONE]"):
            return None
        event = _json(data)
        error = event.get("error") if isinstance(event, dict) else None
        if error:
            said = error.get("message") if isinstance(error, dict) else None
            message = said if said and isinstance(said, str) else "An error occurred during streaming"
            raise openai.APIError(message, request=self._response.request, body=error)
        return cast(Event, event)


def joined(events: Iterable[Event | None]) -> Iterator[Event | None]:
    """The events, where those that say more of the same text are one."""
    first: Event | None = None
    place: tuple[dict[str, Any], str, int] | None = None
    texts = list[str]()

    def close() -> Iterator[Event]:
        if first is not None:
            if place is not None and len(texts) > 1:
                place[0][place[1]] = "".join(texts)
            yield first

    try:
        for event in events:
            found = _text_of(event)
            if found and place and found[1:] == place[1:]:
                texts.append(found[0][found[1]])
                continue
            yield from close()
            if event is None:
                first = None
                yield None
                return
            first, place, texts = event, found, [found[0][found[1]]] if found else []
    except Exception:
        yield from close()  # it was said, whatever comes after it
        raise
    yield from close()


def _text_of(event: Event | None) -> tuple[dict[str, Any], str, int] | None:
    """The delta, the name of its text, and the choice, of an event that says some text and nothing else."""
    choices = event.get("choices") if isinstance(event, dict) and not event.get("usage") else None
    if not isinstance(choices, list) or len(choices) != 1:
        return None
    delta = choices[0].get("delta")
    if not isinstance(delta, dict) or choices[0].get("finish_reason") or choices[0].get("logprobs"):
        return None
    names = [name for name, value in delta.items() if value is not None and name != "role"]
    if len(names) != 1 or not isinstance(delta[names[0]], str):
        return None
    return delta, names[0], choices[0].get("index", 0)


def _with_newlines(data: bytes) -> bytes:
    """The ends of its lines, of any kind, as newlines; the last byte may be half of one."""
    if b"\r" not in data:
        return data
    data = data.replace(b"\r\n", b"\n")
    return data[:-1].replace(b"\r", b"\n") + data[-1:]


def _data(text: bytes) -> bytes:
    """The data of an event; nothing of a comment."""
    if text.startswith(b"data: ") and b"\n" not in text:
        return text[6:]
    fields = (line.partition(b":") for line in text.split(b"\n"))
    return b"\n".join(value.removeprefix(b" ") for name, _, value in fields if name == b"data")


def _json(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return json.loads(data.decode())  # which takes half a surrogate pair, and NaN; or says what is wrong


async def _drain(parts: AsyncIterator[bytes]) -> None:
    with suppress(TimeoutError, httpx2.RequestError):
        async with asyncio.timeout(_DRAIN_S):
            async for _ in parts:
                pass

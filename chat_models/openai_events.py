"""The events of a streamed reply, as dictionaries: what `ChatOpenAI` would make of the models of OpenAI's client.

Words that came together come as one.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from contextlib import aclosing, suppress
from types import TracebackType
from typing import Any, Final, Self, cast

import httpx2
import openai
import orjson
from openai.types.chat.chat_completion_chunk import ChoiceDeltaToolCall, ChoiceLogprobs
from pydantic import ValidationError

_DRAIN_S: Final = 0.1
"""How long to wait for the end of a body after its last event: without it the connection can't be used again."""

_BROKEN: Final = (httpx2.RequestError, ssl.SSLError)
"""What a connection that breaks raises: some of TLS comes through httpx as it is."""

_NO_CALL: Final = dict.fromkeys(ChoiceDeltaToolCall.model_fields)

_BOM: Final = b"\xef\xbb\xbf"

Event = dict[str, Any]


class EventStream:
    """The events of a streamed reply."""

    def __init__(self, response: httpx2.Response) -> None:
        self._response = response
        self._ended = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._response.aclose()

    async def __aiter__(self) -> AsyncGenerator[Event, None]:
        try:
            texts = _Texts()
            async with aclosing(self._response.aiter_bytes()) as parts:
                async for part in parts:
                    for event in joined(self._events(texts.of(part))):
                        yield filled(event)
                        await asyncio.sleep(0)  # so that who listens to each step hears of this one before the next
                    if self._ended:
                        await _drain(parts)
                        return
            for event in self._events(texts.last()):
                yield filled(event)
        except httpx2.TimeoutException as error:
            raise openai.APITimeoutError(request=self._response.request) from error
        except _BROKEN as error:
            raise openai.APIConnectionError(request=self._response.request) from error
        finally:
            await self._response.aclose()

    def _events(self, texts: Iterable[bytes]) -> Iterator[Event]:
        for data in filter(None, map(_data, texts)):
            if data.startswith(b"[DONE]"):
                self._ended = True
                return
            yield self._read(data)

    def _read(self, data: bytes) -> Event:
        """The event. Raises what OpenAI's client raises for one that is an error."""
        event = _json(data)
        if isinstance(event, dict) and (error := _error_in(event)):
            said = error.get("message") if isinstance(error, dict) else None
            message = said if said and isinstance(said, str) else "An error occurred during streaming"
            raise openai.APIError(message, request=self._response.request, body=error)
        return cast(Event, event)


def _error_in(event: Event) -> Any:
    """What went wrong, where that is what an event says; in older vLLM's words, too.

    OpenAI's client would take the latter for an event that says nothing: a reply that broke off would look whole.
    """
    return event.get("error") or (event if event.get("object") == "error" else None)


def filled(event: Any) -> Any:
    """An event, where `ChatOpenAI` finds what the server left out as nothing, as OpenAI's client has it.

    Azure leaves out the delta of a choice that only tells of its filters, and Gemini the place of a call.
    """
    choices = event.get("choices") if isinstance(event, dict) else None
    for choice in choices if isinstance(choices, list) else ():
        delta = choice.setdefault("delta", None)
        calls = delta.get("tool_calls") if isinstance(delta, dict) else None
        if isinstance(calls, list):
            delta["tool_calls"] = [{**_NO_CALL, **call} for call in calls]
        if logprobs := choice.get("logprobs"):
            with suppress(ValidationError):
                choice["logprobs"] = ChoiceLogprobs.model_validate(logprobs).model_dump()
    return event


def joined(events: Iterable[Event]) -> Iterator[Event]:
    """The events, where those that say more of the same text are one."""
    held = list[Event]()
    place: tuple[dict[str, Any], str, int] | None = None
    texts = list[str]()

    def close() -> list[Event]:
        if place is not None and len(texts) > 1:
            place[0][place[1]] = "".join(texts)
        return held

    try:
        for event in events:
            found = _text_of(event)
            if found and place and found[1:] == place[1:]:
                texts.append(found[0][found[1]])
                continue
            yield from close()
            held, place, texts = [event], found, [found[0][found[1]]] if found else []
    except Exception:
        yield from close()  # it was said, whatever comes after it
        raise
    yield from close()


def _text_of(event: Any) -> tuple[dict[str, Any], str, int] | None:
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


class _Texts:
    """Cuts a body into the texts of its events, their lines ending in newlines.

    What is incomplete is looked at once, however many parts it comes in.
    """

    def __init__(self) -> None:
        self._half_end = b""
        self._begun = list[bytes]()

    def of(self, part: bytes) -> list[bytes]:
        """Of the events that this part of the body completes."""
        if self._half_end or b"\r" in part:
            part, self._half_end = _with_newlines(self._half_end + part)
        begun = self._begun
        if b"\n\n" not in (begun[-1][-1:] + part if begun else part):
            if part:
                begun.append(part)
            return []
        *texts, rest = b"".join([*begun, part]).split(b"\n\n")
        self._begun = [rest] if rest else []
        return texts

    def last(self) -> list[bytes]:
        """Of the event that the end of the body completes."""
        return [b"".join(self._begun)] if self._half_end and self._begun and self._begun[-1].endswith(b"\n") else []


def _with_newlines(data: bytes) -> tuple[bytes, bytes]:
    """The ends of its lines, of any kind, as newlines; and what may be half of such an end."""
    cut = len(data) - data.endswith(b"\r")
    return data[:cut].replace(b"\r\n", b"\n").replace(b"\r", b"\n"), data[cut:]


def _data(text: bytes) -> bytes:
    """The data of an event; nothing of a comment."""
    if text.startswith(b"data: ") and b"\n" not in text:
        return text[6:]
    fields = (line.partition(b":") for line in text.removeprefix(_BOM).split(b"\n"))
    return b"\n".join(value.removeprefix(b" ") for name, _, value in fields if name == b"data")


def _json(data: bytes) -> Any:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return json.loads(data.decode())  # which takes half a surrogate pair, and NaN; or says what is wrong


async def _drain(parts: AsyncIterator[bytes]) -> None:
    with suppress(TimeoutError, *_BROKEN):
        async with asyncio.timeout(_DRAIN_S):
            async for _ in parts:
                pass

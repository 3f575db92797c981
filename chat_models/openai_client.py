"""What `ChatOpenAI` needs of OpenAI's client, without a model of each message and each chunk.

`ChatOpenAI` works with dictionaries: it makes them of messages, and turns what OpenAI's client gives into dictionaries
again. In between, that client makes models of its own of all of them, which takes most of a turn's processor time.
Here the payload is posted as it is, by OpenAI's client still: authentication, retries, errors, hooks and logs are its
own. What a stream says comes as dictionaries, and words that came together come as one.
"""

from __future__ import annotations

import random
from inspect import signature
from typing import Any, Final, cast
from uuid import UUID

import httpx2
import openai
import orjson
from openai.types.chat import ChatCompletion
from pydantic import ValidationError

from chat_models.openai_events import EventStream

_random: Final = random.Random()  # noqa: S311 - opens nothing; and a chain that seeds Python's own changes nothing
_RAW: Final = {"X-Stainless-Raw-Response": "true"}
"""What `with_raw_response` tells OpenAI's client: to give the response, and leave its body to be parsed."""

_OPTIONS: Final = {"extra_query": "params", "timeout": "timeout"}
"""Arguments that don't go into the body, and what OpenAI's client calls them in the options of a request."""

_NO_BODY: Final = frozenset([*_OPTIONS, "extra_headers", "extra_body"])


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
        content = _encoded(payload) if self._known.issuperset(payload) else None
        if content is None:  # OpenAI's client encodes it, or says what is wrong
            return await self._client.chat.completions.with_raw_response.create(**payload)
        options: dict[str, Any] = {name: payload[key] for key, name in _OPTIONS.items() if key in payload}
        options["headers"] = {**(payload.get("extra_headers") or {}), **_RAW}
        # As the client would name it, but without asking the system: a thread that does lets go of Python's lock.
        options["idempotency_key"] = f"stainless-python-retry-{UUID(int=_random.getrandbits(128), version=4)}"
        return await self._client.post(
            "/chat/completions",
            content=content,
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
        """The reply. One that OpenAI does not write so, or that is no JSON, is left to OpenAI's client to read."""
        if self._streams:
            return EventStream(self.http_response)
        try:
            return ChatCompletion.model_validate_json(self.http_response.content).model_dump(warnings=False)
        except ValidationError:
            return self._raw.parse()


def _encoded(payload: dict[str, Any]) -> bytes | None:
    """The body of a request; None if that is not for orjson."""
    body = {name: value for name, value in payload.items() if name not in _NO_BODY}
    try:
        return orjson.dumps({**body, **(payload.get("extra_body") or {})})
    except TypeError:
        return None

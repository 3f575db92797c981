"""LangServe's endpoints for turns, with nothing between the turn and the wire.

LangServe mounts them through FastAPI, and makes an event of its own, a message and a write to the socket of each token.
These take the same requests and give the same answers, for a fraction of the work. Where LangServe refuses an output
that is not of the chain's type (a 500, when the turn has been recorded), they give it. All else is LangServe's: what a
request means is read by its `APIHandler`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from copy import copy
from typing import Any, Final
from urllib.parse import quote

from fastapi.exceptions import RequestValidationError
from langserve import APIHandler
from langserve.validation import StreamEventsParameters, StreamLogParameters
from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from api.event_stream import DataStream, EventStream
from api.langserve_gaps import BatchResponse, FilteringSerializer, OutputFilter, Serializer, StreamSerializer, readable
from api.reading import Reader
from api.sessions.models import time_of
from auth.middleware import current_user
from histories.base import Event, TurnRunning
from turns.batches import check_batch
from turns.session_config import ConfigModifier
from turns.turn_run import TurnRun
from turns.watch import watch
from turns.with_history import ChainWithHistory

ENDPOINTS: Final = ("invoke", "batch", "stream", "stream_log", "stream_events")
"""On which turns run."""


class TurnEndpoints:
    """The endpoints of one chain, whose requests LangServe's `handler` reads. Held against LangServe's in a test."""

    def __init__(
        self,
        chain: ChainWithHistory,
        handler: APIHandler,
        *,
        path: str,
        modifier: ConfigModifier,
        serializer: Serializer,
    ) -> None:
        self._chain, self._path, self._serializer = chain, path, serializer
        self._fitting = OutputFilter(chain.OutputType, chain.chain_name)
        self._handler = copy(handler)
        self._handler._serializer = FilteringSerializer(self._fitting)
        self._handler._BatchResponse = BatchResponse  # LangServe's own is checked when all has been recorded
        self._reader = Reader(chain, self._handler, modifier)

    def routes(self) -> list[Route]:
        """The routes, which have to come before LangServe's of the same paths."""
        return [
            Route(f"{self._path}{config}/{name}", _Endpoint(getattr(self, name)), methods=["POST"])
            for config in ("", "/c/{config_hash}")
            for name in ENDPOINTS
        ]

    async def _read(self, request: Request, endpoint: str) -> tuple[Any, Any]:
        await current_user(request)
        await readable(request)
        await self._chain.ready()
        return await self._reader.read(request, endpoint)

    async def invoke(self, request: Request) -> Response:
        config, value = await self._read(request, "invoke")
        if self._chain.memory and "respond-async" in preferences(request):
            return await self._accepted(request, value, config)
        output = self._serializer.dumps(await self._chain.ainvoke(value, config))
        if self._fitting.filters:
            output = self._serializer.dumps(self._fitting(json.loads(output)))
        metadata = json.dumps({"run_id": str(config["run_id"]), "feedback_tokens": []}, separators=(",", ":"))
        body = b'{"output":%s,"metadata":%s}' % (output, metadata.encode("ascii"))
        return Response(body, media_type="application/json")

    async def _accepted(self, request: Request, value: Any, config: Any) -> Response:
        """Answers as soon as the user's words are durable. The turn then goes on by itself."""
        configurable = config["configurable"] = {**config["configurable"], "on_disconnect": "finish"}
        run = self._chain.start(value, config, streaming=True)
        await asyncio.shield(run.begun)
        if run.refusal is not None and not isinstance(run.refusal, TurnRunning):
            raise run.refusal
        session_id = configurable["session_id"]
        place = f"/sessions/{quote(session_id, safe='')}/turns/{quote(run.turn_id, safe='')}"
        where = request.scope.get("root_path", "") + place
        status = {"session_id": session_id, "turn_id": run.turn_id}
        return JSONResponse(status, 202, {"Location": where, "Preference-Applied": "respond-async"})

    async def batch(self, request: Request) -> Response:
        await current_user(request)
        await readable(request)
        check_batch(len((await request.json()).get("inputs", [])), self._chain.turns.rules.max_batch)
        await self._chain.ready()
        response: Response = await self._handler.batch(request, config_hash=request.path_params.get("config_hash", ""))
        return response

    async def stream(self, request: Request) -> Response:
        config, value = await self._read(request, "stream")
        run = self._chain.start(value, config, streaming=True)
        if not self._chain.memory:
            return EventStream({"run_id": str(config["run_id"])}, run.events())
        session_id = config["configurable"]["session_id"]
        metadata = {"run_id": str(config["run_id"]), "session_id": session_id, "turn_id": run.turn_id}
        return EventStream(metadata, self._heard(run, config["configurable"]["user_id"], session_id, metadata))

    async def stream_log(self, request: Request) -> Response:
        config, value = await self._read(request, "stream_log")
        patches = self._chain.astream_log(value, config, **_filters(await request.json(), StreamLogParameters))

        async def pieces() -> AsyncGenerator[bytes, None]:
            dumps = StreamSerializer().dumps
            async for patch in patches:
                yield dumps({"ops": patch.ops})

        return DataStream(pieces())

    async def stream_events(self, request: Request) -> Response:
        config, value = await self._read(request, "stream_events")
        filters = _filters(await request.json(), StreamEventsParameters)
        events = self._chain.astream_events(value, config, version="v2", **filters)

        async def pieces() -> AsyncGenerator[bytes, None]:
            dumps, shown = StreamSerializer().dumps, _Shown()
            async for event in events:
                event["metadata"] = shown(event["metadata"])
                yield dumps(event)

        return DataStream(pieces())

    async def _heard(
        self, run: TurnRun, user_id: str, session_id: str, metadata: dict[str, str]
    ) -> AsyncGenerator[Sequence[Event], None]:
        """What the turn says; if it runs already, what that one does, from its beginning. Notes when it has begun."""
        try:
            async with aclosing(run.events()) as events:
                async for some in events:
                    if run.started_at is not None and "started_at" not in metadata:
                        metadata["started_at"] = time_of(run.started_at)
                    yield some
            return
        except TurnRunning:
            turn = await self._chain.turns.store.history(user_id, session_id).turn(run.turn_id)
            metadata["started_at"] = time_of(turn.started_at)
            watching = watch(self._chain.turns, user_id, session_id, run.turn_id, turn=turn)
        async with aclosing(watching) as events:
            async for some in events:
                yield some


class _Shown:
    """Metadata without what LangServe keeps to itself. All of a run's events have the same object."""

    def __init__(self) -> None:
        self._of, self._shown = dict[str, Any](), dict[str, Any]()

    def __call__(self, metadata: dict[str, Any]) -> dict[str, Any]:
        if metadata is not self._of:
            self._of = metadata
            self._shown = {key: one for key, one in metadata.items() if not key.startswith("__")}
        return self._shown


class _Endpoint:
    """An endpoint as an ASGI app of its own: Starlette wraps each message of a function's response once more."""

    def __init__(self, answer: Callable[[Request], Awaitable[Response]]) -> None:
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._answer(Request(scope, receive, send))
        await response(scope, receive, send)


def _filters(body: dict[str, Any], parameters: type[BaseModel]) -> dict[str, Any]:
    """Which runs a client wants to hear of. Raises RequestValidationError."""
    try:
        return parameters.model_validate(body).model_dump()
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from None


def preferences(request: Request) -> set[str]:
    """What the client prefers, by RFC 7240, without parameters."""
    sent = ",".join(request.headers.getlist("prefer"))
    return {part.partition(";")[0].strip().lower() for part in sent.split(",")}

"""`/invoke`, `/batch` and `/stream`: LangServe's endpoints for turns, with nothing between the turn and the wire.

LangServe mounts them through FastAPI, and makes an event of its own, a message and a write to the socket of each token.
These take the same requests and give the same answers, for a fraction of the work. Where LangServe refuses an output
that is not of the chain's type (a 500, when the turn has been recorded), they give it. All else is LangServe's: what a
request means is read by its `APIHandler`.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any

from langserve import APIHandler
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from api.langserve_gaps import CONFIG_KEYS, BatchResponse, FilteringSerializer, OutputFilter, Serializer, readable
from auth.middleware import current_user
from turns.session_config import ConfigModifier
from turns.with_history import ChainWithHistory


class TurnEndpoints:
    """The endpoints of one chain. Held against LangServe's own in a test."""

    def __init__(self, chain: ChainWithHistory, *, path: str, modifier: ConfigModifier, serializer: Serializer) -> None:
        self._chain, self._path, self._serializer = chain, path, serializer
        self._handler = self._handled(modifier, serializer)
        self._fitting = OutputFilter(chain.OutputType, chain.chain_name)
        self._batches = self._handled(modifier, FilteringSerializer(self._fitting))
        self._batches._BatchResponse = BatchResponse  # LangServe's own is checked when all has been recorded

    def _handled(self, modifier: ConfigModifier, serializer: Serializer) -> APIHandler:
        return APIHandler(
            self._chain,
            path=self._path,
            per_req_config_modifier=modifier,
            serializer=serializer,
            config_keys=CONFIG_KEYS,
        )

    def routes(self) -> list[Route]:
        """The routes, which have to come before LangServe's of the same paths."""
        return [
            Route(f"{self._path}{config}/{name}", _Endpoint(endpoint), methods=["POST"])
            for config in ("", "/c/{config_hash}")
            for name, endpoint in (("invoke", self.invoke), ("batch", self.batch), ("stream", self.stream))
        ]

    async def _read(self, request: Request, endpoint: str) -> tuple[Any, Any]:
        await current_user(request)
        await readable(request)
        config_hash = request.path_params.get("config_hash", "")
        # Private, but LangServe's reading of a request is what its clients are written for; pinned by its version.
        return await self._handler._get_config_and_input(request, config_hash, endpoint=endpoint)

    async def invoke(self, request: Request) -> Response:
        config, value = await self._read(request, "invoke")
        output = self._serializer.dumps(await self._chain.ainvoke(value, config))
        if self._fitting.filters:
            output = self._serializer.dumps(self._fitting(json.loads(output)))
        metadata = json.dumps({"run_id": str(config["run_id"]), "feedback_tokens": []}, separators=(",", ":"))
        body = b'{"output":%s,"metadata":%s}' % (output, metadata.encode("ascii"))
        return Response(body, media_type="application/json")

    async def batch(self, request: Request) -> Response:
        await current_user(request)
        await readable(request)
        response: Response = await self._batches.batch(request, config_hash=request.path_params.get("config_hash", ""))
        return response

    async def stream(self, request: Request) -> Response:
        config, value = await self._read(request, "stream")
        return _Events(self._chain, value, config, self._serializer)


class _Endpoint:
    """An endpoint as an ASGI app of its own: Starlette wraps each message of a function's response once more."""

    def __init__(self, answer: Callable[[Request], Awaitable[Response]]) -> None:
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._answer(Request(scope, receive, send))
        await response(scope, receive, send)


class _Events(Response):
    """A stream of server-sent events: all tokens that came at once in one write."""

    media_type = "text/event-stream"

    def __init__(self, chain: ChainWithHistory, value: Any, config: Any, serializer: Serializer) -> None:
        self.status_code, self.background = 200, None
        self.init_headers({"Cache-Control": "no-cache", "Connection": "keep-alive", "X-Accel-Buffering": "no"})
        self._chain, self._value, self._config, self._serializer = chain, value, config, serializer

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends what the chain says. An error is raised: what the client is told of it is not decided here."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        head = b"event: metadata\r\ndata: %s\r\n\r\n" % json.dumps({"run_id": str(self._config["run_id"])}).encode()
        async with aclosing(self._chain.astream_bursts(self._value, self._config)) as bursts:
            async for burst in bursts:
                events = [b"event: data\r\ndata: %s\r\n\r\n" % self._serializer.dumps(chunk) for chunk in burst]
                if events:
                    events[0], head = head + events[0], b""
                body = b"".join(events) or b": still running\r\n\r\n"
                await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b"event: end\r\n\r\n", "more_body": False})

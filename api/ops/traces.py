"""OpenTelemetry's spans, where the environment asks for them: of requests (FastAPI's own), of turns, of model calls.

A trace goes on where the caller's `traceparent` says, and the model's server is sent one. Nothing that people say is in
it. The SDK is an extra, `otel`, and is imported by who asks for traces alone.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import MutableMapping
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit
from uuid import UUID

from fastapi.telemetry import TelemetryConfig
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import LLMResult
from opentelemetry import context, trace
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from typing_extensions import override

from api.ops.logs import Names
from api.ops.reasons import reason_of
from turns.observer import WatchedTurn
from turns.usage import finish_reason_of

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_NAME: Final = "recollect"
_UNWATCHED: Final = ("/healthz", "/readyz", "/metrics", "/login", "/web/", "/docs")
"""Probes, files, and the sign-in, whose address may hold a one-time token."""
_OF_SESSION: Final = re.compile(r"(/sessions/|/turns/|/c/)[^/]+")
_FLUSH_S: Final = 3.0
"""How long the end of the server waits for a collector."""


class Tracing:
    """The spans of one server process, sent to the collector at `endpoint`. Raises ImportError without the SDK."""

    def __init__(self, endpoint: str, names: Names, *, model: str | None = None, version: str = "") -> None:
        self.provider = _provider(endpoint, version)
        self._tracer = self.provider.get_tracer(_NAME, version)
        self._names, self._model = names, model

    def of_requests(self) -> TelemetryConfig:
        """How FastAPI traces requests: its spans alone, as log and metrics are there."""
        return {
            "tracer_provider": self.provider,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "auto_configure": False,
            "exclude": _is_idle,
        }

    def of_turns(self) -> TurnSpans:
        """Who watches turns."""
        return TurnSpans(self._tracer, self._names, self._model)

    def of_models(self, base_url: str) -> ModelSpans:
        """Who is called by the model at that address."""
        return ModelSpans(self._tracer, base_url)

    async def close(self) -> None:
        """Sends what is left, if the collector takes it in a moment."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_FLUSH_S):
                await asyncio.to_thread(self.provider.force_flush, int(_FLUSH_S * 1000))
        await asyncio.to_thread(self.provider.shutdown)


def _provider(endpoint: str, version: str) -> TracerProvider:
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    exporter = import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter").OTLPSpanExporter
    ours = Resource({"service.name": _NAME, "service.version": version})
    provider = TracerProvider(resource=ours.merge(OTELResourceDetector().detect()), shutdown_on_exit=False)
    provider.add_span_processor(_discreet())
    provider.add_span_processor(BatchSpanProcessor(exporter(endpoint=endpoint)))
    return provider


def _discreet() -> Any:
    from opentelemetry.sdk.trace import SpanProcessor

    class Discreet(SpanProcessor):
        """Takes out of a request's span what people wrote into its address: what they look for, names of sessions."""

        @override
        def on_start(self, span: Any, parent_context: Any = None) -> None:
            told = span.attributes or {}
            if "url.query" in told:
                span.set_attribute("url.query", "")
            if "url.path" in told:
                span.set_attribute("url.path", _OF_SESSION.sub(r"\1-", str(told["url.path"])))

    return Discreet()


def _is_idle(scope: MutableMapping[str, Any]) -> bool:
    path = scope["path"]
    return any(f"{scope.get('root_path', '')}{start}" in path for start in _UNWATCHED)


class TurnSpans:
    """A span for each turn, within that of its request: a `TurnObserver`."""

    def __init__(self, tracer: Tracer, names: Names, model: str | None) -> None:
        self._tracer, self._names, self._model = tracer, names, model
        self._spans: dict[int, Span] = {}

    def asked(self, turn: WatchedTurn) -> None:
        told = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": turn.chain,
            "gen_ai.conversation.id": self._names(turn.session_id) if turn.session_id else None,
            "enduser.pseudo.id": self._names(turn.user_id),
            "recollect.turn.id": turn.turn_id,
        }
        self._spans[id(turn)] = self._tracer.start_span(f"invoke_agent {turn.chain}", attributes=_some(told))

    def began(self, turn: WatchedTurn) -> None:
        """From now on the turn's own task, and what it starts, is within the span."""
        context.attach(trace.set_span_in_context(self._spans[id(turn)]))

    def spoke(self, turn: WatchedTurn) -> None:
        """Told with the end."""

    def ended(self, turn: WatchedTurn) -> None:
        span, usage = self._spans.pop(id(turn)), turn.usage
        told = {
            "gen_ai.request.model": self._model,
            "gen_ai.response.model": turn.model,
            "gen_ai.usage.input_tokens": usage and usage["input_tokens"],
            "gen_ai.usage.output_tokens": usage and usage["output_tokens"],
            "gen_ai.response.finish_reasons": _of_reply(turn),
            "gen_ai.response.time_to_first_chunk": _between(turn.began_at, turn.spoke_at),
            "recollect.turn.outcome": turn.outcome,
        }
        _end(span, told, None if turn.error is None else reason_of(turn.error))


class ModelSpans(BaseCallbackHandler):
    """A span for each call of a model, and the header that tells its server of it."""

    run_inline = True  # in the task that calls the model: what it sends then is within the span

    def __init__(self, tracer: Tracer, base_url: str) -> None:
        self._tracer, at = tracer, urlsplit(base_url)
        self._where = {"server.address": at.hostname, "server.port": at.port}
        self._calls: dict[UUID, _Call] = {}

    @override
    def on_chat_model_start(
        self, serialized: dict[str, Any], messages: list[list[BaseMessage]], *, run_id: UUID, **kwargs: Any
    ) -> None:
        model = kwargs.get("invocation_params", {}).get("model")
        told = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": model}
        name = f"chat {model}" if model else "chat"
        span = self._tracer.start_span(name, kind=SpanKind.CLIENT, attributes=_some({**told, **self._where}))
        self._calls[run_id] = _Call(span)
        context.attach(trace.set_span_in_context(span))

    @override
    def on_llm_new_token(self, token: Any, *, run_id: UUID, **kwargs: Any) -> None:
        call = self._calls.get(run_id)
        if call is not None and call.spoke_at is None:
            call.spoke_at = time.monotonic()

    @override
    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        said = [getattr(one, "message", None) for batch in response.generations for one in batch]
        messages = [message for message in said if isinstance(message, AIMessage)]
        usage = next((message.usage_metadata for message in messages if message.usage_metadata), None)
        told = {
            "gen_ai.response.model": next((one.response_metadata.get("model_name") for one in messages), None),
            "gen_ai.response.finish_reasons": _reasons(messages),
            "gen_ai.usage.input_tokens": usage and usage["input_tokens"],
            "gen_ai.usage.output_tokens": usage and usage["output_tokens"],
        }
        self._over(run_id, told, None)

    @override
    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        self._over(run_id, {}, type(error).__name__)

    def _over(self, run_id: UUID, told: dict[str, Any], error: str | None) -> None:
        call = self._calls.pop(run_id, None)
        if call is not None:
            context.attach(call.outer)  # not detached: what a stream says may end in another task
            first = _between(call.asked_at, call.spoke_at)
            _end(call.span, {**told, "gen_ai.response.time_to_first_chunk": first}, error)

    async def on_request(self, request: Any) -> None:
        """Sends the context along; without the baggage, which is a client's."""
        TraceContextTextMapPropagator().inject(request.headers)


class _Call:
    def __init__(self, span: Span) -> None:
        self.span, self.asked_at, self.outer = span, time.monotonic(), context.get_current()
        self.spoke_at: float | None = None


def _end(span: Span, told: dict[str, Any], error: str | None) -> None:
    span.set_attributes(_some(told))
    if error:
        span.set_attribute("error.type", error)
        span.set_status(StatusCode.ERROR)
    span.end()


def _some(told: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in told.items() if value is not None}


def _between(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else end - start


def _of_reply(turn: WatchedTurn) -> list[str] | None:
    reason = turn.reply.details.get("finish_reason") if turn.reply is not None else None
    return None if reason is None else [reason]


def _reasons(messages: Any) -> list[str] | None:
    return [reason for one in messages if isinstance(one, AIMessage) and (reason := finish_reason_of(one))] or None

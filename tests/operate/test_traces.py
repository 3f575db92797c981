"""OpenTelemetry: a trace goes through the server, from the caller's to the model's, and no word of people is in it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from typing_extensions import override

from auth.links import Links
from settings import load_settings
from tests.calls import call
from tests.live_server import ROOT, langserve_warns, serve_here
from tests.openai_stub import OpenAIStub
from tests.stub_server import StubServer, Wire

pytestmark = langserve_warns
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
WORDS = "the garden behind my house"


class Collector(StubServer):
    """Takes spans by OTLP over HTTP."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.raw = b""
        super().__init__()

    @override
    async def exchange(self, wire: Wire) -> None:
        body = await wire.body()
        self.raw += body
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for scope in resource.scope_spans:
                self.spans += scope.spans
        await wire.start(200, "application/x-protobuf")
        await wire.write("", more=False)

    def named(self, name: str) -> Any:
        (span,) = [span for span in self.spans if span.name == name]
        return span


def told(span: Any) -> dict[str, Any]:
    """The attributes of a span."""
    values = {one.key: one.value for one in span.attributes}
    return {name: getattr(value, value.WhichOneof("value")) for name, value in values.items()}


@pytest.fixture(scope="module")
def stub() -> Iterator[OpenAIStub]:
    with OpenAIStub() as stub:
        yield stub


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


@pytest.mark.parametrize(("way", "route"), [("invoke", "/chat/invoke"), ("stream", "/chat/stream")])
def test_a_turn_is_traced_from_its_caller_to_the_models_server(
    stub: OpenAIStub, collector: Collector, tmp_path: Path, way: str, route: str
) -> None:
    settings: dict[str, Any] = {"openai_base_url": stub.base_url, "otlp_endpoint": collector.url, "model_name": "gpt-x"}
    with serve_here(tmp_path, **settings) as server, server.client() as client:
        client.headers["traceparent"] = f"00-{TRACE}-{PARENT}-01"
        client.headers["baggage"] = "secret=1"
        assert call(client, WORDS, "my session", way=way).status_code == 200
        client.get(f"/sessions?q={WORDS}")
        client.get("/sessions/my%20session")
        client.get(f"/login?token={Links(server.data_dir).create('alice')}")
    (request,) = [span for span in collector.spans if told(span).get("http.route") == route]
    turn, model = collector.named("invoke_agent chat"), collector.named("chat gpt-x")
    assert {span.trace_id.hex() for span in (request, turn, model)} == {TRACE}
    assert request.parent_span_id.hex() == PARENT
    assert (turn.parent_span_id, model.parent_span_id) == (request.span_id, turn.span_id)
    sent = stub.requests[-1].headers
    assert sent["traceparent"] == f"00-{TRACE}-{model.span_id.hex()}-01"
    assert "baggage" not in sent
    for span in (turn, model):
        assert told(span)["gen_ai.usage.output_tokens"] > 0
        assert told(span)["gen_ai.response.finish_reasons"].values[0].string_value == "stop"
        assert told(span)["gen_ai.request.model"] == "gpt-x"
    assert told(turn)["gen_ai.response.time_to_first_chunk"] > 0
    assert ("gen_ai.response.time_to_first_chunk" in told(model)) is (way == "stream")
    assert len(told(turn)["gen_ai.conversation.id"]) == 16
    for secret in (WORDS, "garden", "my%20session", "my session", "alice", "token="):
        assert secret.encode() not in collector.raw


def test_a_failed_turn_says_why_in_its_spans(stub: OpenAIStub, collector: Collector, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"openai_base_url": stub.base_url, "otlp_endpoint": collector.url, "model_name": "gpt-x"}
    with serve_here(tmp_path, **settings) as server, server.client() as client:
        assert call(client, f"{WORDS} [[fail 429]]", "s").status_code == 429
    turn, model = collector.named("invoke_agent chat"), collector.named("chat gpt-x")
    assert (told(turn)["error.type"], told(turn)["recollect.turn.outcome"]) == ("model_quota", "failed")
    assert told(model)["error.type"].endswith("RateLimitError")
    assert b"garden" not in collector.raw


def test_a_collector_that_is_gone_harms_nothing(stub: OpenAIStub, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"openai_base_url": stub.base_url, "otlp_endpoint": "http://127.0.0.1:9"}
    with serve_here(tmp_path, **settings) as server, server.client() as client:
        assert call(client, "one", "s").status_code == 200


def test_nothing_is_traced_unless_the_environment_asks_for_it() -> None:
    asked = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318/"}
    assert load_settings({}).traces_to is None
    assert load_settings(asked).traces_to == "http://collector:4318/v1/traces"
    assert load_settings({**asked, "OTEL_SDK_DISABLED": "true"}).traces_to is None
    assert load_settings({**asked, "OTEL_TRACES_EXPORTER": "none"}).traces_to is None
    own = {**asked, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://other/traces"}
    assert load_settings(own).traces_to == "http://other/traces"
    ours = "('opentelemetry.exporter', 'api.ops.traces')"
    program = f"import server, sys; print([one for one in sys.modules if one.startswith({ours})])"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"

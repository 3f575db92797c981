"""The OpenAPI document is true: it says what is needed, its examples work, and each route keeps its word."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import schemathesis
from schemathesis import Case
from schemathesis.config import SchemathesisConfig

from auth.keys import ApiKeys
from auth.middleware import Auth
from histories.memory import MemoryStore
from server import create_app
from settings import Settings
from tests.contract.rules import config
from tests.echo_model import EchoModel
from tests.live_server import Here, langserve_warns, serve_here
from tests.openai_stub import OpenAIStub
from tests.proofs import proves

pytestmark = langserve_warns
BRIEFLY = hypothesis.settings(
    max_examples=4,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    with (
        OpenAIStub() as stub,
        serve_here(tmp_path_factory.mktemp("openapi"), openai_base_url=stub.base_url, history_url="memory:") as server,
    ):
        yield server


@pytest.fixture(scope="module")
def document(server: Here) -> dict[str, Any]:
    with server.client() as client:
        found: dict[str, Any] = client.get("/openapi.json").json()
        return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method.upper(), operation


def test_every_example_works_as_it_stands(server: Here, document: dict[str, Any]) -> None:
    tried = 0
    with server.client() as client:
        for path, method, operation in operations(document):
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            if "example" in body:
                named = {one["name"]: one["example"] for one in operation["parameters"] if "example" in one}
                answer = client.request(method, path.format(**named), json=body["example"])
                assert answer.status_code == 200, (path, answer.text)
                assert "event: error" not in answer.text, path
                tried += 1
    assert tried == 3 * 2 * 5


def test_a_turn_needs_a_session_and_streams_are_streams_and_every_refusal_is_named(document: dict[str, Any]) -> None:
    for path, method, operation in operations(document):
        responses = operation["responses"]
        if path != "/healthz":
            assert {"401", "403", "429", "503"} <= responses.keys(), path
        if method == "POST" and path.startswith(("/chat/", "/tutor/", "/agent/")):
            assert {"409", "412", "413", "422", "500", "502", "503", "504", "507"} <= responses.keys(), path
            kind = "text/event-stream" if "/stream" in path else "application/json"
            assert [*responses["200"]["content"]] == [kind], path
            if "{config_hash}" not in path:
                schema = operation["requestBody"]["content"]["application/json"]["schema"]
                assert "config" in schema["required"], path
    session = document["components"]["schemas"]["chatSession"]
    assert session["required"] == ["session_id"]
    assert session["properties"]["session_id"]["maxLength"] == 128
    assert not any("token_feedback" in path for path in document["paths"])


def test_head_is_answered_wherever_get_is_and_allow_names_all_methods(server: Here, document: dict[str, Any]) -> None:
    _, key = ApiKeys(server.data_dir).create("alice", scopes=("chat", "metrics"))
    with server.client(None) as client:
        client.headers["Authorization"] = f"Bearer {key}"
        for path, methods in document["paths"].items():
            plain = path.format(session_id="none", turn_id="none", config_hash="none", share_id="none")
            refused = client.request("TRACE", plain)
            named = {name.upper() for name in methods} | ({"HEAD"} if "get" in methods else set())
            assert refused.status_code == 405, path
            assert named <= set(refused.headers["allow"].split(", ")), path
            if "get" in methods:
                got, head = client.get(plain), client.head(plain)
                assert (head.status_code, head.content) == (got.status_code, b""), path
                assert head.headers["content-type"] == got.headers["content-type"], path


def test_each_route_keeps_its_word(tmp_path: Path) -> None:
    _, key = Auth(tmp_path).keys.create("alice", scopes=("chat", "metrics"))
    bearer = {"Authorization": f"Bearer {key}"}
    app = create_app(Settings(data_dir=tmp_path, sign_ins_per_minute=0), model=EchoModel(), store=MemoryStore())
    whole = schemathesis.openapi.from_asgi(
        "/openapi.json", app, config=SchemathesisConfig.from_dict({"headers": bearer, **config()}), headers=bearer
    )
    # /sessions is another test's; what is under /c/ is the same as without; all of it: `make contract`.
    for result in whole.exclude(path_regex="^/sessions|/c/|^/agent|^/tutor|/stream_").get_all_operations():

        @BRIEFLY
        @hypothesis.given(case=result.ok().as_strategy())  # type: ignore[union-attr]  # all of ours are well
        def ask(case: Case[Any]) -> None:
            case.call_and_validate()

        ask()


@proves("G13")
def test_the_document_is_made_beside_the_event_loop_and_once(tmp_path: Path) -> None:
    with serve_here(tmp_path, model=EchoModel(), history_url="memory:") as server, server.client() as client:
        plain, made_by = server.app.openapi, list[str]()

        def noted() -> dict[str, Any]:
            made_by.append(threading.current_thread().name)
            return plain()

        server.app.openapi = noted  # type: ignore[method-assign]
        assert client.get("/openapi.json").json() == client.get("/openapi.json").json()
    assert len(made_by) == 1
    assert made_by[0].startswith("recollect-slow")

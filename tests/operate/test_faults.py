"""For each of ten faults an operator finds the cause by log and metrics alone."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from pydantic import SecretStr
from typing_extensions import override

from chains import Chain
from histories import open_store
from histories.files.disk import Disk
from histories.files.store import FileStore
from playground_config.chat import ChatInput
from tests.calls import call
from tests.echo_model import EchoModel
from tests.live_server import langserve_warns, serve_here, wait_for
from tests.openai_stub import OpenAIStub
from tests.operators import logging_as_json, metric, scrape
from tests.sign_in import SECRET, claims

pytestmark = langserve_warns
WORDS = "the garden behind my house"


@pytest.fixture(scope="module")
def stub() -> Iterator[OpenAIStub]:
    with OpenAIStub() as stub:
        yield stub


class FullDisk(Disk):
    @override
    def write(self, descriptor: int, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def broken_chain() -> Chain:
    prompt = ChatPromptTemplate.from_messages([("system", "Speak {language}."), ("human", "{input}")])
    return Chain(
        name="chat",
        build=lambda model: RunnableLambda(lambda given: given) | prompt | model,  # no check sees through a function
        input_type=ChatInput,
        input_messages_key="input",
        history_messages_key="history",
    )


FAULTS = [
    ("a wrong key at the model", "[[fail 401]]", {}, "model_credentials", "Error code: 401"),
    ("no quota left", "[[fail 429]]", {}, "model_quota", "Error code: 429"),
    ("no such model", "[[fail 404]]", {}, "model_unknown", "Error code: 404"),
    ("a prompt that is too long", "[[fail 400]]", {}, "model_refused", "Error code: 400"),
    ("a model that is silent", "[[hang]]", {"model_timeout_s": 0.2}, "model_silent", "APITimeoutError"),
    ("no model there", "", {"openai_base_url": "http://127.0.0.1:9/v1"}, "model_unreachable", "ConnectError"),
    ("a variable missing in the prompt", "", {"chains": [broken_chain()]}, "chain", "'language'"),
    ("a full disk", "", {"store": "full"}, "disk_full", "StoreFull"),
    ("a store that is down", "", {"store": "down"}, "store_unavailable", "StoreUnavailable"),
]


def store_of(settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    if settings.get("store") == "full":
        return {**settings, "store": FileStore(folder / "histories", disk=FullDisk())}
    if settings.get("store") == "down":
        return {**settings, "store": open_store("redis://127.0.0.1:9/0")}
    return settings


@pytest.mark.parametrize(("name", "special", "settings", "reason", "cause"), FAULTS, ids=[fault[0] for fault in FAULTS])
def test_a_fault_is_told_by_log_and_metrics_without_what_people_said(
    stub: OpenAIStub, tmp_path: Path, name: str, special: str, settings: dict[str, Any], reason: str, cause: str
) -> None:
    options = {"openai_base_url": stub.base_url, **store_of(settings, tmp_path)}
    with logging_as_json() as log, serve_here(tmp_path, **options) as server, server.client() as client:
        answer = call(client, f"{WORDS} {special}", "s")
        assert answer.status_code >= 429
        (turn,) = log.lines(logger="recollect.turns", level="error", reason=reason)
        (request,) = wait_for(lambda: log.lines(event="request", route="/chat/invoke"), "the request's line")
        assert turn["request_id"] == request["request_id"] == answer.headers["x-request-id"]
        assert (turn["chain"], request["status"]) == ("chat", answer.status_code)
        assert cause in turn["error"]
        assert "Traceback" in turn["error"]
        assert metric(scrape(server), "recollect_turn_errors_total", chain="chat", reason=reason) == 1
        assert WORDS not in log.text
        assert "alice" not in log.text


def test_an_expired_token_is_told_by_log_and_metrics(tmp_path: Path) -> None:
    token = jwt.encode(claims(exp=1), SECRET)
    with logging_as_json() as log, serve_here(tmp_path, jwt_secret=SecretStr(SECRET), model=EchoModel()) as server:
        with server.client(None) as client:
            answer = client.get("/me", headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 401
        (told,) = log.lines(logger="recollect.auth")
        assert "ExpiredSignatureError" in told["event"]
        assert told["request_id"] == answer.headers["x-request-id"]
        assert metric(scrape(server), "recollect_refusals_total", reason="bad_credential") == 1
        assert token not in log.text


def test_what_is_said_is_logged_only_when_asked_for(stub: OpenAIStub, tmp_path: Path) -> None:
    for content in (False, True):
        options: dict[str, Any] = {"openai_base_url": stub.base_url, "log_content": content, "log_ids": "plain"}
        with logging_as_json("debug") as log, serve_here(tmp_path, **options) as server, server.client() as client:
            call(client, WORDS, f"s{content}")
            (turn,) = wait_for(lambda: log.lines(event="turn complete"), "the turn's line")
            assert (WORDS in log.text) is content
            assert (turn["user"], turn["session"]) == ("alice", f"s{content}")
            assert turn["output_tokens"] > 0
            assert turn["duration_ms"] >= turn["first_token_ms"]


def test_one_time_tokens_and_foreign_ids_are_never_in_the_log(stub: OpenAIStub, tmp_path: Path) -> None:
    with (
        logging_as_json() as log,
        serve_here(tmp_path, openai_base_url=stub.base_url) as server,
        server.client() as client,
    ):
        client.get("/login?token=a-one-time-token")
        forged = client.get("/healthz", headers={"X-Request-ID": 'a"\tb'})
        given = client.get("/healthz", headers={"X-Request-ID": "from-the-proxy-1"})
        assert given.headers["x-request-id"] == "from-the-proxy-1"
        assert forged.headers["x-request-id"] != 'a"\tb'
        assert "a-one-time-token" not in log.text
        wait_for(lambda: len(log.lines(event="request")) == 3, "a line for each request")

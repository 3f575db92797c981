"""What an operator sets for all chains, and what a client may say of a call: over HTTP, and the shipped agent."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langserve import RemoteRunnable

from chains import Chain
from chains.agent import CHAIN as AGENT
from tests.calls import error_of, events_of
from tests.live_server import PLAIN, Here, langserve_warns, serve_here
from tests.openai_stub import Behaviour, OpenAIStub

pytestmark = langserve_warns


def fail(_: Any) -> Any:
    raise KeyError("MY_VARIABLE")


def told(_: Any, config: RunnableConfig) -> dict[str, Any]:
    """What a step is told of its call."""
    metadata = config.get("metadata") or {}
    marks = {name: metadata.get(name) for name in ("team", "user_id", "langfuse_user_id", "session_id", "thread_id")}
    return {**marks, "tags": config.get("tags"), "limit": config.get("max_concurrency")}


assert AGENT is not None
CHAINS = [
    AGENT,
    Chain(name="failing", build=lambda model: fail, input_type=str, output_type=str),
    Chain(name="told", build=lambda model: RunnableLambda(told), input_type=str, output_type=Any),
    Chain(name="plain", build=lambda model: model, input_type=str),
]


@pytest.fixture(scope="module")
def stub() -> Iterator[OpenAIStub]:
    with OpenAIStub() as stub:
        yield stub


@pytest.fixture(scope="module")
def server(stub: OpenAIStub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    folder, url = tmp_path_factory.mktemp("settings"), stub.base_url
    with serve_here(folder, openai_base_url=url, chains=CHAINS, debug_errors=True, trace_hash_users=True) as server:
        yield server


@pytest.fixture
def alice(server: Here) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def config(session: str, **more: Any) -> Any:
    return {"configurable": {"session_id": session}, **more}


@pytest.mark.parametrize("way", ["invoke", "stream"])
def test_in_development_clients_are_told_why_a_chain_failed(alice: httpx.Client, way: str) -> None:
    answer = alice.post(f"/failing/{way}", json={"input": "hi", "config": config("debug")})
    status, sentence = error_of(answer)
    assert status == 502
    assert "KeyError" in sentence
    assert "MY_VARIABLE" in sentence


def test_what_a_client_says_of_its_call_reaches_the_chain_with_its_user_hashed(server: Here) -> None:
    chain: RemoteRunnable[str, Any] = RemoteRunnable(
        f"{server.url}/told", headers=server.headers("alice"), verify=PLAIN
    )
    said = config("marks", tags=["mine"], metadata={"team": "x", "user_id": "mallory"}, max_concurrency=3)
    answer: Any = chain.invoke("hi", said)
    assert (answer["team"], answer["tags"], answer["limit"]) == ("x", ["mine"], 3)
    assert answer["session_id"] == "marks"
    assert answer["thread_id"]
    assert answer["user_id"] == answer["langfuse_user_id"]
    assert answer["user_id"] not in ("", "alice", "mallory")
    assert chain.batch(["hi"], said)[0] == answer


CREDIT = {
    "402": (402, '{"error": {"message": "pay first"}}'),
    "insufficient_quota": (429, '{"error": {"message": "no", "code": "insufficient_quota"}}'),
}


@pytest.mark.parametrize("way", ["invoke", "stream"])
@pytest.mark.parametrize("name", CREDIT)
def test_an_account_without_credit_is_no_busy_model(alice: httpx.Client, stub: OpenAIStub, name: str, way: str) -> None:
    status, body = CREDIT[name]
    stub.behave(Behaviour(fail=status, body=body))
    answer = alice.post(f"/plain/{way}", json={"input": "hi", "config": config(f"{name} {way}")})
    refused, sentence = error_of(answer)
    assert refused == 502
    assert sentence.startswith("The account that this server has with its model is out of credit")


def test_the_shipped_agent_calculates_and_remembers(server: Here, alice: httpx.Client, stub: OpenAIStub) -> None:
    agent: Any = RemoteRunnable(f"{server.url}/agent", headers=server.headers("alice"), verify=PLAIN)
    answer = agent.invoke({"messages": ["what is it? [[tool calculator]]"]}, config("sum"))
    assert [message.type for message in answer["messages"]] == ["human", "ai", "tool", "ai"]
    chunks = list(agent.stream({"messages": ["what time? [[tool clock]]"]}, config("sum")))
    assert any(chunk.content for chunk in chunks)
    turns = alice.get("/sessions/sum/turns").json()["turns"]
    assert [[part["type"] for part in turn["parts"]] for turn in turns] == [["tool_call", "tool_result", "text"]] * 2
    roles = [message["role"] for message in stub.requests[-1].messages]
    assert roles == ["system", *["user", "assistant", "tool", "assistant"], *["user", "assistant", "tool"]]
    log = alice.post("/agent/stream_log", json={"input": {"messages": ["again"]}, "config": config("sum")})
    assert events_of(log.text)[-1][0] == "end"


def test_the_agent_is_served_only_with_its_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import chains.agent as module

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    copy: dict[str, Any] = {"__name__": "chains.agent", "__file__": module.__file__}
    exec(compile(Path(str(module.__file__)).read_text(), "chains/agent.py", "exec"), copy)
    assert copy["CHAIN"] is None

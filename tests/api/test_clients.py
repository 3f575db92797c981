"""Other people's clients against a running server: LangServe's `RemoteRunnable`, readers of the OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import httpx
import pytest
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.runnables import RunnableConfig
from langserve import RemoteRunnable
from openapi_spec_validator import OpenAPIV31SpecValidator

from tests.live_server import PLAIN, Here, langserve_warns, serve_here
from tests.openai_stub import OpenAIStub

pytestmark = langserve_warns
Remote = RemoteRunnable[Any, Any]
TEXTS = ["a\u2028b\u2029c\x85d\x0be\x1cf", "{input} \0 \ufffd", "😀e\u0301", "x\r\n\r\ndata: y"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    folder = tmp_path_factory.mktemp("clients")
    with OpenAIStub() as stub, serve_here(folder, openai_base_url=stub.base_url) as server:
        yield server


@pytest.fixture
def chat(server: Here) -> Iterator[Remote]:
    with remote(server, "chat") as client:
        yield client


@pytest.fixture
def tutor(server: Here) -> Iterator[Remote]:
    with remote(server, "tutor") as client:
        yield client


@contextmanager
def remote(server: Here, chain: str, user: str = "alice") -> Iterator[Remote]:
    client: Remote = RemoteRunnable(f"{server.url}/{chain}/", headers=server.headers(user), timeout=60, verify=PLAIN)
    yield client
    client.sync_client.close()


@pytest.fixture
def config() -> RunnableConfig:
    return {"configurable": {"session_id": f"remote {uuid4()}"}}


def seen(output: Any) -> str:
    text = output.text if isinstance(output, AIMessage) else output
    return str(text).partition("user messages: ")[2]


def ask(text: str) -> dict[str, str]:
    return {"input": text, "ability": "math"}


def test_invoke_remembers(tutor: Remote, config: RunnableConfig) -> None:
    reply = tutor.invoke(ask("one"), config)
    assert isinstance(reply, AIMessage)
    assert reply.usage_metadata is not None
    assert seen(tutor.invoke(ask("two"), config)) == "one | two"


def test_stream_gives_chunks_and_remembers(tutor: Remote, config: RunnableConfig) -> None:
    chunks = list(tutor.stream(ask("one"), config))
    assert len(chunks) > 1  # words that came in one read come as one
    assert all(isinstance(chunk, AIMessageChunk) for chunk in chunks)
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    assert seen(whole) == "one"
    assert seen(tutor.invoke(ask("two"), config)) == "one | two"


def test_batch_keeps_sessions_apart(chat: Remote, config: RunnableConfig) -> None:
    other: RunnableConfig = {"configurable": {"session_id": f"other {uuid4()}"}}
    configs: Any = [config, other, config]  # one for all is what it declares
    outputs = chat.batch([ask("one"), ask("two"), ask("three")], configs)
    assert [seen(output) for output in outputs] == ["one", "two", "one | three"]


def test_one_config_for_a_batch_is_one_conversation(chat: Remote, config: RunnableConfig) -> None:
    assert [seen(output) for output in chat.batch([ask("one"), ask("two")], config)] == ["one", "one | two"]


async def test_the_async_twins_remember(chat: Remote, config: RunnableConfig) -> None:
    assert seen(await chat.ainvoke(ask("one"), config)) == "one"
    assert [seen(output) for output in await chat.abatch([ask("two")], config)] == ["one | two"]
    assert seen("".join([chunk async for chunk in chat.astream(ask("three"), config)])) == "one | two | three"
    await chat.async_client.aclose()


async def test_a_log_can_be_streamed(tutor: Remote, config: RunnableConfig) -> None:
    await tutor.ainvoke(ask("one"), config)
    patches: Any = tutor.astream_log(ask("two"), config)
    logs = [patch async for patch in patches]
    whole = logs[0]
    for patch in logs[1:]:
        whole = whole + patch
    assert "one | two" in str(whole.state["final_output"])
    await tutor.async_client.aclose()


@pytest.mark.filterwarnings("ignore:This API is in beta")  # LangServe's client says so of its own
async def test_events_can_be_streamed(tutor: Remote, config: RunnableConfig) -> None:
    events = [event async for event in tutor.astream_events(ask("one"), config, version="v2")]
    assert events[-1]["event"] == "on_chain_end"
    kinds = {event["event"] for event in events}
    assert {"on_chain_start", "on_chat_model_stream", "on_chain_stream"} <= kinds
    assert seen(await tutor.ainvoke(ask("two"), config)) == "one | two"
    await tutor.async_client.aclose()


@pytest.mark.parametrize(
    "text", ["a\u2028b\u2029c\x85d\x0be\x1cf", "{input} \0 \ufffd", "😀e\u0301", "x\r\n\r\ndata: y"]
)
def test_any_text_survives_the_way_there_and_back(chat: Remote, config: RunnableConfig, text: str) -> None:
    assert seen(chat.invoke(ask(text), config)) == text
    assert seen("".join(chat.stream(ask(text), config))) == f"{text} | {text}"


def test_what_is_wrong_is_told(server: Here, chat: Remote, config: RunnableConfig) -> None:
    with pytest.raises(httpx.HTTPStatusError, match="session_id"):
        chat.invoke(ask("one"))
    with pytest.raises(httpx.HTTPStatusError, match="422"):
        list(chat.stream(ask("one")))
    with pytest.raises(httpx.HTTPStatusError, match="429"):
        chat.invoke(ask("[[fail 429]]"), config)
    with pytest.raises(httpx.HTTPStatusError, match="can't be reached") as told:
        list(chat.stream(ask("[[cut 3]]"), config))
    assert told.value.response.status_code == 503
    nobody: Remote = RemoteRunnable(f"{server.url}/chat/")
    with pytest.raises(httpx.HTTPStatusError, match="401"):
        nobody.invoke(ask("one"), config)
    nobody.sync_client.close()


def test_users_of_one_session_id_never_meet(server: Here, chat: Remote, config: RunnableConfig) -> None:
    chat.invoke(ask("my secret is blue"), config)
    with remote(server, "chat", "bob") as bobs:
        assert seen(bobs.invoke(ask("two"), config)) == "two"


def test_the_openapi_document_is_valid_and_says_how_to_sign_in(server: Here) -> None:
    with server.client() as client:
        document = client.get("/openapi.json").json()
        assert client.get("/docs").status_code == 200
    OpenAPIV31SpecValidator(document).validate()
    assert set(document["components"]["securitySchemes"]) == {"bearer", "cookie"}
    for path in ("/chat/invoke", "/tutor/batch", "/tutor/c/{config_hash}/stream_events", "/sessions"):
        for operation in document["paths"][path].values():
            assert operation["security"], path
    assert "user_id" not in str(document["components"]["schemas"]["chatConfigurable"])

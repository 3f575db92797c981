"""Chains as people bring them, over HTTP by LangServe's client: what they answer, and what is kept, in two stores."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from langchain_core.messages import AIMessage, ToolMessage, messages_from_dict
from langserve import RemoteRunnable

from histories.base import jsonable
from tests.any_chains import DOCUMENT, OUTPUTS, STREAMS
from tests.brought_chains import BROUGHT, LEFT, OTHERS, TASKS, TEXTS
from tests.live_server import PLAIN, Here, langserve_warns, serve_here, wait_for
from tests.openai_stub import OpenAIStub
from tests.stores import on_store

pytestmark = [
    *langserve_warns,
    pytest.mark.filterwarnings("ignore:create_react_agent has been moved"),
    # LangServe reads a config by a schema whose defaults LangChain gives as text.
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings"),
]


@pytest.fixture(scope="module")
def stub() -> Iterator[OpenAIStub]:
    with OpenAIStub() as stub:
        yield stub


@pytest.fixture(scope="module", params=["file", "redis"])
def server(request: pytest.FixtureRequest, stub: OpenAIStub, tmp_path_factory: Any) -> Iterator[Here]:
    chains = [*(chain for chain, _, _ in BROUGHT.values()), *OTHERS]
    folder = tmp_path_factory.mktemp("brought")
    with (
        on_store(request, request.param) as url,
        serve_here(folder, openai_base_url=stub.base_url, history_url=url, chains=chains) as server,
    ):
        yield server


@pytest.fixture
def alice(server: Here) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def remote(server: Here, chain: str) -> Any:
    return RemoteRunnable(f"{server.url}/{chain}", headers=server.headers("alice"), verify=PLAIN)


def config(session: str, **configurable: Any) -> Any:
    return {"configurable": {"session_id": session, **configurable}}


def turns_of(client: httpx.Client, session: str) -> list[dict[str, Any]]:
    return list(client.get(f"/sessions/{session}/turns").json()["turns"])


def kept(turn: dict[str, Any]) -> list[tuple[str, str]]:
    """The types of the messages of a reply, and their texts."""
    return [(message.type, message.text) for message in messages_from_dict(turn["output"])]


@pytest.mark.parametrize("name", [*BROUGHT, *TEXTS])
def test_a_chain_as_people_bring_it_answers_and_remembers(server: Here, alice: httpx.Client, name: str) -> None:
    if name in TEXTS:
        _, special, messages = TEXTS[name]
        chain, value = remote(server, "any"), f"{name} {special}".strip()
    else:
        _, value, messages = BROUGHT[name]
        chain = remote(server, name)
    assert chain.invoke(value, config(name))
    assert list(chain.stream(value, config(name)))
    for turn in turns_of(alice, name):
        assert turn["status"] == "complete"
        assert [kind for kind, _ in kept(turn)] == [kind for kind, _ in messages]
        assert all(said.startswith(text) for (_, said), (_, text) in zip(kept(turn), messages, strict=True))
    model_was_asked = messages[-1][1] == "You said"
    if model_was_asked:  # and saw the first turn once
        assert kept(turns_of(alice, name)[1])[-1][1].count("I have seen 2 user messages") == 1


@pytest.mark.parametrize("name", OUTPUTS)
def test_an_output_of_any_kind_is_answered_and_kept_over_http(server: Here, alice: httpx.Client, name: str) -> None:
    output, text = OUTPUTS[name]
    chain, plain = remote(server, "any"), jsonable(output)
    assert jsonable(chain.invoke(name, config(name, turn_id="t"))) == plain
    assert jsonable(chain.invoke(name, config(name, turn_id="t"))) == plain, "from the record"
    assert jsonable(list(chain.stream(name, config(name)))) == [plain]
    assert [kept(turn) for turn in turns_of(alice, name)] == [[("ai", text)]] * 2


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_of_any_kind_is_heard_and_kept_over_http(server: Here, alice: httpx.Client, name: str) -> None:
    chunks, said = STREAMS[name]
    assert jsonable(list(remote(server, "streams").stream(name, config(name)))) == jsonable(chunks)
    (turn,) = turns_of(alice, name)
    assert (turn["status"], [text for _, text in kept(turn)]) == ("complete", said)


@pytest.mark.parametrize("name", STREAMS)
def test_a_generator_of_any_kind_is_invoked_too_and_told_of_in_events(
    server: Here, alice: httpx.Client, name: str
) -> None:
    assert remote(server, "streams").invoke(name, config(f"{name}, invoked")) is not None
    assert events(server, name, f"{name}, told") is not None
    for session in (f"{name}, invoked", f"{name}, told"):
        (turn,) = turns_of(alice, session)
        assert (turn["status"], [text for _, text in kept(turn)]) == ("complete", STREAMS[name][1])


def events(server: Here, value: str, session: str) -> Any:
    """The output that the last event of a run tells of."""

    async def heard() -> Any:
        told = [one async for one in remote(server, "streams").astream_events(value, config(session), version="v2")]
        assert told[-1]["event"] == "on_chain_end"
        return told[-1]["data"]["output"]

    return asyncio.run(heard())


def test_several_messages_of_a_generator_are_a_list_of_them(server: Here) -> None:
    name, steps = "a call, its result and an answer", [(AIMessage, ""), (ToolMessage, "22"), (AIMessage, "It is 22.")]
    invoked = remote(server, "streams").invoke(name, config("steps"))
    for output in (invoked, events(server, name, "steps, told")):
        assert [(isinstance(one, kind), one.text) for one, (kind, _) in zip(output, steps, strict=True)] == [
            (True, text) for _, text in steps
        ]


def test_what_a_graph_asks_a_person_is_on_the_record_and_before_the_model(server: Here, alice: httpx.Client) -> None:
    asks = remote(server, "asks")
    assert asks.invoke({"messages": ["go"]}, config("asks"))["__interrupt__"][0]["value"] == "Shall I?"
    assert list(asks.stream({"messages": ["go"]}, config("asks")))
    assert [kept(turn) for turn in turns_of(alice, "asks")] == [[("ai", "Shall I?")]] * 2


def test_documents_are_the_sources_of_a_turn_and_tool_steps_its_parts(server: Here, alice: httpx.Client) -> None:
    remote(server, "rag").invoke({"input": "hi"}, config("sources"))
    remote(server, "executor").invoke({"input": "hi [[tool weather]]"}, config("sources"))
    first, second = turns_of(alice, "sources")
    assert [(part["type"], part.get("title")) for part in first["parts"]] == [("text", None), ("source", "Weather")]
    assert [part["type"] for part in second["parts"]] == ["tool_call", "tool_result", "text"]


def test_an_artifact_of_a_tool_is_kept_as_far_as_json_holds_it(server: Here, alice: httpx.Client) -> None:
    answer = remote(server, "agent").invoke({"messages": ["hi [[tool chart]]"]}, config("artifact"))
    (result,) = [message for message in answer["messages"] if isinstance(message, ToolMessage)]
    assert result.artifact == {"points": [1], "png": "eA==", "3": DOCUMENT.metadata}
    assert turns_of(alice, "artifact")[0]["output"][1]["data"]["artifact"] == result.artifact


@pytest.mark.parametrize("way", ["invoke", "stream"])
def test_a_person_answers_an_agents_call_with_the_next_turn(
    server: Here, alice: httpx.Client, stub: OpenAIStub, way: str
) -> None:
    agent, session = remote(server, "agent"), f"asked {way}"
    list(agent.stream({"messages": ["hi [[tool ask]]"]}, config(session)))
    (turn,) = turns_of(alice, session)
    assert (turn["status"], turn["parts"][0]["type"]) == ("complete", "tool_call")
    told = {"type": "tool", "content": "yes", "tool_call_id": turn["parts"][0]["id"]}
    asked = getattr(agent, way)({"messages": [told]}, config(session))
    assert asked if way == "invoke" else list(asked)
    assert [message["role"] for message in stub.requests[-1].messages] == ["user", "assistant", "tool"]
    assert kept(turns_of(alice, session)[1])[-1][1].startswith("You said")


def test_what_authors_let_clients_configure_is_configured_and_streams(server: Here, stub: OpenAIStub) -> None:
    chunks = list(remote(server, "configured").stream("one two three", config("fields", longest=77)))
    assert type(chunks[0]).__name__ == "AIMessageChunk"
    assert 77 in (stub.requests[-1].body.get("max_tokens"), stub.requests[-1].body.get("max_completion_tokens"))
    assert remote(server, "configured").invoke("hi", config("fields", which="other")).content == "the other"
    with pytest.raises(httpx.HTTPStatusError, match="422"):
        remote(server, "configured").invoke("hi", config("fields", which="none"))


def test_the_events_of_a_turn_end_when_it_is_durable(server: Here, alice: httpx.Client) -> None:
    for chain in ("configured", "generator"):
        for number in range(3):
            session = f"durable {chain} {number}"
            answer = alice.post(f"/{chain}/stream_events", json={"input": "hi", "config": config(session)})
            assert turns_of(alice, session)[-1]["status"] == "complete"
            assert answer.text.count('"event":"on_chain_stream"') >= 2 - (chain == "configured")


@pytest.mark.parametrize("way", ["invoke", "stream"])
@pytest.mark.parametrize("name", ["exits", "last", "loud"])
def test_what_ends_badly_fails_its_own_turn_alone(server: Here, alice: httpx.Client, name: str, way: str) -> None:
    session = f"{name} {way}"
    for _ in range(2):
        with pytest.raises(httpx.HTTPStatusError):
            list(getattr(remote(server, "any"), way)(name, config(session)))
    statuses = {turn["status"] for turn in turns_of(alice, session)}
    assert statuses == {"failed" if name == "exits" or way == "invoke" else "interrupted"}
    assert remote(server, "router").invoke({"input": "hi"}, config(session)) == "short"


def test_work_that_outlives_its_turn_and_exits_ends_no_server(server: Here) -> None:
    LEFT.clear()
    assert remote(server, "any").invoke("leaves", config("leaves")) == "done"
    wait_for(lambda: LEFT, "the task that was left")
    wait_for(lambda: all(task.done() for task in TASKS), "its end")
    assert all(type(task.exception()).__name__ == "ChainExit" for task in TASKS)
    assert remote(server, "any").invoke("leaves", config("leaves")) == "done"

"""Chains and models of all kinds over HTTP: agents, what servers do each in its own way, what authors raise."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import date
from typing import Any

import httpx
import pytest
from fastapi import HTTPException
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, AIMessageChunk, AnyMessage
from langchain_core.output_parsers import CommaSeparatedListOutputParser
from langchain_core.tools import tool
from langserve import RemoteRunnable
from typing_extensions import TypedDict

from api.chain_errors import retry_after
from chains import Chain
from tests.calls import error_of, events_of, said
from tests.live_server import PLAIN, Here, langserve_warns, serve_here
from tests.openai_stub import Behaviour, OpenAIStub
from tests.proofs import proves
from tests.stores import on_store

pytestmark = langserve_warns


class Messages(TypedDict):
    messages: list[AnyMessage]


class Text(TypedDict):
    answer: str


class Busy(Exception):
    status_code = 429
    headers = {"Retry-After": "3"}  # noqa: RUF012


@tool
def weather(city: str) -> str:
    """Tells the weather."""
    return f"sunny in {city}"


FAILURES: dict[str, Exception] = {
    "418": HTTPException(418, "a teapot"),
    "429": Busy(),
    "bug": KeyError("x"),
    "200": HTTPException(200, "fine"),
    "204": HTTPException(204),
    "302": HTTPException(302, headers={"Location": "https://elsewhere.example"}),
    "500": HTTPException(500, "oh"),
    "a date": HTTPException(422, [{"since": date(2020, 1, 1)}]),
    "headers": HTTPException(
        401,
        "who?",
        headers={"Retry-After": 7, "Content-Length": "1", "X-Of": "chain", "X-Bad": "a\r\nb", "": "c"},  # type: ignore[dict-item]
    ),
}


def fail(messages: Any) -> Any:
    raise FAILURES[messages[-1].text]


def dice(said: str) -> str:
    """What one writes to have the same again."""
    random.seed(42)
    return f"{said}: {random.randint(1, 6)}"


def passing_on(value: dict[str, Any]) -> dict[str, Any]:
    return {**value, "answer": f"{len(value['past'])}"}


CHAINS = [
    Chain(
        name="agent",
        build=lambda model: create_agent(model, [weather]),
        input_type=Messages,
        output_type=Messages,
        input_messages_key="messages",
    ),
    Chain(
        name="items",
        build=lambda model: model | CommaSeparatedListOutputParser(),
        input_type=str,
        output_type=list[str],
    ),
    Chain(name="failing", build=lambda model: fail, input_type=str, output_type=str),
    Chain(name="wrong", build=lambda model: lambda _: {"n": 1}, input_type=str, output_type=int),
    Chain(name="upper", build=lambda model: str.upper, input_type=str, output_type=str, memory=False),
    Chain(
        name="passing",
        build=lambda model: passing_on,
        input_type=dict[str, Any],
        output_type=Text,
        input_messages_key="q",
        history_messages_key="past",
    ),
    Chain(name="dice", build=lambda model: lambda said: dice(said[-1].text), input_type=str, output_type=str),
    Chain(name="plain", build=lambda model: model, input_type=str),
]


@pytest.fixture(scope="module")
def stub() -> Iterator[OpenAIStub]:
    with OpenAIStub() as stub:
        yield stub


@pytest.fixture(scope="module", params=["file", "redis"])
def server(
    request: pytest.FixtureRequest, stub: OpenAIStub, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Here]:
    folder = tmp_path_factory.mktemp("any")
    with (
        on_store(request, request.param) as url,
        serve_here(folder, openai_base_url=stub.base_url, history_url=url, chains=CHAINS) as server,
    ):
        yield server


@pytest.fixture
def alice(server: Here) -> Iterator[httpx.Client]:
    with server.client() as client:
        yield client


def remote(server: Here, chain: str) -> Any:
    return RemoteRunnable(f"{server.url}/{chain}", headers=server.headers("alice"), verify=PLAIN)


def config(session: str, **more: Any) -> Any:
    return {"configurable": {"session_id": session}, **more}


def turns_of(client: httpx.Client, session: str) -> list[dict[str, Any]]:
    return list(client.get(f"/sessions/{session}/turns").json()["turns"])


def test_nine_turns_of_an_agent_show_the_model_each_message_once_and_in_order(
    server: Here, alice: httpx.Client, stub: OpenAIStub
) -> None:
    agent = remote(server, "agent")
    for number in range(9):
        question = {"messages": [{"role": "user", "content": f"q{number} [[tool weather]]"}]}
        if number % 2:
            chunks = list(agent.stream(question, config("nine")))
            assert any(isinstance(chunk, AIMessageChunk) and chunk.content for chunk in chunks)
        else:
            answer = agent.invoke(question, config("nine"))
            assert [message.type for message in answer["messages"]] == ["human", "ai", "tool", "ai"]
    roles = [message["role"] for message in stub.requests[-1].messages]
    assert roles == ["user", "assistant", "tool", "assistant"] * 8 + ["user", "assistant", "tool"]
    turns = turns_of(alice, "nine")
    assert [[m["type"] for m in turn["output"]] for turn in turns] == [["ai", "tool", "ai"]] * 9
    assert [part["type"] for part in turns[1]["parts"]] == ["tool_call", "tool_result", "text"]
    assert turns[1]["finish_reason"] == "stop"


def test_an_agents_first_word_comes_before_its_model_has_finished(server: Here, stub: OpenAIStub) -> None:
    gate = stub.pause_after(2)
    try:
        stream = remote(server, "agent").stream({"messages": ["hello there"]}, config("first word"))
        assert next(chunk.content for chunk in stream if chunk.content)
        gate.release()
        list(stream)
    finally:
        gate.release()
        stub.gate = None


def test_each_chain_is_held_to_its_own_type_and_none_is_refused_for_it(server: Here, alice: httpx.Client) -> None:
    for way in ("invoke", "batch"):
        items = getattr(remote(server, "items"), way)
        told = items("a, b", config(way)) if way == "invoke" else items(["a, b"], config(way))[0]
        assert isinstance(told, list)
        key = "input" if way == "invoke" else "inputs"
        value: Any = "x" if way == "invoke" else ["x"]
        wrong = alice.post(f"/wrong/{way}", json={key: value, "config": config(way)}).json()["output"]
        assert wrong == ({"n": 1} if way == "invoke" else [{"n": 1}])
        question: Any = {"q": "x"} if way == "invoke" else [{"q": "x"}]
        body = alice.post(f"/passing/{way}", json={key: question, "config": config(f"p {way}")}).json()["output"]
        assert body == ({"answer": "0"} if way == "invoke" else [{"answer": "0"}])


def test_a_chain_without_memory_needs_no_session_and_keeps_nothing(server: Here, alice: httpx.Client) -> None:
    before = alice.get("/sessions").json()
    assert remote(server, "upper").invoke("hi") == "HI"
    assert "".join(remote(server, "upper").stream("hi")) == "HI"
    assert alice.get("/sessions").json() == before


def test_what_an_author_raises_with_a_status_keeps_it(alice: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    def failing(what: str) -> httpx.Response:
        return alice.post("/failing/invoke", json={"input": what, "config": config("failing")})

    teapot, busy, bug = failing("418"), failing("429"), failing("bug")
    assert (teapot.status_code, teapot.json()["detail"]) == (418, "a teapot")
    assert (busy.status_code, busy.headers["retry-after"]) == (429, "3")
    assert bug.status_code == 502
    assert "KeyError" not in bug.text
    (line,) = [record for record in caplog.records if "KeyError" in getattr(record, "fields", {}).get("cause", "")]
    assert (line.message, line.fields["chain"], line.fields["reason"]) == ("turn failed", "failing", "chain")  # type: ignore[attr-defined]
    assert line.fields["turn"] == turns_of(alice, "failing")[-1]["turn_id"]  # type: ignore[attr-defined]
    assert "failing" not in line.fields["session"]  # type: ignore[attr-defined]
    assert "in fail" in caplog.text
    assert turns_of(alice, "failing")[-1]["error"]["status_code"] == 502


@pytest.mark.parametrize("way", ["invoke", "stream"])
def test_what_an_author_raises_is_never_a_success_nor_a_bare_error(alice: httpx.Client, way: str) -> None:
    def failing(what: str) -> httpx.Response:
        return alice.post(f"/failing/{way}", json={"input": what, "config": config("never bare")})

    for what in ("200", "204", "302", "500"):
        answer = failing(what)
        assert (answer.status_code, answer.json()["detail"]) == (502, "The model could not answer.")
        assert "location" not in answer.headers
    dated = failing("a date")
    assert (dated.status_code, dated.json()["detail"]) == (422, [{"since": "2020-01-01"}])
    told = failing("headers")
    assert (told.status_code, told.json()["detail"]) == (401, "who?")
    assert (told.headers["retry-after"], told.headers["x-of"]) == ("7", "chain")
    assert "x-bad" not in told.headers
    assert {turn["status"] for turn in turns_of(alice, "never bare")} == {"failed"}


@pytest.mark.parametrize("way", ["invoke", "stream"])
def test_a_chain_that_seeds_pythons_generator_has_turns_of_their_own(alice: httpx.Client, way: str) -> None:
    state = random.getstate()
    try:
        for said in ("one", "two", "three"):
            alice.post(f"/dice/{way}", json={"input": said, "config": config(f"dice {way}")}).raise_for_status()
    finally:
        random.setstate(state)
    turns = turns_of(alice, f"dice {way}")
    assert [turn["output"][0]["data"]["content"][:-1] for turn in turns] == ["one: ", "two: ", "three: "]
    assert len({turn["turn_id"] for turn in turns}) == 3


def test_marks_for_traces_that_a_client_sends_are_passed_on(server: Here, alice: httpx.Client) -> None:
    told = config("marks", tags=["mine"], metadata={"team": "x", "user_id": "mallory"})
    events = [event for event in alice_events(alice, told) if event["event"] == "on_chat_model_start"]
    assert events
    assert "mine" in events[0]["tags"]
    assert (events[0]["metadata"]["team"], events[0]["metadata"]["user_id"]) == ("x", "alice")
    assert events[0]["metadata"]["session_id"] == "marks"


def alice_events(client: httpx.Client, told: Any) -> list[dict[str, Any]]:
    answer = client.post("/plain/stream_events", json={"input": "hi", "config": told})
    return [data for name, data in events_of(answer.text) if name == "data"]


@pytest.mark.parametrize("way", ["invoke", "batch", "stream", "stream_log", "stream_events"])
def test_what_is_no_message_is_a_422_with_a_sentence(alice: httpx.Client, way: str) -> None:
    for value in ([None], [3], [{"x": 1}], [{"type": "human"}]):
        body: Any = {"messages": value}
        body = {"inputs": [body]} if way == "batch" else {"input": body}
        answer = alice.post(f"/agent/{way}", json={**body, "config": config("none")})
        assert answer.status_code == 422, answer.text
        assert answer.json()["detail"]


# --- models


def talk(client: httpx.Client, text: str, session: str, way: str = "stream") -> httpx.Response:
    return client.post(f"/plain/{way}", json={"input": text, "config": config(session)})


@pytest.mark.parametrize("way", ["invoke", "stream"])
def test_why_a_reply_ended_and_what_was_thought_is_on_the_record(alice: httpx.Client, way: str) -> None:
    assert talk(alice, "hi [[finish length]] [[think because]]", f"why {way}", way).status_code == 200
    (turn,) = turns_of(alice, f"why {way}")
    assert (turn["status"], turn["finish_reason"]) == ("complete", "length")
    assert turn["parts"][0] == {"type": "reasoning", "text": "because"}
    assert "because" not in turn["output"][0]["data"]["content"].replace("[[think because]]", "")


@pytest.mark.parametrize("way", ["invoke", "stream"])
def test_a_model_that_refuses_is_told_from_one_that_says_nothing(alice: httpx.Client, way: str) -> None:
    for mode, reason in (("refuse", "refusal"), ("null", "stop")):
        talk(alice, f"hi [[{mode}]]", f"{mode} {way}", way)
        (turn,) = turns_of(alice, f"{mode} {way}")
        assert (turn["status"], turn["finish_reason"]) == ("complete", reason)


def test_a_stream_that_just_ends_is_a_cut_one(alice: httpx.Client) -> None:
    status, _ = error_of(talk(alice, "hi [[unended]]", "cut"))
    (turn,) = turns_of(alice, "cut")
    assert (status, turn["status"], turn["finish_reason"]) == (503, "interrupted", "cut")
    assert turn["output"][0]["data"]["content"].startswith("You said")


def test_usage_that_comes_with_each_chunk_counts_once(alice: httpx.Client) -> None:
    talk(alice, "hi [[counts]]", "counts")
    whole = talk(alice, "hi [[n 3]]", "counted", "invoke").json()["output"]["usage_metadata"]
    assert turns_of(alice, "counts")[0]["usage"]["output_tokens"] < 40
    assert whole["output_tokens"] == 3


def test_a_server_without_stream_options_is_asked_without_them(alice: httpx.Client, stub: OpenAIStub) -> None:
    before = len(stub.requests)
    for _ in range(2):
        assert "event: end" in talk(alice, "hi [[strict]]", "strict").text
    assert "stream_options" not in stub.requests[-1].body
    assert len([one for one in stub.requests[before:] if "[[strict]]" in one.messages[-1]["content"]]) == 3


@pytest.mark.parametrize("habit", ["[[whole]]", "[[processing 5]]"])
def test_a_stream_in_any_form_is_a_stream(alice: httpx.Client, habit: str) -> None:
    answer = talk(alice, f"hi {habit}", habit.strip("[]"))
    assert "You said" in said(answer, "stream")
    assert turns_of(alice, habit.strip("[]"))[0]["status"] == "complete"


@proves("G11")
def test_an_unanswered_call_does_not_make_the_session_useless(alice: httpx.Client, stub: OpenAIStub) -> None:
    talk(alice, "hi [[tool weather]] [[calls 2]]", "unanswered", "invoke")
    assert talk(alice, "something else", "unanswered", "invoke").status_code == 200
    assert [message["role"] for message in stub.requests[-1].messages] == ["user", "user"]
    assert turns_of(alice, "unanswered")[0]["output"][0]["data"]["tool_calls"]
    talk(alice, "hi [[null]]", "empty", "invoke")
    talk(alice, "again", "empty", "invoke")
    assert [message["role"] for message in stub.requests[-1].messages] == ["user", "user"]


REFUSALS = {
    "insufficient_quota": (429, 502, "out of credit"),
    "context_length_exceeded": (400, 413, ""),
    "content_filter": (400, 422, "content filter"),
}


@pytest.mark.parametrize("code", REFUSALS)
def test_a_refusal_is_named_and_its_words_are_in_the_operators_log(
    alice: httpx.Client, stub: OpenAIStub, caplog: pytest.LogCaptureFixture, code: str
) -> None:
    status, told, words = REFUSALS[code]
    stub.behave(Behaviour(fail=status, body=f'{{"error": {{"message": "no", "code": "{code}", "type": "{code}"}}}}'))
    problem = error_of(call_plain(alice, code))
    assert problem[0] == told
    assert words in problem[1]
    assert any(code in getattr(record, "fields", {}).get("cause", "") for record in caplog.records)


def call_plain(client: httpx.Client, session: str) -> httpx.Response:
    return talk(client, "hi", session, "invoke")


def test_how_long_to_wait_is_understood_in_every_form() -> None:
    assert retry_after({"retry-after": "7"}) == "7"
    assert retry_after({"retry-after": "1.5"}) == "2"
    assert retry_after({"retry-after-ms": "2500"}) == "3"
    assert retry_after({"retry-after": "Wed, 21 Oct 2099 07:28:00 GMT"}) is None
    assert retry_after({"retry-after": "soon"}) is None


def test_a_message_is_a_message_still(server: Here) -> None:
    assert isinstance(remote(server, "plain").invoke("hi", config("still")), AIMessage)

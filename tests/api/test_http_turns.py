"""Turns over real HTTP: one at a time in a session, safe to retry, on every endpoint."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import httpx
import pytest

from tests.calls import STREAMS, WAYS, call, error_of, said
from tests.live_server import Here, langserve_warns, serve_here
from tests.openai_stub import OpenAIStub
from tests.proofs import proves

pytestmark = langserve_warns


@pytest.fixture(scope="module")
def stub() -> Iterator[OpenAIStub]:
    with OpenAIStub() as stub:
        yield stub


@pytest.fixture(scope="module")
def server(stub: OpenAIStub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    with serve_here(tmp_path_factory.mktemp("turns"), openai_base_url=stub.base_url) as server:
        yield server


@pytest.fixture(scope="module")
def strict(stub: OpenAIStub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    """A server that refuses a second turn while one runs."""
    folder = tmp_path_factory.mktemp("strict")
    with serve_here(folder, openai_base_url=stub.base_url, turn_conflict="reject") as server:
        yield server


@pytest.fixture(scope="module")
def alice(server: Here) -> Iterator[httpx.Client]:
    with server.client("alice") as client:
        yield client


@contextmanager
def a_turn_that_runs(client: httpx.Client, stub: OpenAIStub, session: str, **how: Any) -> Iterator[None]:
    """A turn whose reply is held back after its first word, until the end of the block."""
    gate = stub.pause_after(1)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(call, client, "first", session, **how)
        try:
            gate.wait()
            yield
        finally:
            gate.release()
            stub.gate = None
        assert "You said: first" in said(running.result(60))


def turns_of(client: httpx.Client, session: str) -> list[dict[str, Any]]:
    return list(client.get(f"/sessions/{session}/turns").json()["turns"])


@pytest.mark.parametrize("chain", ["chat", "tutor"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("first", ["invoke", "stream"])
def test_a_retry_is_answered_from_the_record(
    alice: httpx.Client, stub: OpenAIStub, chain: str, first: str, way: str
) -> None:
    session = f"retry {chain} {first} {way}"
    reply = said(call(alice, "one", session, chain=chain, way=first, turn_id="t1"), first)
    asked = len(stub.requests)
    for hashed in (False, True):
        again = call(alice, "one", session, chain=chain, way=way, hashed=hashed, turn_id="t1")
        assert said(again, way) == reply
    assert len(stub.requests) == asked
    assert [turn["turn_id"] for turn in turns_of(alice, session)] == ["t1"]


@pytest.mark.parametrize("way", WAYS)
def test_a_retry_of_a_turn_that_runs_joins_it(alice: httpx.Client, stub: OpenAIStub, way: str) -> None:
    session = f"running {way}"
    with ThreadPoolExecutor(1) as threads:
        with a_turn_that_runs(alice, stub, session, turn_id="t1"):
            again = threads.submit(call, alice, "first", session, way=way, turn_id="t1")
        assert "first" in said(again.result(), way)
    assert [turn["turn_id"] for turn in turns_of(alice, session)] == ["t1"]


@proves("G5")
@pytest.mark.parametrize("way", WAYS)
def test_a_retry_of_a_failed_turn_runs_again_and_replaces_it(alice: httpx.Client, stub: OpenAIStub, way: str) -> None:
    session = f"failed {way}"
    stub.fail_with(500)
    assert error_of(call(alice, "one", session, way=way, turn_id="t1"))[0] == 502
    assert [turn["status"] for turn in turns_of(alice, session)] == ["failed"]
    assert said(call(alice, "one", session, way=way, turn_id="t1"), way).endswith("1 user messages: one")
    assert [turn["status"] for turn in turns_of(alice, session)] == ["complete"]
    assert said(call(alice, "two", session, way=way), way).endswith("2 user messages: one | two")


@proves("G7")
def test_the_turn_id_of_one_user_is_nothing_to_another(server: Here, alice: httpx.Client) -> None:
    call(alice, "my secret is blue", "ours", turn_id="t1")
    with server.client("bob") as bob:
        assert said(call(bob, "two", "ours", turn_id="t1")).endswith("1 user messages: two")


def test_a_batch_that_names_a_turn_twice_is_422(alice: httpx.Client) -> None:
    config = {"configurable": {"session_id": "twice", "turn_id": "t1"}}
    answer = alice.post("/chat/batch", json={"inputs": [{"input": "one"}, {"input": "two"}], "config": config})
    assert answer.status_code == 422
    assert "turn_id" in answer.json()["detail"]


@pytest.mark.parametrize("way", WAYS)
def test_a_busy_session_is_409_before_the_stream_opens_where_turns_do_not_queue(
    strict: Here, stub: OpenAIStub, way: str
) -> None:
    with strict.client("alice") as client:
        with a_turn_that_runs(client, stub, f"busy {way}"):
            answer = call(client, "second", f"busy {way}", way=way)
            assert answer.status_code == 409
            assert answer.headers["content-type"] == "application/json"
            assert answer.json()["detail"]
        assert said(call(client, "third", f"busy {way}", way=way), way).endswith("2 user messages: first | third")


@proves("G3")
@pytest.mark.parametrize("way", ["invoke", *STREAMS])
async def test_twelve_turns_at_once_in_one_session_all_see_those_before_them(server: Here, way: str) -> None:
    session = f"queue {way}"
    body = {"config": {"configurable": {"session_id": session}}}
    async with server.async_client("alice") as client:
        answers = await asyncio.gather(
            *(client.post(f"/chat/{way}", json={"input": {"input": f"n{n}"}, **body}) for n in range(12))
        )
        turns = (await client.get(f"/sessions/{session}/turns")).json()["turns"]
    seen = sorted((said(answer, way).partition("user messages: ")[2].split(" | ") for answer in answers), key=len)
    assert [len(texts) for texts in seen] == list(range(1, 13))
    assert all(longer[: len(shorter)] == shorter for shorter, longer in pairwise(seen))
    assert sorted(seen[-1]) == sorted(f"n{n}" for n in range(12))
    assert [turn["status"] for turn in turns] == ["complete"] * 12


async def test_other_sessions_do_not_wait_for_a_turn(server: Here, alice: httpx.Client, stub: OpenAIStub) -> None:
    with a_turn_that_runs(alice, stub, "slow one"):
        stub.gate = None  # which holds the first one still
        async with server.async_client("alice") as client:
            body = [
                {"input": {"input": "x"}, "config": {"configurable": {"session_id": f"other {n}"}}} for n in range(8)
            ]
            answers = await asyncio.gather(*(client.post("/chat/invoke", json=one) for one in body))
        assert {answer.status_code for answer in answers} == {200}


@pytest.mark.parametrize("way", ["stream", "stream_log", "stream_events"])
def test_a_stream_says_each_word_as_it_comes(alice: httpx.Client, stub: OpenAIStub, way: str) -> None:
    gate = stub.pause_after(2)
    body = {"input": {"input": "one"}, "config": {"configurable": {"session_id": f"early {way}"}}}
    with alice.stream("POST", f"/chat/{way}", content=json.dumps(body)) as answer:
        early = ""
        for text in answer.iter_text():
            early += text
            if "said:" in early:
                break
        assert "I have seen" not in early
        gate.release()
        stub.gate = None

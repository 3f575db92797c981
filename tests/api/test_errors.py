"""What clients are told when the model, the disk or the client itself fails, on every endpoint."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from typing_extensions import override

from histories.files.disk import Disk
from histories.files.store import FileStore
from tests.calls import STREAMS, WAYS, call, error_of, events_of, said, text_of_events
from tests.live_server import Here, langserve_warns, serve_here, wait_for
from tests.openai_stub import Behaviour, OpenAIStub
from tests.proofs import proves
from tests.quick import tries

pytestmark = langserve_warns
KEY = "sk-the-secret-of-the-operator"


@pytest.fixture(scope="module")
def stub() -> Iterator[OpenAIStub]:
    with OpenAIStub() as stub:
        yield stub


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("errors")


@pytest.fixture(scope="module")
def alice(stub: OpenAIStub, folder: Path) -> Iterator[httpx.Client]:
    with serve_here(folder, openai_base_url=stub.base_url, openai_api_key=KEY) as server, server.client() as client:
        yield client


@pytest.fixture(scope="module")
def hasty(stub: OpenAIStub, folder: Path) -> Iterator[httpx.Client]:
    """The same person at another server on the same histories, which gives a silent model up soon."""
    settings: dict[str, Any] = {"openai_base_url": stub.base_url, "openai_api_key": KEY, "model_timeout_s": 0.5}
    with serve_here(folder, **settings) as server, server.client() as client:
        yield client


def waits(behaviour: Behaviour) -> bool:
    return behaviour.hang or behaviour.stall is not None


def asking(stub: OpenAIStub, behaviour: Behaviour) -> str:
    """Words that are answered so. Silence is asked for by the words: who gives up early may never reach the stub."""
    if waits(behaviour):
        return "one two [[hang]]" if behaviour.hang else f"one two [[stall {behaviour.stall}]]"
    stub.behave(behaviour)
    return "one two"


def turns_of(client: httpx.Client, session: str) -> list[dict[str, Any]]:
    return list(client.get(f"/sessions/{session}/turns").json()["turns"])


# --- the model

LEAKY = json.dumps({"error": {"message": f"Wrong key {KEY} at /etc/secrets", "type": "x", "code": None}})
REFUSALS = {
    "401": (Behaviour(fail=401, body=LEAKY), 502, "credentials"),
    "403": (Behaviour(fail=403, body=LEAKY), 502, "credentials"),
    "400": (Behaviour(fail=400, body=LEAKY), 502, "refused this request"),
    "404": (Behaviour(fail=404, body=LEAKY), 502, "no such model"),
    "429": (Behaviour(fail=429, body=LEAKY, retry="7"), 429, "try again"),
    "429 without a time": (Behaviour(fail=429, body=LEAKY), 429, "try again"),
    "500": (Behaviour(fail=500, body=LEAKY), 502, "could not answer"),
    "503": (Behaviour(fail=503, body=LEAKY), 503, "try again"),
    "an error page": (Behaviour(fail=500, body="<html>not JSON</html>"), 502, "could not answer"),
    "an error at once": (Behaviour(error=0), 502, "could not answer"),
    "no JSON at once": (Behaviour(bad=0), 502, "could not answer"),
    "a break at once": (Behaviour(cut=0), 503, "try again"),
    "silence": (Behaviour(hang=True), 503, "said nothing for 0.5 seconds"),
    "silence after the head": (Behaviour(stall=0), 503, "said nothing for 0.5 seconds"),
}


def no_secret_in(text: str, stub: OpenAIStub) -> None:
    """Fails if there is any in a text that clients get."""
    for secret in (KEY, stub.base_url, "/etc/secrets", "Traceback", 'File "', "site-packages", "told to fail"):
        assert secret not in text


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", REFUSALS)
def test_a_model_that_fails_before_its_first_word_is_told_by_the_status(
    alice: httpx.Client, hasty: httpx.Client, stub: OpenAIStub, caplog: pytest.LogCaptureFixture, name: str, way: str
) -> None:
    behaviour, status, words = REFUSALS[name]
    session = f"{name} {way}"
    question = asking(stub, behaviour)
    answer = call(hasty if waits(behaviour) else alice, question, session, way=way)
    told, message = error_of(answer)
    assert told == status
    assert words in message
    if way not in ("stream_log", "stream_events"):  # these tell of the start first
        assert answer.status_code == status
        expected = {429: "7" if behaviour.retry else "10", 503: "5"}.get(status)
        assert answer.headers.get("retry-after") == expected
    no_secret_in(answer.text, stub)
    assert KEY not in caplog.text
    assert [(turn["status"], turn["output"]) for turn in turns_of(alice, session)] == [("failed", [])]
    assert said(call(alice, "two", session, way=way), way).endswith("I have seen 1 user messages: two")


BREAKS = {
    "a break": (Behaviour(cut=3), 503),
    "no JSON": (Behaviour(bad=3), 502),
    "an error": (Behaviour(error=3), 502),
    "silence": (Behaviour(stall=3), 503),
}


@pytest.mark.parametrize("way", STREAMS)
@pytest.mark.parametrize("name", BREAKS)
def test_a_model_that_fails_in_mid_reply_ends_the_stream_with_one_clean_event(
    alice: httpx.Client, hasty: httpx.Client, stub: OpenAIStub, caplog: pytest.LogCaptureFixture, name: str, way: str
) -> None:
    behaviour, status = BREAKS[name]
    session = f"mid {name} {way}"
    question = asking(stub, behaviour)
    answer = call(hasty if waits(behaviour) else alice, question, session, way=way)
    assert answer.status_code == 200
    assert error_of(answer)[0] == status
    assert text_of_events(events_of(answer.text), way) == "You said: one "
    no_secret_in(answer.text, stub)
    assert KEY not in caplog.text
    (turn,) = turns_of(alice, session)
    assert (turn["status"], turn["output"][0]["data"]["content"]) == ("interrupted", "You said: one ")
    call(alice, "three", session)
    assert [message["content"] for message in stub.requests[-1].messages[1:]] == [question, "You said: one ", "three"]


@pytest.mark.parametrize("way", ["invoke", "batch"])
@pytest.mark.parametrize("name", BREAKS)
def test_a_model_that_fails_in_mid_reply_fails_a_call_that_waits_for_the_whole(
    alice: httpx.Client, hasty: httpx.Client, stub: OpenAIStub, name: str, way: str
) -> None:
    behaviour, status = BREAKS[name]
    question = asking(stub, behaviour)
    answer = call(hasty if waits(behaviour) else alice, question, f"whole {name} {way}", way=way)
    assert answer.status_code == status
    no_secret_in(answer.text, stub)
    assert [turn["status"] for turn in turns_of(alice, f"whole {name} {way}")] == ["failed"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("behaviour", [Behaviour(refuse=True), Behaviour(null=True), Behaviour(n=0)], ids=repr)
def test_a_reply_without_words_is_a_reply(
    alice: httpx.Client, stub: OpenAIStub, behaviour: Behaviour, way: str
) -> None:
    session = f"{behaviour.refuse} {behaviour.null} {behaviour.n} {way}"
    stub.behave(behaviour)
    assert said(call(alice, "one", session, way=way), way) == ""
    assert [turn["status"] for turn in turns_of(alice, session)] == ["complete"]
    assert said(call(alice, "two", session, way=way), way).endswith("one | two")


def test_a_model_that_is_not_there_is_503(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    url = "http://someone:pa55word@127.0.0.1:9/v1"
    with serve_here(tmp_path, openai_base_url=url) as server, server.client() as client:
        for way in WAYS:
            answer = call(client, "one", way, way=way)
            assert error_of(answer)[0] == 503
            assert "pa55word" not in answer.text + caplog.text
            assert [turn["status"] for turn in turns_of(client, way)] == ["failed"]


def test_what_a_turn_of_a_batch_can_not_do_fails_the_batch_and_the_others_are_kept(
    alice: httpx.Client, stub: OpenAIStub
) -> None:
    inputs = [{"input": "one"}, {"input": "two [[fail 429]]"}, {"input": "three"}]
    config = [{"configurable": {"session_id": f"part {n}"}} for n in range(3)]
    assert alice.post("/chat/batch", json={"inputs": inputs, "config": config}).status_code == 429
    states = [turns_of(alice, f"part {n}")[0]["status"] for n in range(3)]
    assert states == ["complete", "failed", "complete"]


# --- the disk


class RefusingDisk(Disk):
    """A disk that refuses to write as long as it has an `error`."""

    error: int | None = None

    @override
    def write(self, descriptor: int, data: bytes) -> None:
        if self.error is not None:
            raise OSError(self.error, os.strerror(self.error), "/a/secret/path")
        super().write(descriptor, data)


@pytest.fixture(scope="module")
def disk() -> RefusingDisk:
    return RefusingDisk()


@pytest.fixture(scope="module")
def on_disk(disk: RefusingDisk, stub: OpenAIStub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a server on that disk."""
    folder = tmp_path_factory.mktemp("disk")
    store = FileStore(folder / "histories", disk=disk)
    with serve_here(folder, openai_base_url=stub.base_url, store=store) as server, server.client() as client:
        yield client


FULL = [(errno.ENOSPC, 507, "60"), (errno.EDQUOT, 507, "60"), (errno.EROFS, 503, "5"), (errno.EIO, 503, "5")]


@proves("G1", "G2")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("error", "status", "after"), FULL, ids=["full", "quota", "read-only", "broken"])
def test_a_question_that_can_not_be_kept_is_told_by_the_status_and_not_asked(
    disk: RefusingDisk, on_disk: httpx.Client, stub: OpenAIStub, error: int, status: int, after: str, way: str
) -> None:
    session = f"{error} {way}"
    call(on_disk, "one", session)
    asked = len(stub.requests)
    disk.error = error
    try:
        answer = call(on_disk, "lost", session, way=way)
    finally:
        disk.error = None
    assert error_of(answer)[0] == status
    if way not in ("stream_log", "stream_events"):
        assert answer.headers["retry-after"] == after
    assert "secret" not in answer.text
    assert len(stub.requests) == asked
    assert said(call(on_disk, "two", session)).endswith("2 user messages: one | two")


@proves("G1", "G2")
@pytest.mark.parametrize("way", ["invoke", *STREAMS])
async def test_a_reply_that_can_not_be_kept_is_an_error_and_the_history_is_as_it_was(
    disk: RefusingDisk, on_disk: httpx.Client, stub: OpenAIStub, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    session = f"reply {way}"
    call(on_disk, "one", session)
    gate = stub.pause_after(2)
    running = asyncio.create_task(asyncio.to_thread(call, on_disk, "two", session, way=way))
    try:
        await asyncio.to_thread(gate.wait)
        disk.error = errno.ENOSPC
        gate.release()
        answer = await running
    finally:
        disk.error = stub.gate = None
    assert error_of(answer)[0] == 507
    assert "turn unsaved" in caplog.text
    assert "StoreFull" in caplog.text
    assert "secret" not in answer.text
    # The question was durable; of the reply, nothing is claimed.
    states = [turn["status"] for turn in await asyncio.to_thread(turns_of, on_disk, session)]
    assert states == ["complete", "interrupted"] or states == ["interrupted", "complete"]
    assert "one" in said(await asyncio.to_thread(call, on_disk, "three", session))


# --- the client


HEARD = {
    "invoke": "",
    "stream": r'data: "(You )?said: "',
    "stream_log": r'/streamed_output/-","value":"(You )?said: "',
    "stream_events": r"on_chain_stream[^\n]*said: ",
}


async def leave_after(client: httpx.AsyncClient, stub: OpenAIStub, way: str, session: str) -> float:
    """Leaves when two words have come, and gives the time of that."""
    gate, heard = stub.pause_after(2), asyncio.Event()
    body = {"input": {"input": "one two three"}, "config": {"configurable": {"session_id": session}}}

    async def listen() -> None:
        async with client.stream("POST", f"/chat/{way}", json=body) as answer:
            text = ""
            async for part in answer.aiter_text():
                text += part
                if re.search(HEARD[way], text):
                    heard.set()

    listening = asyncio.create_task(listen())
    await asyncio.to_thread(gate.wait)
    if way != "invoke":
        await asyncio.wait_for(heard.wait(), 60)
    listening.cancel()
    left = time.monotonic()
    with pytest.raises(asyncio.CancelledError):
        await listening
    return left


def settled(client: httpx.Client, session: str) -> dict[str, Any]:
    """The one turn of a session, when it has ended."""

    def ended() -> list[dict[str, Any]]:
        turns = turns_of(client, session)
        return turns if turns[0]["status"] != "running" else []

    (turn,) = wait_for(ended, "the end of the turn")
    return dict(turn)


@pytest.fixture(scope="module")
def patient(stub: OpenAIStub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    with serve_here(tmp_path_factory.mktemp("stop"), openai_base_url=stub.base_url, on_disconnect="stop") as server:
        yield server


@pytest.fixture(scope="module")
def finishing(stub: OpenAIStub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    folder = tmp_path_factory.mktemp("finish")
    with serve_here(folder, openai_base_url=stub.base_url, on_disconnect="finish") as server:
        yield server


@proves("G4")
@pytest.mark.parametrize("way", ["invoke", *STREAMS])
async def test_a_client_that_leaves_stops_the_model_within_a_second(patient: Here, stub: OpenAIStub, way: str) -> None:
    for number, one in enumerate(tries(1)):
        before, session = len(stub.cancelled_at), f"left {way} {number}"
        async with patient.async_client() as client:
            left = await leave_after(client, stub, way, session)
        one.took = await asyncio.to_thread(stub.wait_cancelled, times=before + 1) - left
        stub.gate = None
        with patient.client() as again:
            turn = await asyncio.to_thread(settled, again, session)
        assert turn["status"] == "interrupted"
        if way != "invoke":  # of a whole reply, nothing was there
            assert turn["output"][0]["data"]["content"] == "You said: "


@proves("G4")
@pytest.mark.parametrize("way", ["invoke", *STREAMS])
async def test_where_turns_finish_the_whole_reply_is_kept(finishing: Here, stub: OpenAIStub, way: str) -> None:
    async with finishing.async_client() as client:
        await leave_after(client, stub, way, f"left {way}")
    assert stub.gate is not None
    stub.gate.release()
    stub.gate = None
    with finishing.client() as again:
        turn = await asyncio.to_thread(settled, again, f"left {way}")
    assert turn["status"] == "complete"
    assert turn["output"][0]["data"]["content"].endswith("1 user messages: one two three")


@pytest.mark.parametrize("way", ["invoke", *STREAMS])
async def test_a_client_that_leaves_while_it_waits_leaves_nothing(patient: Here, stub: OpenAIStub, way: str) -> None:
    session = f"waiting {way}"
    body = {"input": {"input": "never"}, "config": {"configurable": {"session_id": session}}}
    gate = stub.pause_after(2)
    async with patient.async_client() as client:
        first = asyncio.create_task(client.post("/chat/invoke", json={**body, "input": {"input": "one"}}))
        await asyncio.to_thread(gate.wait)
        turns = patient.app.state.turns
        second = asyncio.create_task(client.post(f"/chat/{way}", json=body))
        await asyncio.to_thread(wait_for, lambda: len(turns.running) == 2, "the second turn")
        second.cancel()
        await asyncio.to_thread(wait_for, lambda: len(turns.running) == 1, "its end")
        gate.release()
        stub.gate = None
        assert (await first).status_code == 200
    with patient.client() as again:
        assert [turn["input"][0]["data"]["content"] for turn in turns_of(again, session)] == ["one"]


def test_the_log_says_of_a_failed_model_what_an_operator_needs(
    alice: httpx.Client, stub: OpenAIStub, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="recollect"):
        stub.fail_with(429)
        call(alice, "one", "log")
    assert [record.message for record in caplog.records].count("turn failed") == 1
    assert "OpenAIRateLimitError: Error code: 429" in caplog.text

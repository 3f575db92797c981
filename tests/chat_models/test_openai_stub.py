"""The stub keeps its word: other tests rely on it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.live_server import PLAIN
from tests.openai_stub import Behaviour, OpenAIStub
from tests.quick import tries

ROOT = Path(__file__).parents[2]


@pytest.fixture
def stub() -> Iterator[OpenAIStub]:
    with OpenAIStub() as running:
        yield running


def ask(url: str, *texts: str, **more: Any) -> httpx.Response:
    messages = [{"role": "user", "content": text} for text in texts]
    body = {"model": "stub", "messages": messages, **more}
    return httpx.post(f"{url}/chat/completions", json=body, timeout=60, verify=PLAIN)


def test_it_is_up_in_a_moment_and_gone_in_another() -> None:
    for one in tries(2):
        with one, OpenAIStub() as stub:
            assert httpx.get(f"{stub.base_url}/models").json()["data"][0]["id"] == "stub"


def test_the_reply_repeats_what_the_user_said(stub: OpenAIStub) -> None:
    content = ask(stub.base_url, "one", "two").json()["choices"][0]["message"]["content"]
    assert content == "You said: two. I have seen 2 user messages: one | two"
    assert [message["content"] for message in stub.requests[0].messages] == ["one", "two"]


def test_a_test_can_choose_the_reply(stub: OpenAIStub) -> None:
    stub.reply = lambda messages: f"{len(messages)} messages"
    assert ask(stub.base_url, "one", "two").json()["choices"][0]["message"]["content"] == "2 messages"


def test_a_failure_lasts_for_as_many_requests_as_asked(stub: OpenAIStub) -> None:
    stub.fail_with(503, {"Retry-After": "7"}, "overloaded", times=2)
    answers = [ask(stub.base_url, "hi") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [503, 503, 200]
    assert answers[0].headers["retry-after"] == "7"
    assert answers[0].text == "overloaded"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("word", ["[[cut 0]]", "[[cut 2]]"])
def test_a_cut_breaks_the_connection(stub: OpenAIStub, word: str, stream: bool) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        ask(stub.base_url, f"hi {word}", stream=stream)


def test_words_of_earlier_messages_do_nothing(stub: OpenAIStub) -> None:
    assert ask(stub.base_url, "[[fail 500]]", "and now?").status_code == 200


async def test_a_gate_holds_replies_and_counts_who_is_waiting(stub: OpenAIStub) -> None:
    gate = stub.pause_after(2)
    asking = [asyncio.create_task(asyncio.to_thread(ask, stub.base_url, "a b c", stream=True)) for _ in range(2)]
    await asyncio.to_thread(gate.wait, times=2)
    assert not any(task.done() for task in asking)
    gate.release()
    assert [answer.status_code for answer in await asyncio.gather(*asking)] == [200, 200]
    await asyncio.to_thread(stub.wait_idle)
    assert stub.most_active == 2


async def test_it_notices_who_leaves(stub: OpenAIStub) -> None:
    stub.behave(Behaviour(slow=0.01))
    body = {"messages": [{"role": "user", "content": "[[n 1000]]"}], "stream": True}
    async with httpx.AsyncClient() as client:
        async with client.stream("POST", f"{stub.base_url}/chat/completions", json=body) as answer:
            assert (await anext(answer.aiter_lines())).startswith("data: {")
        left = time.monotonic()
    assert await asyncio.to_thread(stub.wait_cancelled) >= left - 0.05
    await asyncio.to_thread(stub.wait_idle)


def test_it_runs_alone_and_is_driven_by_words() -> None:
    command = [sys.executable, "-m", "tests.openai_stub", "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            assert len(ask(url, "[[n 60]]").json()["choices"][0]["message"]["content"].split()) == 60
            refused = ask(url, "[[fail 429]] [[retry 9]]")
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "9")
        finally:
            process.terminate()

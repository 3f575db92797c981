"""The embedded model end to end: real weights, real replies."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI

from chat_models.embedded_model import MAX_REPLY_TOKENS, PARALLEL, ModelUnavailable, embedded_model, find_weights
from chat_models.endpoints import Endpoint, model_endpoint
from chat_models.models import connect
from tests.live_server import PLAIN
from tests.quick import tries

ROOT = Path(__file__).parents[2]
LONG_STORY = "Write a long story about a dragon and a castle."


@pytest.fixture(scope="session")
def endpoint() -> Iterator[Endpoint]:
    with ExitStack() as stack:
        for one in tries(8):
            stack.close()
            with one:
                running = stack.enter_context(model_endpoint(model="SmolLM2-135M-Instruct"))
        yield running


@pytest.fixture
async def model(endpoint: Endpoint) -> AsyncIterator[ChatOpenAI]:
    async with connect(endpoint, timeout_s=60) as opened:
        yield opened


def llama(endpoint: Endpoint) -> httpx.AsyncClient:
    """A client of llama.cpp's own routes."""
    headers = {"Authorization": f"Bearer {endpoint.api_key.get_secret_value()}"}
    return httpx.AsyncClient(base_url=endpoint.base_url.removesuffix("/v1"), headers=headers, timeout=30, verify=PLAIN)


async def slots(endpoint: Endpoint) -> list[dict[str, Any]]:
    """The replies that are being made."""
    async with llama(endpoint) as client:
        return [slot for slot in (await client.get("/slots")).json() if slot["is_processing"]]


async def until_busy(endpoint: Endpoint, number: int, timeout: float = 60) -> None:
    async with asyncio.timeout(timeout):
        while len(await slots(endpoint)) != number:
            await asyncio.sleep(0.01)


async def test_it_answers_a_question(model: ChatOpenAI) -> None:
    reply = await model.ainvoke("What is the capital of France?")
    assert "Paris" in reply.content
    assert reply.usage_metadata is not None
    assert reply.usage_metadata["output_tokens"] > 0
    assert reply.response_metadata["model_name"] == "SmolLM2-135M-Instruct"


async def test_it_streams_with_usage(model: ChatOpenAI) -> None:
    chunks = [chunk async for chunk in model.astream("Name three colours.", max_tokens=12)]
    assert sum(bool(chunk.content) for chunk in chunks) > 3
    assert [chunk.usage_metadata["output_tokens"] for chunk in chunks if chunk.usage_metadata][-1] > 3


async def test_a_reply_ends_in_any_case(endpoint: Endpoint, model: ChatOpenAI) -> None:
    await until_busy(endpoint, 0)
    stream = model.astream(LONG_STORY)
    await anext(stream)
    assert [slot["params"]["n_predict"] for slot in await slots(endpoint)] == [MAX_REPLY_TOKENS]
    await stream.aclose()  # type: ignore[attr-defined]  # an async generator


async def test_the_next_turn_does_not_read_the_past_again(model: ChatOpenAI) -> None:
    brief = model.bind(max_tokens=5)
    past = [SystemMessage("You are a poet. " * 40), HumanMessage("Say a word.")]
    first = await brief.ainvoke(past)
    second = await brief.ainvoke([*past, AIMessage(first.content), HumanMessage("Another.")])
    assert second.usage_metadata is not None
    cached = second.usage_metadata["input_token_details"]["cache_read"]
    assert cached > 0.8 * second.usage_metadata["input_tokens"]


async def test_a_prompt_beyond_its_context_is_a_bad_request(model: ChatOpenAI) -> None:
    with pytest.raises(openai.BadRequestError):
        await model.ainvoke("word " * 5000)


async def test_more_callers_than_it_serves_at_once_wait_their_turn(model: ChatOpenAI) -> None:
    brief = model.bind(max_tokens=8)
    replies = await asyncio.gather(*(brief.ainvoke(f"Say {i}.") for i in range(PARALLEL + 3)))
    assert all(reply.content for reply in replies)


async def test_it_stops_when_the_caller_leaves(endpoint: Endpoint, model: ChatOpenAI) -> None:
    await until_busy(endpoint, 0)
    stream = model.astream(LONG_STORY, max_tokens=3000)
    await anext(stream)
    assert len(await slots(endpoint)) == 1
    await stream.aclose()  # type: ignore[attr-defined]  # an async generator
    await until_busy(endpoint, 0, 20)  # it would take half a minute


async def test_who_has_no_key_gets_no_answer(endpoint: Endpoint) -> None:
    async with httpx.AsyncClient() as client:
        for headers in ({}, {"Authorization": "Bearer none"}):
            answer = await client.post(f"{endpoint.base_url}/chat/completions", json={}, headers=headers)
            assert answer.status_code == 401


def run(program: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)


def test_without_the_weights_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ModelUnavailable, match=r"make install.*OPENAI_API_KEY"):
        find_weights("no_such_wheel")
    with pytest.raises(ModelUnavailable, match=r"make install.*OPENAI_API_KEY"), embedded_model(tmp_path / "no.gguf"):
        pass


def test_without_llama_cpp_it_says_what_to_do() -> None:
    ended = run("""
import sys
sys.modules["xllamacpp"] = None  # as if it were not installed
from chat_models.endpoints import ModelUnavailable, model_endpoint
try:
    with model_endpoint():
        pass
except ModelUnavailable as error:
    print(error)
""")
    assert "xllamacpp" in ended.stdout
    assert "make install" in ended.stdout


def test_damaged_weights_are_told(tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.gguf"
    damaged.write_bytes(b"not a model")
    with pytest.raises(ModelUnavailable, match=r"could not load.*make install"), embedded_model(damaged):
        pass


ANSWERING = f"""
import httpx, threading, time
from chat_models.embedded_model import embedded_model

model = embedded_model()
url, key = model.__enter__()
lines = []

def ask(stream):
    body = {{"messages": [{{"role": "user", "content": {LONG_STORY!r}}}], "max_tokens": 3000, "stream": stream}}
    headers = {{"Authorization": "Bearer " + key}}
    try:
        with httpx.stream("POST", url + "/chat/completions", json=body, headers=headers, timeout=100) as answer:
            for line in answer.iter_lines():
                lines.append(line)
    except httpx.HTTPError:
        lines.append("cut off")

asking = [threading.Thread(target=ask, args=(stream,), daemon=True) for stream in (True, False, True, False)]
for thread in asking:
    thread.start()
llama = httpx.Client(headers={{"Authorization": "Bearer " + key}}, verify=False)
slots = lambda: llama.get(url.removesuffix("/v1") + "/slots").json()
while sum(slot["is_processing"] for slot in slots()) < 2:
    time.sleep(0.01)
"""


def test_it_ends_at_once_while_it_answers_and_prints_nothing() -> None:
    """Two replies are being made and two requests wait, whole and streamed: all are cut off."""
    for one in tries(3):
        ended = run(
            ANSWERING
            + """
began = time.monotonic()
model.__exit__(None, None, None)
print(time.monotonic() - began)
for thread in asking:
    thread.join(60)
assert lines.count("cut off") == 4, lines
"""
        )
        assert (ended.returncode, ended.stderr) == (0, "")
        one.took = float(ended.stdout)


def test_a_process_that_forgets_to_end_it_ends_well() -> None:
    ended = run(ANSWERING)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_a_chat_model_that_is_closed_in_the_middle_of_a_reply_ends_well() -> None:
    ended = run(f"""
import asyncio
from chat_models.models import open_model

async def main():
    async with open_model() as model:
        stream = model.astream({LONG_STORY!r}, max_tokens=3000)
        for _ in range(3):
            await anext(stream)

asyncio.run(main())
""")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


def test_what_no_reply_has_needed_yet_takes_no_memory() -> None:
    """The room for two whole contexts is 188 MB, and the weights are half of what is left."""
    ended = run("""
import re
from pathlib import Path
import httpx
from chat_models.embedded_model import embedded_model

with embedded_model() as (url, key):
    body = {"messages": [{"role": "user", "content": "Hello!"}]}
    httpx.post(url + "/chat/completions", json=body, headers={"Authorization": "Bearer " + key}, timeout=100)
    print(int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024)
""")
    assert int(ended.stdout) < 260

"""`/invoke` and `/stream` beside LangServe's own endpoints of the same chain: the same answers, but for the ids."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from importlib.metadata import version
from inspect import signature
from typing import Any
from uuid import uuid4

import httpx
import pytest
from fastapi import FastAPI
from fastapi.encoders import jsonable_encoder
from fastapi.exceptions import RequestValidationError
from langchain_core.messages import AIMessage, AIMessageChunk, AnyMessage, BaseMessage
from langchain_core.outputs import ChatGenerationChunk
from langserve import APIHandler, add_routes
from pydantic import BaseModel
from sse_starlette.sse import AppStatus
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from api.errors import Edge, on_invalid_request
from api.langserve_gaps import CONFIG_KEYS, Serializer
from api.turn_endpoints import TurnEndpoints
from histories.memory import MemoryStore
from tests.calls import config_hash
from tests.echo_model import EchoModel
from tests.live_server import langserve_warns
from tests.stores import until
from tests.turns.test_with_history import SHAPES, shapes
from turns import voice
from turns.run import Turns
from turns.session_config import session_config
from turns.with_history import ChainWithHistory

pytestmark = langserve_warns

TOOL_CALL = {"name": "look", "args": {"at": "é\u2028"}, "id": "c1", "type": "tool_call"}


class RichModel(EchoModel):
    """Says messages with all that messages can have."""

    @override
    async def _astream(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        yield ChatGenerationChunk(
            message=AIMessageChunk(content="a\u2028b\r\n\r\ndata: x\0", response_metadata={"m": 1.5})
        )
        yield ChatGenerationChunk(
            message=AIMessageChunk(
                content=[{"type": "text", "text": "😀", "index": 0}],
                additional_kwargs={"refusal": None},
                tool_call_chunks=[{"name": "look", "args": "{", "id": "c1", "index": 0, "type": "tool_call_chunk"}],
                usage_metadata={"input_tokens": 1, "output_tokens": 2, "total_tokens": 3},
            )
        )

    @override
    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> Any:
        result = super()._generate(messages, *args, **kwargs)
        result.generations[0].message = AIMessage(
            content=[{"type": "text", "text": "\u2028 é"}], tool_calls=[TOOL_CALL], response_metadata={"m": [1.5, None]}
        )
        return result


class Ask(BaseModel):
    topic: str
    question: str


class Answer(BaseModel):
    reply: AIMessage


TYPES: dict[str, Any] = {
    "dict with a history key in, message out": (Ask, AIMessage),
    "string out": (Ask, str),
    "messages in, dict with an output key out": (list[AnyMessage], Answer),
    "messages in, message out: a bare chat model": (list[AnyMessage], AIMessage),
    "dict with a single key for all messages in": (dict[str, list[AnyMessage]], AIMessage),
}


def shaped(shape: str, model: EchoModel | None = None) -> tuple[ChainWithHistory, Any]:
    chain, ask = shapes(model or EchoModel(), Turns(MemoryStore(), encode=Serializer().dumps))[shape]
    takes, gives = TYPES[shape]
    return chain.with_types(input_type=takes, output_type=gives), jsonable_encoder(ask("hello"))


def mounted(chain: ChainWithHistory) -> httpx.AsyncClient:
    """The chain twice in one app: at /ours by our endpoints, at /theirs by LangServe's."""
    app = FastAPI(exception_handlers={RequestValidationError: on_invalid_request})
    app.add_middleware(Edge)
    modifier, serializer = session_config(frozenset()), Serializer()
    handler = APIHandler(chain, path="/ours", per_req_config_modifier=modifier, config_keys=CONFIG_KEYS)
    ours = TurnEndpoints(chain, handler, path="/ours", modifier=modifier, serializer=serializer)
    app.router.routes += ours.routes()
    add_routes(app, chain, path="/theirs", per_req_config_modifier=modifier, serializer=serializer)

    async def signed_in(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "state": {"user_id": "alice"}}, receive, send)

    return httpx.AsyncClient(transport=httpx.ASGITransport(signed_in), base_url="http://test")


def without_ids(response: httpx.Response) -> tuple[Any, ...]:
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID", response.text)
    text = re.sub("ours|theirs", "place", text)
    # What ours tell of a stream and LangServe does not: whose turn it is, and the number of each event.
    text = re.sub(r', "session_id": "[^"]*", "turn_id": "[^"]*", "started_at": "[^"]*"', "", text)
    text = re.sub(r"id: \d+\r\n", "", text)
    headers = {name: value for name, value in response.headers.items() if name != "content-length"}
    is_json = headers["content-type"] == "application/json"
    return response.status_code, headers, json.loads(text) if is_json else text


async def both(client: httpx.AsyncClient, way: str, body: Any, prefix: str = "") -> list[tuple[Any, ...]]:
    answers = []
    for place in ("ours", "theirs"):
        sent = body
        if isinstance(body, dict) and "config" not in body and not prefix:
            sent = {**body, "config": {"configurable": {"session_id": f"{place} {uuid4()}"}}}
        answers.append(without_ids(await client.post(f"/{place}{prefix}/{way}", json=sent)))
    return answers


@pytest.fixture(autouse=True)
def _no_event_of_another_loop() -> None:
    """sse-starlette keeps an event of the first event loop that it meets, and each test has a loop of its own."""
    AppStatus.should_exit_event = None


@pytest.mark.parametrize("way", ["invoke", "stream"])
@pytest.mark.parametrize("shape", SHAPES)
async def test_every_shape_is_answered_as_langserve_answers(shape: str, way: str) -> None:
    chain, value = shaped(shape)
    async with mounted(chain) as client:
        ours, theirs = await both(client, way, {"input": value})
        assert ours == theirs
        assert ours[0] == 200
        assert "hello" in str(ours[2])


@pytest.mark.parametrize("way", ["invoke", "stream"])
async def test_messages_with_everything_in_them_are_answered_as_langserve_answers(way: str) -> None:
    chain, _ = shaped(SHAPES[0], RichModel())
    async with mounted(chain) as client:
        ours, theirs = await both(client, way, {"input": {"topic": "all", "question": "x"}})
        assert ours == theirs
        assert "tool_call" in str(ours[2])


@pytest.mark.parametrize("way", ["invoke", "stream"])
@pytest.mark.parametrize(
    "body",
    [
        {},
        {"input": {"topic": "all"}},
        {"input": {"topic": 1, "question": ["x"]}},
        {"input": 7},
        {"input": {"topic": "all", "question": "x"}, "config": {"configurable": 7}},
        {"input": {"topic": "all", "question": "x"}, "config": {"configurable": {"session_id": ""}}},
        {"input": {"topic": "all", "question": "x"}, "config": {"run_name": 7, "configurable": {"turn_id": 7}}},
    ],
    ids=str,
)
async def test_what_langserve_refuses_is_refused_alike(way: str, body: Any) -> None:
    chain, _ = shaped(SHAPES[0])
    async with mounted(chain) as client:
        ours, theirs = await both(client, way, body)
        assert ours == theirs


@pytest.mark.parametrize("way", ["invoke", "stream"])
async def test_a_config_hash_counts_as_with_langserve(way: str) -> None:
    chain, value = shaped(SHAPES[0])
    async with mounted(chain) as client:
        prefix = "/c/" + config_hash({"configurable": {"session_id": "hashed"}})
        ours, theirs = await both(client, way, {"input": value}, prefix)
        assert ours[:2] == theirs[:2]
        assert "hello" in str(ours[2])


async def test_a_silent_stream_shows_that_it_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voice, "PULSE_S", 0.05)
    chain, value = shaped(SHAPES[0], EchoModel(pause=lambda said: asyncio.sleep(0.2)))
    async with mounted(chain) as client:
        config = {"configurable": {"session_id": "slow"}}
        response = await client.post("/ours/stream", json={"input": value, "config": config})
        first, *rest = response.text.split("\r\n\r\n")
        assert first.startswith("event: metadata")  # told at once: who is cut off now knows what to come back to
        assert rest[0] == ": still running"
        assert response.text.endswith("event: end\r\n\r\n")


async def test_tokens_that_come_together_are_sent_together() -> None:
    turns = Turns(MemoryStore())
    chain, ask = shapes(EchoModel(), turns)[SHAPES[0]]
    config: Any = {"configurable": {"user_id": "alice", "session_id": "s1"}}
    run = chain.start(ask("one two three four five"), config, streaming=True)
    bursts = [burst async for burst in run.events()]
    chunks = [chunk async for chunk in chain.astream(ask("one two three four five"), config)]
    assert len(bursts) < len(chunks)
    await until(lambda: not turns.running)


def test_langserve_is_of_the_version_whose_private_method_is_called() -> None:
    assert version("langserve") == "0.3.3"
    assert list(signature(APIHandler._get_config_and_input).parameters)[1:4] == ["request", "config_hash", "endpoint"]

"""How tests call a chain over HTTP on any of its endpoints, and read what it said."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import httpx
from langserve.lzstring import LZString

STREAMS = ("stream", "stream_log", "stream_events")
WAYS = ("invoke", "batch", *STREAMS)
CHAINS = ("chat", "tutor")
Event = tuple[str, Any]


def config_hash(config: Any) -> str:
    """LangServe's: the LZ-compressed JSON of a config."""
    return str(LZString.compressToEncodedURIComponent(json.dumps(config)))  # type: ignore[no-untyped-call]


def body_of(way: str, value: Any, **rest: Any) -> dict[str, Any]:
    """The body of a request with one input."""
    return {"inputs": [value]} | rest if way == "batch" else {"input": value} | rest


def input_of(chain: str, text: str) -> dict[str, Any]:
    return {"ability": "math", "input": text} if chain == "tutor" else {"input": text}


def call(
    client: httpx.Client,
    text: str,
    session_id: str,
    *,
    chain: str = "chat",
    way: str = "invoke",
    hashed: bool = False,
    **configurable: Any,
) -> httpx.Response:
    """One turn, with the config in the body, or hashed into the path."""
    config = {"configurable": {"session_id": session_id, **configurable}}
    prefix = f"/{chain}/c/{config_hash(config)}" if hashed else f"/{chain}"
    body = body_of(way, input_of(chain, text), **({} if hashed else {"config": config}))
    return client.post(f"{prefix}/{way}", content=json.dumps(body))


def events_of(lines: str | Iterable[str]) -> list[Event]:
    """The server-sent events of a body, with their JSON read."""
    events: list[Event] = []
    name, data = "message", list[str]()
    for line in re.split("\r\n|\n|\r", lines) if isinstance(lines, str) else lines:
        field, _, value = line.partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            data.append(value)
        elif not line and (data or name != "message"):
            events.append((name, json.loads("\n".join(data)) if data else None))
            name, data = "message", []
    assert not data, "the last event is not complete"
    return events


def text_in(output: Any) -> str:
    """The text of an output: a string, or a message as JSON."""
    if isinstance(output, Mapping):
        return str(output["content"] if "content" in output else text_in(next(iter(output.values()))))
    return str(output)


def said(response: httpx.Response, way: str = "invoke") -> str:
    """What the chain said, on any endpoint; fails if it did not say it whole."""
    assert response.status_code == 200, response.text
    if way in ("invoke", "batch"):
        output = response.json()["output"]
        return text_in(output[0] if way == "batch" else output)
    events = events_of(response.text)
    assert events[-1][0] == "end", response.text[-500:]
    return text_of_events(events, way)


def text_of_events(events: list[Event], way: str) -> str:
    """What was said on a stream so far."""
    data = [value for name, value in events if name == "data"]
    if way == "stream":
        return "".join(map(text_in, data))
    if way == "stream_log":
        ops = [op for patch in data for op in patch["ops"]]
        return "".join(text_in(op["value"]) for op in ops if op["path"] == "/streamed_output/-")
    root = data[0]["run_id"]
    chunks = [one["data"]["chunk"] for one in data if one["run_id"] == root and one["event"] == "on_chain_stream"]
    return "".join(map(text_in, chunks))


def error_of(response: httpx.Response) -> tuple[int, str]:
    """The status of an error and what was said of it: of the response, or of the one event that ends its stream."""
    if response.status_code != 200:
        detail = response.json()["detail"]
        return response.status_code, detail if isinstance(detail, str) else json.dumps(detail)
    events = events_of(response.text)
    errors = [data for name, data in events if name == "error"]
    assert len(errors) == 1, response.text[-500:]
    assert events[-1][0] == "error"
    return errors[0]["status_code"], errors[0]["message"]

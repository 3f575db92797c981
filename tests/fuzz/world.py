"""A server whose one chain says what a number stands for, and who asks it."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from langchain_core.runnables import RunnableLambda

from chains import Chain
from tests.calls import events_of
from tests.fuzz.outputs import Speaker, said_by
from tests.live_server import serve_here
from tests.operators import Log, logging_as_json

WAYS = ("invoke", "stream", "batch", "stream_events", "stream_log")


def chosen(messages: Any) -> Any:
    """What the last message, a number, stands for. Any other one is answered."""
    said = messages[-1].text
    return Speaker(said_by(random.Random(said))) if said.isdigit() else "the next turn"


CHAIN = Chain(name="fuzz", build=lambda _: RunnableLambda(chosen), input_type=str, output_type=Any)


@dataclass
class Found:
    """What came of it. The waits are those of the turns that followed, in seconds."""

    outputs: int = 0
    failed: int = 0
    faults: list[str] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        slowest = f"the slowest next turn took {max(self.waits):.3f} s" if self.waits else "none was tried"
        return f"{self.outputs} outputs, {self.failed} of them 5xx, {slowest}; {len(self.faults)} faults"


def throw(count: int, folder: Path, *, first: int = 0, **settings: Any) -> Found:
    """So many outputs, over all endpoints in turn; after each its session takes its next turn."""
    found = Found()
    with logging_as_json() as log, serve_here(folder, chains=[CHAIN], **settings) as server, server.client() as client:
        for number in range(first, first + count):
            _throw_one(client, log, number, found)
    return found


def _throw_one(client: httpx.Client, log: Log, number: int, found: Found) -> None:
    way, session = WAYS[number % len(WAYS)], f"session {number % 50}"
    answer = _ask(client, way, str(number), session)
    found.outputs += 1
    status = _status_of(answer)
    if status >= 500:
        found.failed += 1
        told = log.lines(request_id=answer.headers["x-request-id"])
        if not any(line.get("cause") or line.get("error") for line in told):
            found.faults.append(f"{number} on {way}: {status}, and the log does not say why")
    elif status != 200:
        found.faults.append(f"{number} on {way}: {status} {answer.text[:200]}")
    start = time.monotonic()
    after = _ask(client, "invoke", "next", session)
    found.waits.append(time.monotonic() - start)
    if after.status_code != 200 or after.json()["output"] != "the next turn":
        found.faults.append(f"the turn after {number}: {after.status_code} {after.text[:200]}")


def _ask(client: httpx.Client, way: str, said: str, session: str) -> httpx.Response:
    body: Any = {"inputs": [said]} if way == "batch" else {"input": said}
    return client.post(f"/fuzz/{way}", json={**body, "config": {"configurable": {"session_id": session}}})


def _status_of(answer: httpx.Response) -> int:
    """The status of the answer, or of the error that ends its stream; 599 for a stream without an end."""
    if answer.status_code != 200 or not answer.headers["content-type"].startswith("text/event-stream"):
        return answer.status_code
    name, data = events_of(answer.text)[-1]
    return int(data["status_code"]) if name == "error" else 200 if name == "end" else 599

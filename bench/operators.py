"""What log, metrics and audit cost: processor time a turn with them and without, in one run.

    python -m bench.operators

Two servers in this process, over the file store, take turns at being asked; no socket is between, so that nothing
hides what they cost. The log is JSON, at its usual level, into a file. A server's short rounds are compared with the
other's right beside them, so that a machine with other work to do slows both alike; what stands is the median.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import tempfile
import time
import warnings
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median
from typing import Any

from fastapi import FastAPI

import server
from api.ops import logs, outfit
from auth.keys import ApiKeys
from bench.models import open_model
from settings import Settings

WARM_UP = 5
ROUNDS, TURNS, SESSIONS = 150, 12, 12


def apps(folder: Path) -> dict[str, tuple[FastAPI, str]]:
    """The server as it is, and one that nobody watches; each with a key."""
    made = {}
    for name in ("watched", "unwatched"):
        data = folder / name
        if name == "unwatched":
            _blind()
        app = server.create_app(Settings(data_dir=data, history_fsync=False), model=open_model("instant"))
        made[name] = app, ApiKeys(data).create("alice")[1]
    return made


def _blind() -> None:
    outfit.Outfit.observers = lambda self: []  # type: ignore[method-assign]
    outfit.Outfit.put_on = lambda self, app, audit, chains: None  # type: ignore[method-assign]
    server.watched = lambda store, metrics: store  # type: ignore[attr-defined]


async def ask(app: FastAPI, key: str, number: int) -> None:
    """One turn."""
    config = {"configurable": {"session_id": f"s{number % SESSIONS}"}}
    body = json.dumps({"input": {"input": f"question {number}"}, "config": config}).encode()
    headers = [(b"authorization", f"Bearer {key}".encode()), (b"content-type", b"application/json")]
    headers += [(b"host", b"here"), (b"content-length", str(len(body)).encode())]
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
    }
    scope |= {"path": "/chat/invoke", "raw_path": b"/chat/invoke", "query_string": b"", "root_path": ""}
    scope |= {"headers": headers, "client": ("127.0.0.1", 1), "server": ("here", 80), "state": {}}
    sent = [{"type": "http.request", "body": body, "more_body": False}]
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        if sent:
            return sent.pop()
        await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    await app(scope, receive, send)
    assert statuses == [200]


async def measure(folder: Path) -> dict[str, list[float]]:
    made, spent = apps(folder), {"watched": list[float](), "unwatched": list[float]()}
    async with AsyncExitStack() as stack:
        for app, _ in made.values():
            await stack.enter_async_context(app.router.lifespan_context(app))
        for round_ in range(-WARM_UP, ROUNDS):
            for name in sorted(made, reverse=bool(round_ % 2)):
                gc.collect(0)
                before = time.process_time()
                await asyncio.gather(*(ask(*made[name], round_ * TURNS + number) for number in range(TURNS)))
                if round_ >= 0:
                    spent[name].append((time.process_time() - before) / TURNS * 1000)
    return spent


def main() -> int:
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "log").open("w") as log:
        sys.stderr = log
        logs.configure("json", "info")
        spent = asyncio.run(measure(Path(folder)))
    pairs = zip(spent["watched"], spent["unwatched"], strict=True)
    share = median(one / other for one, other in pairs) - 1
    watched, unwatched = median(spent["watched"]), median(spent["unwatched"])
    print(f"{watched:.2f} ms a turn with log, metrics and audit, {unwatched:.2f} without: {share:+.1%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

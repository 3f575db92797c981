"""Alice and Bob, who use one server in this process, each with a key of their own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI
from sse_starlette.sse import AppStatus

from auth.middleware import Auth
from histories.base import HistoryStore
from server import create_app
from settings import Settings
from tests.echo_model import EchoModel

WAIT_S = 60.0


class People:
    """Alice, Bob, and the server that both use."""

    def __init__(self, store: HistoryStore, app: FastAPI, keys: dict[str, str]) -> None:
        self.store, self._app = store, app
        self.alice, self.bob = self._client(keys["alice"]), self._client(keys["bob"])
        self.nobody = self._client("")

    def _client(self, key: str) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(self._app), base_url="http://recollect.test", headers=headers
        )

    async def has(self, session_id: str, *questions: str) -> None:
        """Alice asked /tutor these questions; their turns are called t0, t1, …"""
        for number, question in enumerate(questions):
            response = await say(self.alice, session_id, question, turn_id=f"t{number}")
            assert response.status_code == 200, response.text


async def say(client: httpx.AsyncClient, session_id: str, text: str, **configurable: str) -> httpx.Response:
    config = {"configurable": {"session_id": session_id, **configurable}}
    return await client.post("/tutor/invoke", json={"input": {"ability": "sums", "input": text}, "config": config})


@asynccontextmanager
async def serving(store: HistoryStore, folder: Path, model: EchoModel | None = None) -> AsyncIterator[People]:
    AppStatus.should_exit_event = None  # belongs to the event loop of the last test
    auth = Auth(folder)
    keys = {name: auth.keys.create(name)[1] for name in ("alice", "bob")}
    app = create_app(Settings(data_dir=folder), model=model or EchoModel(), store=store)
    people = People(store, app, keys)
    yield people
    for client in (people.alice, people.bob, people.nobody):
        await client.aclose()


@asynccontextmanager
async def a_running_turn(
    store: HistoryStore, folder: Path
) -> AsyncIterator[tuple[People, asyncio.Task[httpx.Response]]]:
    """Alice's session `s` has the turn t0, and t1, which has said one word and goes on only when it is stopped."""
    asked, said = 0, asyncio.Event()

    async def pause(words: int) -> None:
        nonlocal asked
        asked += words == 0
        if asked == 2 and words == 1:
            said.set()
            await asyncio.Event().wait()

    async with serving(store, folder, EchoModel(pause=pause)) as people:
        await people.has("s", "one")
        body = {
            "input": {"ability": "sums", "input": "two"},
            "config": {"configurable": {"session_id": "s", "turn_id": "t1"}},
        }
        task = asyncio.create_task(people.alice.post("/tutor/stream", json=body))
        await asyncio.wait_for(said.wait(), WAIT_S)
        try:
            yield people, task
        finally:
            await people.alice.post("/sessions/s/stop")
            await asyncio.wait_for(task, WAIT_S)


def said(turns: list[dict[str, Any]]) -> list[str]:
    return [turn["input"][0]["data"]["content"] for turn in turns]


async def post_raw(client: httpx.AsyncClient, body: str) -> httpx.Response:
    """Imports a body that httpx would not make: with lone surrogates, or nested deeply."""
    return await client.post("/sessions/import", content=body, headers={"Content-Type": "application/json"})


async def export(client: httpx.AsyncClient, session_id: str) -> dict[str, Any]:
    response = await client.get(f"/sessions/{session_id}/export")
    assert response.status_code == 200
    exported: dict[str, Any] = response.json()
    return exported

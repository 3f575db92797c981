"""One user takes turns and changes titles as fast as it goes; another one's turns are not held up, nor the end."""

from __future__ import annotations

import asyncio
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from auth.keys import ApiKeys
from tests.torture.world import Server

_SESSIONS = 4
_END_S = 15.0


@dataclass
class Seen:
    """What came of it. `others_s` is how long each turn of the other user took."""

    turns: int = 0
    titles: int = 0
    others_s: list[float] = field(default_factory=list)
    ended_s: float = 0.0

    def __str__(self) -> str:
        times = sorted(self.others_s)
        middle, worst = times[len(times) // 2] * 1000, times[-1] * 1000
        busy = f"{self.turns} turns and {self.titles} titles of one user"
        other = f"{len(times)} turns of another: {middle:.0f} ms in the middle, {worst:.0f} ms at most"
        return f"{busy}; {other}; SIGTERM obeyed within {self.ended_s:.1f} s"

    @property
    def is_well(self) -> bool:
        return max(self.others_s) < 1.0 and self.ended_s < _END_S


async def watch_a_bystander(environment: dict[str, str], folder: Path, seconds: float) -> Seen:
    """A server of two workers on files, the two users, and in the end a SIGTERM in the midst of it."""
    keys = {user: ApiKeys(folder).create(user)[1] for user in ("alice", "bob")}
    server, seen = Server({**environment, "RECOLLECT_WORKERS": "2"}, folder / "server.log"), Seen()
    try:
        await server.ready()
        async with asyncio.TaskGroup() as tasks:
            busy = [tasks.create_task(_busy(server.url, keys["alice"], f"s{n % _SESSIONS}", seen)) for n in range(8)]
            await _turns(server.url, keys["bob"], time.monotonic() + seconds, seen)
            start = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(server.process.wait, 60)
            seen.ended_s = time.monotonic() - start
            for task in busy:
                task.cancel()
    finally:
        server.kill()
    return seen


def _client(url: str, key: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=60)


async def _turn(client: httpx.AsyncClient, session: str) -> int:
    body = {"input": {"input": "somebody.s1.hello-1"}, "config": {"configurable": {"session_id": session}}}
    return (await client.post("/chat/invoke", json=body)).status_code


async def _busy(url: str, key: str, session: str, seen: Seen) -> None:
    async with _client(url, key) as client:
        while True:
            try:
                titles = _titles(client, session)
                status = await _turn(client, session)
                answers = await asyncio.gather(*titles)
            except httpx.HTTPError:  # the server has ended
                return
            seen.turns += status == 200
            seen.titles += sum(answer.status_code == 200 for answer in answers)


def _titles(client: httpx.AsyncClient, session: str) -> list[asyncio.Task[httpx.Response]]:
    change = {"title": "another title"}
    return [asyncio.ensure_future(client.patch(f"/sessions/{session}", json=change)) for _ in range(4)]


async def _turns(url: str, key: str, until: float, seen: Seen) -> None:
    async with _client(url, key) as client:
        while time.monotonic() < until:
            start = time.monotonic()
            status = await _turn(client, "mine")
            seen.others_s.append(time.monotonic() - start if status == 200 else 60.0)
            await asyncio.sleep(0.05)

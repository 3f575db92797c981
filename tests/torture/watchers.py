"""The watchers: each follows turns of others, leaves, comes back to any server, and puts together what it hears."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

import httpx

from tests.torture.clients import Client, Told

_PATIENCE_S = 20.0
_PASSING = (429, 502, 503, 504)


@dataclass
class Watched:
    """One try of a turn, as a watcher heard it over all its connections."""

    user: str
    session: str
    turn_id: str
    started_at: str = ""
    text: str = ""
    last: int = -1
    end: str = ""
    """`end`, or the `error` that it was told; empty: it gave up."""
    connections: int = 0
    faults: list[str] = field(default_factory=list)
    """What no stream may do."""


class Watcher:
    """Follows turn after turn of the clients."""

    def __init__(self, random: Random, keys: dict[str, str], clients: Sequence[Client]) -> None:
        self._random, self._keys, self._clients = random, keys, clients
        self.watched: list[Watched] = []

    async def run(self, urls: list[str], until: float) -> None:
        """Watches until that monotonic time."""
        async with httpx.AsyncClient(timeout=httpx.Timeout(20, connect=2)) as http:
            while time.monotonic() < until:
                told = self._newest()
                if told is not None:
                    await self._follow(http, urls, Watched(told.user, told.session, told.turn_id))
                await asyncio.sleep(self._random.uniform(0.0, 0.1))

    def _newest(self) -> Told | None:
        told = self._random.choice(self._clients).told
        return told[-1] if told else None

    async def _follow(self, http: httpx.AsyncClient, urls: list[str], watched: Watched) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while not watched.end and time.monotonic() < deadline:
            try:
                await self._listen(http, self._random.choice(urls), watched)
            except httpx.HTTPError:
                await asyncio.sleep(0.05)
        if watched.started_at:
            self.watched.append(watched)

    async def _listen(self, http: httpx.AsyncClient, url: str, watched: Watched) -> None:
        """One connection, which the watcher may leave in the midst of it."""
        watched.connections += 1
        place = f"{url}/sessions/{watched.session}/turns/{watched.turn_id}"
        query: dict[str, str | int] = {"after": watched.last, "started_at": watched.started_at}
        headers = {"Authorization": f"Bearer {self._keys[watched.user]}"}
        leaves_after = self._random.choice([1, 2, 3, 10**6])
        async with http.stream("GET", f"{place}/stream", params=query, headers=headers) as response:
            if response.status_code != 200:
                await self._refused(response, watched)
                return
            event, seq = "", -1
            async for line in response.aiter_lines():
                name, _, value = line.partition(": ")
                if name == "id":
                    seq = int(value)
                elif name == "event":
                    event = value
                    watched.end = "end" if event == "end" else ""
                elif name == "data":
                    _hear(watched, event, seq, json.loads(value))
                    leaves_after -= event == "data"
                if watched.end or not leaves_after:
                    break
        if watched.end.startswith("503") and await self._still_runs(http, place, headers):
            watched.end = ""  # it was told by a server that ends, of a turn of another one

    async def _refused(self, response: httpx.Response, watched: Watched) -> None:
        if response.status_code in _PASSING:
            await asyncio.sleep(0.05)
        elif response.status_code == 404 and not watched.started_at:
            watched.end = "absent"  # it has not begun yet
        else:
            await response.aread()
            watched.end = f"{response.status_code} {response.text[:100]}"

    async def _still_runs(self, http: httpx.AsyncClient, place: str, headers: dict[str, str]) -> bool:
        response = await http.get(place, headers=headers)
        return response.status_code in _PASSING or response.json().get("status") == "running"


def _hear(watched: Watched, event: str, seq: int, value: object) -> None:
    if event == "error":
        watched.end = " ".join(str(part) for part in value.values()) if isinstance(value, dict) else str(value)
    elif isinstance(value, dict):
        if value.get("restart"):
            watched.faults.append("a text was begun anew")
        watched.started_at = value.get("started_at", watched.started_at)
    else:
        if seq <= watched.last:
            watched.faults.append(f"event {seq} came after {watched.last}")
        watched.last, watched.text = seq, watched.text + str(value)

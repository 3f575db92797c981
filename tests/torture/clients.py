"""The clients: each takes turns in sessions that it shares with others, and writes down what it was told."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass, field
from random import Random

import httpx


@dataclass
class Told:
    """A turn from its client's side. Times are monotonic seconds; `reply` is what a success said."""

    user: str
    session: str
    turn_id: str
    word: str
    first_sent: float = 0.0
    acknowledged: float | None = None
    reply: str | None = None
    heard: str = ""
    """What the last try of all was sent, as far as it came."""
    attempts: int = 0
    outcomes: list[str] = field(default_factory=list)


class Client:
    """Takes turn after turn; tries again, under the same turn_id, when it is told of an error or of nothing."""

    def __init__(self, name: str, random: Random, keys: dict[str, str], sessions: int) -> None:
        self.name, self.random, self.keys, self.sessions = name, random, keys, sessions
        self.told: list[Told] = []

    async def run(self, urls: list[str], until: float) -> None:
        """Talks until that monotonic time."""
        async with httpx.AsyncClient(timeout=httpx.Timeout(20, connect=2)) as http:
            while time.monotonic() < until:
                await self._take_a_turn(http, urls)

    async def _take_a_turn(self, http: httpx.AsyncClient, urls: list[str]) -> None:
        random = self.random
        user = random.choice(sorted(self.keys))
        session, number = f"s{random.randrange(self.sessions)}", len(self.told)
        word = f"{user}.{session}.{self.name}-{number}"
        told = Told(user, session, turn_id=f"t-{self.name}-{number}", word=word)
        self.told.append(told)
        fault = random.choices(["", " [[fail 500]]", " [[cut 2]]", " [[slow 0.15]]"], [80, 3, 3, 14])[0]
        told.first_sent = time.monotonic()
        for _ in range(6):
            told.attempts, told.heard = told.attempts + 1, ""
            way = random.choices([self._invoke, self._stream, self._leave], [55, 40, 5])[0]
            try:
                reply = await way(http, random.choice(urls), told, word + fault)
            except httpx.HTTPError as error:
                told.outcomes.append(type(error).__name__)
                continue
            if reply is not None:
                told.acknowledged, told.reply = time.monotonic(), reply
                return
            fault = "" if random.random() < 0.7 else fault

    def _request(self, http: httpx.AsyncClient, url: str, told: Told, text: str, endpoint: str) -> httpx.Request:
        config = {"configurable": {"session_id": told.session, "turn_id": told.turn_id, "user_id": "mallory"}}
        headers = {"Authorization": f"Bearer {self.keys[told.user]}"}
        body = {"input": {"input": text}, "config": config}
        return http.build_request("POST", f"{url}/chat/{endpoint}", json=body, headers=headers)

    async def _invoke(self, http: httpx.AsyncClient, url: str, told: Told, text: str) -> str | None:
        response = await http.send(self._request(http, url, told, text, "invoke"))
        told.outcomes.append(_outcome(response))
        return str(response.json()["output"]) if response.status_code == 200 else None

    async def _stream(self, http: httpx.AsyncClient, url: str, told: Told, text: str) -> str | None:
        response = await http.send(self._request(http, url, told, text, "stream"), stream=True)
        said, event = "", ""
        try:
            if response.status_code == 200:
                async for line in response.aiter_lines():
                    name, _, value = line.partition(": ")
                    if name == "event":
                        event = value
                        if event in ("end", "error"):
                            break
                    elif name == "data" and event == "data":
                        said += json.loads(value)
                        told.heard = said
            else:
                await response.aread()
        finally:
            await response.aclose()
        told.outcomes.append(f"200 {event}" if response.status_code == 200 else _outcome(response))
        return said if event == "end" else None

    async def _leave(self, http: httpx.AsyncClient, url: str, told: Told, text: str) -> str | None:
        """Goes away after the first words."""
        response = await http.send(self._request(http, url, told, text + " [[slow 0.05]]", "stream"), stream=True)
        try:
            async for _ in response.aiter_bytes():
                break
        finally:
            await response.aclose()
        told.outcomes.append("left")
        return None


async def hung_sessions(urls: list[str], keys: dict[str, str], sessions: int) -> list[str]:
    """The sessions in which nobody can take a turn within a minute, when nothing is killed any more."""

    async def is_hung(http: httpx.AsyncClient, number: int, user: str) -> str | None:
        word = f"{user}.s{number}.last-0"
        body = {"input": {"input": word}, "config": {"configurable": {"session_id": f"s{number}"}}}
        headers = {"Authorization": f"Bearer {keys[user]}"}
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                answer = await http.post(f"{urls[number % len(urls)]}/chat/invoke", json=body, headers=headers)
            except httpx.HTTPError:
                continue
            if answer.status_code == 200:
                return None
            await asyncio.sleep(0.2)
        return f"{user}.s{number}"

    async with httpx.AsyncClient(timeout=httpx.Timeout(60, connect=5)) as http:
        tried = (is_hung(http, number, user) for number in range(sessions) for user in sorted(keys))
        return [hung for hung in await asyncio.gather(*tried) if hung is not None]


def _outcome(response: httpx.Response) -> str:
    """The status, and the first words of why."""
    if response.status_code == 200:
        return "200"
    why = response.json()["detail"] if "json" in response.headers.get("content-type", "") else response.text
    return f"{response.status_code} {' '.join(str(why).split()[:5])}"

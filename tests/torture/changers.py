"""The changers: while others talk they rename, fork, search and list; in their own sessions they rewind and delete."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

import httpx

from histories.base import HistoryStore
from tests.torture.clients import Client, Told

LOOSE = 2
"""How many sessions of each user may lose turns: they come after those that may not."""

_REFUSED = (404, 409, 412, 429, 503, 507)


@dataclass
class Changes:
    """What was done, how often, and what went wrong."""

    done: Counter[str] = field(default_factory=Counter)
    forks: list[tuple[Told, str]] = field(default_factory=list)
    faults: list[tuple[str, str]] = field(default_factory=list)


class Changer:
    """One of them; `changes` is what all of them have done."""

    def __init__(
        self, random: Random, keys: dict[str, str], clients: Sequence[Client], sessions: int, changes: Changes
    ) -> None:
        self._random, self._keys, self._clients = random, keys, clients
        self._sessions, self._changes = sessions, changes

    async def run(self, urls: list[str], until: float) -> None:
        """Changes something until that monotonic time."""
        acts = {"rename": 4, "fork": 2, "search": 2, "list": 2, "rewind": 2, "delete": 1}
        async with httpx.AsyncClient(timeout=httpx.Timeout(20, connect=2)) as http:
            while time.monotonic() < until:
                act = self._random.choices(list(acts), list(acts.values()))[0]
                try:
                    await self._act(http, self._random.choice(urls), act)
                except httpx.HTTPError:  # a server that is being started answers late
                    self._changes.done["broken off"] += 1
                await asyncio.sleep(self._random.uniform(0.0, 0.3))

    async def _act(self, http: httpx.AsyncClient, url: str, act: str) -> None:
        told = self._some_turn(loose=act in ("rewind", "delete"))
        if told is None:
            return
        place, headers = f"{url}/sessions/{told.session}", {"Authorization": f"Bearer {self._keys[told.user]}"}
        fork = f"fork-{time.monotonic_ns()}"
        request: dict[str, tuple[str, str, dict[str, str] | None]] = {
            "rename": ("PATCH", place, {"title": f"a title of {told.word}"}),
            "fork": ("POST", f"{place}/fork", {"session_id": fork, "turn_id": told.turn_id}),
            "search": ("GET", f"{url}/sessions?limit=5&q={told.user}", None),
            "list": ("GET", f"{url}/sessions?limit=10", None),
            "rewind": ("POST", f"{place}/rewind", {"turn_id": told.turn_id}),
            "delete": ("DELETE", place, None),
        }
        method, path, body = request[act]
        answer = await http.request(method, path, json=body, headers=headers)
        self._changes.done[f"{act} {answer.status_code}"] += 1
        if answer.is_success and act == "fork":
            self._changes.forks.append((told, fork))
        elif not answer.is_success and answer.status_code not in _REFUSED:
            self._changes.faults.append(("torn", f"{act}: {answer.status_code} {answer.text[:200]}"))

    def _some_turn(self, *, loose: bool) -> Told | None:
        """One that was acknowledged, of a session that may lose turns, or may not."""
        told = self._random.choice(self._clients).told
        found = [one for one in told[-40:] if one.acknowledged is not None and self.is_loose(one) is loose]
        return self._random.choice(found) if found else None

    def is_loose(self, told: Told) -> bool:
        """Whether its session is one of those that may lose turns."""
        return is_loose(told.session, self._sessions)


def is_loose(session: str, sessions: int) -> bool:
    """Whether a session of that name may lose turns, where so many may not."""
    return int(session[1:]) >= sessions


async def check_forks(store: HistoryStore, changes: Changes) -> list[str]:
    """What is wrong with acknowledged forks: they end with the turn that was named, and are of one session."""
    wrong = list[str]()
    for told, fork in changes.forks:
        turns = (await store.history(told.user, fork).turns(limit=1000)).items
        prefix = f"{told.user}.{told.session}."
        if not turns or turns[-1].turn_id != told.turn_id:
            wrong.append(f"{fork} does not end with {told.turn_id}")
        elif not all(str(turn.input[0].text).startswith(prefix) for turn in turns):
            wrong.append(f"{fork} holds what was said elsewhere")
    return wrong

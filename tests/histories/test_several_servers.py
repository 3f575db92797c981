"""Three servers on one store: users hop between them, one is killed, another is paused, and the history holds."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx
import pytest

from auth.keys import ApiKeys
from tests.live_server import PLAIN, Process, launch, wait_for
from tests.openai_stub import OpenAIStub
from tests.proofs import proves
from tests.stores import KINDS

FREE_AGAIN_S = 5.0
"""Within which a session whose server has died takes its next turn."""


class Servers:
    """Three processes with keys, a store and a model in common."""

    def __init__(self, processes: list[Process], stub: OpenAIStub, keys: dict[str, str]) -> None:
        self.processes, self.stub, self._keys = processes, stub, keys
        self._next = cycle(range(len(processes)))

    def post(self, user: str, session: str, text: str, *, at: int | None = None) -> httpx.Response:
        """A turn: at the next server, as a load balancer would send it, or at that one."""
        url = self.processes[next(self._next) if at is None else at].url
        body = {"input": {"input": text}, "config": {"configurable": {"session_id": session}}}
        return httpx.post(f"{url}/chat/invoke", json=body, headers=self._headers(user), timeout=60, verify=PLAIN)

    def _headers(self, user: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._keys[user]}"}

    def turns(self, user: str, session: str, *, at: int) -> list[dict[str, Any]]:
        """The record, as that server tells it."""
        url = f"{self.processes[at].url}/sessions/{session}/turns?limit=100"
        answer = httpx.get(url, headers=self._headers(user), timeout=60, verify=PLAIN)
        found: list[dict[str, Any]] = answer.json()["turns"]
        return found

    def said(self, user: str, session: str, *, at: int) -> list[tuple[str, str]]:
        """What the user said in each turn, and what became of it."""
        return [(turn["input"][0]["data"]["content"], turn["status"]) for turn in self.turns(user, session, at=at)]

    def talk_in_background(self, user: str, session: str, text: str, *, at: int) -> Background:
        """A turn whose stream goes on, and what its client hears."""
        url = f"{self.processes[at].url}/chat/stream"
        body = {"input": {"input": text}, "config": {"configurable": {"session_id": session}}}
        return Background(url, body, self._headers(user))


class Background(threading.Thread):
    """A client of a stream."""

    def __init__(self, url: str, body: dict[str, Any], headers: dict[str, str]) -> None:
        super().__init__(daemon=True)
        self._request = {"method": "POST", "url": url, "json": body, "headers": headers, "timeout": 60, "verify": PLAIN}
        self.heard = ""
        self.start()

    def run(self) -> None:
        try:
            with httpx.stream(**self._request) as response:  # type: ignore[arg-type]
                for text in response.iter_text():
                    self.heard += text
        except httpx.HTTPError as error:
            self.heard += type(error).__name__


@pytest.fixture(params=["redis", "postgres"])
def servers(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Servers]:
    place = KINDS[request.param](request, tmp_path)
    assert place.url is not None
    data = tmp_path / "data"
    keys = {user: ApiKeys(data).create(user)[1] for user in ("alice", "bob")}
    with OpenAIStub() as stub, ExitStack() as stack:
        processes = [
            stack.enter_context(
                launch(
                    tmp_path / f"server-{n}",
                    OPENAI_BASE_URL=stub.base_url,
                    RECOLLECT_DATA_DIR=str(data),
                    RECOLLECT_HISTORY_URL=place.url,
                )
            )
            for n in range(3)
        ]
        for process in processes:
            process.wait_ready()
        yield Servers(processes, stub, keys)


@proves("G3", "G6")
def test_users_hop_between_servers_while_one_is_killed_and_one_is_paused(servers: Servers) -> None:
    hop_each_turn(servers)
    with ThreadPoolExecutor() as both:  # at once: most of their time is the wait for a lease to run out
        for done in [
            both.submit(go_on_where_a_killed_server_left, servers),
            both.submit(keep_a_paused_server_from_writing, servers),
        ]:
            done.result()


def hop_each_turn(servers: Servers) -> None:
    for number in range(5):
        for user in ("alice", "bob"):
            reply = servers.post(user, "hops", f"{user} {number}")
            assert reply.status_code == 200, reply.text
            seen = [f"{user} {n}" for n in range(number + 1)]
            assert reply.json()["output"].endswith(f"I have seen {number + 1} user messages: {' | '.join(seen)}")
    for at in range(3):
        assert servers.said("alice", "hops", at=at) == [(f"alice {n}", "complete") for n in range(5)]


def go_on_where_a_killed_server_left(servers: Servers) -> None:
    assert servers.post("alice", "killed", "one", at=0).status_code == 200
    cut = servers.talk_in_background("alice", "killed", "two [[n 100]] [[slow 0.1]]", at=0)
    wait_for(lambda: "event: data" in cut.heard, "the first words")
    servers.processes[0].kill()
    started = time.monotonic()
    reply = servers.post("alice", "killed", "three", at=2)
    took = time.monotonic() - started
    assert reply.status_code == 200, reply.text
    started = time.monotonic()
    assert servers.post("alice", "not killed", "three", at=2).status_code == 200
    assert took < FREE_AGAIN_S + time.monotonic() - started  # a turn itself takes as long as the machine lets it
    cut.join(60)
    assert "event: end" not in cut.heard
    words = ["one", "two [[n 100]] [[slow 0.1]]", "three"]
    statuses = ["complete", "interrupted", "complete"]
    assert servers.said("alice", "killed", at=2) == list(zip(words, statuses, strict=True))


def keep_a_paused_server_from_writing(servers: Servers) -> None:
    slow = "one [[n 30]] [[slow 0.05]]"
    cut = servers.talk_in_background("bob", "paused", slow, at=1)
    wait_for(lambda: "event: data" in cut.heard, "the first words")
    servers.processes[1].process.send_signal(signal.SIGSTOP)
    try:
        reply = servers.post("bob", "paused", "two", at=2)  # waits for the end of the lease
        assert reply.status_code == 200, reply.text
        record = servers.turns("bob", "paused", at=2)
    finally:
        servers.processes[1].process.send_signal(signal.SIGCONT)
    cut.join(60)
    assert not cut.is_alive()
    assert "event: end" not in cut.heard
    assert "event: error" in cut.heard
    assert servers.turns("bob", "paused", at=2) == record
    assert servers.said("bob", "paused", at=1) == [(slow, "interrupted"), ("two", "complete")]
    assert servers.post("bob", "paused", "three", at=1).status_code == 200

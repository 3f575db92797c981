"""A server with an instant model, a bystander beside it, and what an attack does to the two of them."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.abuse.attacks import Attack, Told
from tests.abuse.bystander import Seen
from tests.live_server import ROOT, Process, start


@dataclass(frozen=True)
class Outcome:
    """What an attack did. Memory is the most that the server had, in MB."""

    told: Told
    seen: Seen
    memory_mb: float

    def __str__(self) -> str:
        waits = f"healthz {self.seen.p99('healthz') * 1000:.0f} ms, invoke {self.seen.p99('invoke') * 1000:.0f} ms"
        wrong = f", wrong: {self.seen.wrong[:3]}" if self.seen.wrong else ""
        return f"{waits} (p99), {self.memory_mb:.0f} MB, told {dict(self.told.most_common())}{wrong}"


@contextmanager
def world(folder: Path) -> Iterator[Process]:
    """A server, and its model in a process of its own."""
    command = [sys.executable, "-m", "tests.openai_stub", "--port", "0"]
    model = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    assert model.stdout is not None
    try:
        url = model.stdout.readline().decode().strip()
        with start(folder, OPENAI_BASE_URL=url, OPENAI_API_KEY="none") as server:
            yield server
    finally:
        model.kill()
        model.wait()
        model.stdout.close()


@contextmanager
def bystander(server: Process) -> Iterator[Seen]:
    """Another user, whose waiting is known after the block."""
    command = [sys.executable, "-m", "tests.abuse.bystander", server.url, server.key("alice")]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    seen = Seen()
    try:
        yield seen
    finally:
        printed, _ = process.communicate(timeout=90)
        seen.__dict__.update(json.loads(printed))


class _Memory(threading.Thread):
    """The most memory that a process had, looked at ten times a second."""

    def __init__(self, process: int) -> None:
        super().__init__(daemon=True)
        self._process, self._over, self.most = psutil.Process(process), threading.Event(), 0.0

    def run(self) -> None:
        while not self._over.wait(0.1):
            self.most = max(self.most, self._process.memory_info().rss / 1e6)

    def stop(self) -> float:
        self._over.set()
        self.join()
        return self.most


async def suffer(server: Process, attack: Attack, scale: float) -> Outcome:
    """One attack, and what the bystander saw of it, and of two seconds after it."""
    memory = _Memory(server.process.pid)
    memory.start()
    try:
        with bystander(server) as seen:
            told = await attack(server, scale)
            await asyncio.sleep(2.0)
    finally:
        most = memory.stop()
    return Outcome(told, seen, most)

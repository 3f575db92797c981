"""The servers, the model, and the hand that kills them."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import httpx
import psutil

from tests.openai_stub import OpenAIStub
from tests.postgres_server import PostgresServer
from tests.redis_server import RedisServer

ROOT = Path(__file__).parent.parent.parent
_WORD = re.compile(r"\w+\.s\d+\.\w+-\d+")


def answer(messages: Sequence[Mapping[str, Any]]) -> str:
    """What the model says: the word it was told, the word before that in its prompt, and how many words it saw.

    What is recalled does not begin with a word.
    """
    words = [match[0] for m in messages if m["role"] == "user" and (match := _WORD.match(str(m["content"])))]
    return f"{words[-1]} after {words[-2] if len(words) > 1 else 'nothing'} of {len(words)}"


def serve_model() -> None:
    """The model's process: prints its URL, and ends with its standard input."""
    with OpenAIStub() as stub:
        stub.reply = answer
        print(stub.base_url, flush=True)
        sys.stdin.read()


class Server:
    """One server, with workers, in a session of processes of its own."""

    def __init__(
        self, environment: dict[str, str], log: Path, command: Sequence[str] = (sys.executable, "server.py")
    ) -> None:
        self._command = list(command)
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._environment = {**os.environ, **environment, "RECOLLECT_PORT": str(self.port)}
        self._log = log
        self.is_alone = environment["RECOLLECT_WORKERS"] == "1"
        """Whether it has no worker processes: then only the whole of it can be killed."""
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command, cwd=ROOT, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )

    def workers(self) -> list[psutil.Process]:
        """The worker processes that live."""
        try:
            children = psutil.Process(self.process.pid).children()
            return [child for child in children if "spawn_main" in " ".join(child.cmdline())]
        except psutil.Error:
            return []

    def kill(self) -> None:
        """kill -9 of the server with all its workers."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    async def ready(self) -> None:
        async with httpx.AsyncClient() as http, asyncio.timeout(150):
            while True:
                try:
                    await http.get(f"{self.url}/healthz")
                except httpx.HTTPError:
                    await asyncio.sleep(0.05)
                else:
                    return


StoreServer = RedisServer | PostgresServer


@contextmanager
def store_server(store: str) -> Iterator[tuple[str, StoreServer | None]]:
    """The URL of the store, and its server, if it is one of our own: for the bare words redis and postgres."""
    kinds: dict[str, type[RedisServer] | type[PostgresServer]] = {"redis": RedisServer, "postgres": PostgresServer}
    if store not in kinds:
        yield store, None
        return
    server = kinds[store]()
    try:
        server.start()
        yield server.url, server
    finally:
        server.remove()


class Hand:
    """Kills and pauses, and counts it."""

    def __init__(self, random: Random, servers: list[Server], store: StoreServer | None = None) -> None:
        self._random, self._servers, self._store = random, servers, store
        self.kills = self.pauses = self.store_faults = 0

    async def run(self, until: float, every_s: float) -> None:
        """Strikes about every `every_s` seconds until that monotonic time."""
        while (now := time.monotonic()) < until:
            server = self._random.choice(self._servers)
            if server.is_alone:  # while it starts, there is nothing to take from it
                await server.ready()
            await asyncio.sleep(min(self._random.uniform(0.5, 1.5) * every_s, max(0.0, until - now)))
            if self._store is not None and self._random.random() < 0.25:
                await self._strike_store(self._store)
            elif self._random.random() < 0.2 or server.is_alone:
                server.kill()
                self.kills += 1
                server.start()
            elif workers := server.workers():
                await self._strike(self._random.choice(workers))

    async def _strike_store(self, store: StoreServer) -> None:
        """Its server is gone for a moment, or silent."""
        self.store_faults += 1
        if self._random.random() < 0.5:
            store.pause()
            try:
                await asyncio.sleep(self._random.uniform(0.2, 2.0))
            finally:
                store.resume()
        else:
            await asyncio.to_thread(store.kill)
            await asyncio.sleep(self._random.uniform(0.0, 1.0))
            await asyncio.to_thread(store.start)

    async def _strike(self, worker: psutil.Process) -> None:
        try:
            if self._random.random() < 0.1:
                worker.suspend()
                self.pauses += 1
                await asyncio.sleep(self._random.uniform(0.2, 1.0))
                worker.resume()
            else:
                worker.kill()
                self.kills += 1
        except psutil.NoSuchProcess:
            pass

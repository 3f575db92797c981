"""The processes of the benchmark: servers, and the clients that load them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from bench.load import Job, Outcome

ROOT = Path(__file__).parent.parent
PATIENCE_S = 60.0

MODEL = "model"
"""The server of a model, asked without any other before it."""

AGENTS = ("aegra", "langgraph")
"""Servers of agents, which speak LangGraph's protocol (`bench/serve_agents.py`)."""


class Child:
    """A Python module in a process of its own, which talks in lines of JSON and ends with its standard input."""

    def __init__(self, *arguments: str, python: str = sys.executable) -> None:
        self._name = arguments[0]
        self._process = subprocess.Popen(
            [python, "-W", "ignore", "-m", *arguments],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in: IO[str] = self._process.stdin
        self._out: IO[str] = self._process.stdout

    @property
    def pid(self) -> int:
        return self._process.pid

    def hear(self) -> dict[str, Any]:
        """The next line that it says; `RuntimeError` if it has ended instead."""
        line = self._out.readline()
        if not line:
            raise RuntimeError(f"{self._name} ended: {self._process.wait(PATIENCE_S)}")
        heard: dict[str, Any] = json.loads(line)
        return heard

    def tell(self, value: dict[str, Any]) -> None:
        self._in.write(json.dumps(value) + "\n")
        self._in.flush()

    def end(self) -> None:
        self._in.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(PATIENCE_S)
        self._out.close()


@dataclass
class Server:
    """A running subject."""

    subject: str
    child: Child
    port: int
    headers: dict[str, str]
    folder: Path
    ready_s: float
    """From the start of the process until it listened."""
    idle_bytes: int = field(default=0)
    also: tuple[Server, ...] = ()
    """Others that clients may choose instead of it."""

    def resident(self) -> int:
        """Its resident memory, in bytes."""
        status = Path(f"/proc/{self.child.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) * 1024

    def processor_s(self) -> float:
        """The processor time that it and those which clients may choose instead have taken."""
        tasks = Path(f"/proc/{self.child.pid}/task").glob("*/schedstat")
        own = sum(int(task.read_text().split()[0]) for task in tasks) / 1e9
        return own + sum(other.processor_s() for other in self.also)

    def lags(self) -> list[float]:
        """How long its event loop was late since this was last asked, in milliseconds, sorted."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-bench", timeout=PATIENCE_S) as answer:
            lags: list[float] = json.load(answer)["lags"]
            return lags


@contextmanager
def serving(
    subject: str,
    folder: Path,
    *,
    model: str = "instant",
    python: str = sys.executable,
    lag: bool = False,
    store: str = "file:",
) -> Iterator[Server]:
    """A subject that serves. `store` is the URL of Recollect's histories, or of Aegra's PostgreSQL."""
    folder.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    options = ["--store", store, *(["--lag"] if lag else [])]
    module = "bench.serve_agents" if subject in AGENTS else "bench.serve"
    child = Child(module, subject, model, str(folder), *options, python=python)
    try:
        ready = child.hear()
        server = Server(subject, child, ready["port"], ready["headers"], folder, time.perf_counter() - started)
        server.idle_bytes = server.resident()
        yield server
    finally:
        child.end()


@contextmanager
def model_server(*, first_s: float = 0, token_s: float = 0) -> Iterator[Server]:
    """A server that speaks OpenAI's protocol; it takes so long for the first token, and for each other."""
    started, child = time.perf_counter(), Child("bench.openai_stub", str(first_s), str(token_s))
    try:
        yield Server(MODEL, child, child.hear()["port"], {}, Path(), time.perf_counter() - started)
    finally:
        child.end()


@contextmanager
def openai_stub() -> Iterator[str]:
    """The URL of such a server that says all at once."""
    with model_server() as server:
        yield url_of(server)


def url_of(model: Server) -> str:
    """Where a model's server is asked."""
    return f"http://127.0.0.1:{model.port}/v1"


class Clients:
    """The process that loads servers."""

    def __init__(self) -> None:
        self._child = Child("bench.load")

    def do(self, server: Server, endpoint: str, **details: Any) -> Outcome:
        """Does a job on a server; `RuntimeError` if a single turn of it failed."""
        ports = [server.port, *(other.port for other in server.also)]
        details = {"agents": server.subject in AGENTS, "model": server.subject == MODEL, **details}
        job = Job(ports=ports, headers=server.headers, endpoint=endpoint, **details)
        self._child.tell(asdict(job))
        outcome = Outcome(**self._child.hear())
        if outcome.failed:
            raise RuntimeError(f"{server.subject} {endpoint}: {outcome.failed} turns failed: {outcome.problem}")
        return outcome

    def end(self) -> None:
        self._child.end()

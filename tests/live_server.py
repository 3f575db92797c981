"""Recollect over real HTTP, for tests: as a process of its own, or in this one.

    with serve_here(tmp_path, openai_base_url=stub.base_url) as server:
        server.client("alice").post("/chat/invoke", json=...)

Both kinds are a `Live`: a URL, a data folder, and keys to it. `serve_here` also takes a chat model and a store, as
`create_app` does; `start` runs `server.py`, and gives its process, with all that it prints.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from api.door import DoorRules
from auth.keys import ApiKeys
from chains import Chain
from server import create_app
from serving import bind, configured
from settings import Settings

ROOT = Path(__file__).resolve().parent.parent
READY_S = 60.0
PLAIN = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For the `verify` of clients without TLS: each would read all of the authorities, which takes 20 ms of a processor."""

# What LangServe 0.3.3 still uses. A server in this process warns under the filters of the test that calls it.
langserve_warns = [
    pytest.mark.filterwarnings("ignore:astream_log is deprecated"),
    pytest.mark.filterwarnings("ignore:Accessing the 'model_fields' attribute on the instance is deprecated"),
]
_OTHERS = ("RECOLLECT_", "OPENAI_", "LANGCHAIN_", "LANGSMITH_", "OTEL_")


def wait_for(condition: Callable[[], Any], what: str, timeout: float = 60) -> Any:
    """What the condition gives once that is true; raises `TimeoutError` if it never is."""
    end = time.monotonic() + timeout
    while not (value := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"waited {timeout} s for {what}")
        time.sleep(0.01)
    return value


class Live:
    """A server that runs, and keys to it."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self._keys: dict[str, str] = {}

    @property
    def url(self) -> str:
        raise NotImplementedError

    def key(self, user: str) -> str:
        """The user's API key, made when first asked for."""
        if user not in self._keys:
            _, self._keys[user] = ApiKeys(self.data_dir).create(user)
        return self._keys[user]

    def headers(self, user: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key(user)}"}

    def client(self, user: str | None = "alice") -> httpx.Client:
        """A client of one user, or of nobody."""
        headers = self.headers(user) if user else None
        return httpx.Client(base_url=self.url, headers=headers, timeout=READY_S, verify=PLAIN)

    def async_client(self, user: str | None = "alice") -> httpx.AsyncClient:
        """The same for coroutines."""
        limits = httpx.Limits(max_connections=None)
        headers = self.headers(user) if user else None
        return httpx.AsyncClient(base_url=self.url, headers=headers, timeout=READY_S, limits=limits, verify=PLAIN)


@cache
def _loop() -> asyncio.AbstractEventLoop:
    """The one loop of all servers in this process: sse-starlette's event belongs to the first loop that used it.

    It is of the kind that serves in production.
    """
    factory = (
        uvicorn.Config("none", log_config=None).get_loop_factory() or asyncio.new_event_loop
    )  # the one that serves in production
    loop = factory()
    threading.Thread(target=loop.run_forever, name="servers", daemon=True).start()
    return loop


class Here(Live):
    """A server in this process."""

    def __init__(self, app: FastAPI, data_dir: Path, door: DoorRules | None = None) -> None:
        super().__init__(data_dir)
        self.app = app
        self._socket = bind("127.0.0.1", 0)
        config = configured(app, shutdown_s=0, door=door, log_config=None)
        self._server = uvicorn.Server(config)
        self._serving = asyncio.run_coroutine_threadsafe(self._server.serve([self._socket]), _loop())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def wait_ready(self) -> None:
        wait_for(lambda: self._server.started or self._serving.done(), "the server", READY_S)
        if self._serving.done():
            fault = getattr(self.app.state, "fault", None)
            raise RuntimeError(f"the server ended at once: {fault}") from self._serving.exception()

    def stop(self) -> None:
        self._server.should_exit = True
        with suppress(SystemExit):  # of a start that failed
            self._serving.result(READY_S)
        self._socket.close()


@contextmanager
def serve_here(
    folder: Path,
    *,
    model: Any = None,
    model_name: str | None = None,
    store: Any = None,
    chains: list[Chain] | None = None,
    door: DoorRules | None = None,
    **settings: Any,
) -> Iterator[Here]:
    """A server in this process, until the end of the block. The settings are the fields of `Settings`."""
    data_dir = folder / "data"
    app = create_app(Settings(data_dir=data_dir, model=model_name, **settings), model=model, store=store, chains=chains)
    server = Here(app, data_dir, door)
    try:
        server.wait_ready()
        yield server
    finally:
        server.stop()


class Process(Live):
    """`server.py` as a process of its own, on a port of its own choice."""

    def __init__(self, folder: Path, environment: Mapping[str, str], *, server: Path, errors: IO[bytes] | None) -> None:
        super().__init__(folder / "data")
        folder.mkdir(parents=True, exist_ok=True)
        self._output = folder / "output.txt"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_OTHERS)}
        self.started_at = time.monotonic()
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, str(server)],
                cwd=folder,
                env={**inherited, "RECOLLECT_PORT": "0", **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors or subprocess.STDOUT,
            )

    @property
    def output(self) -> str:
        """All that it has printed, to both outputs."""
        return self._output.read_text(errors="replace")

    @property
    def url(self) -> str:
        return self.wait_for_line(r"Recollect is at (http://\S+)")

    def wait_for_line(self, pattern: str, timeout: float = READY_S) -> str:
        """The first group of the pattern, once that was printed; raises `RuntimeError` if the process ends before."""
        over = False
        end = time.monotonic() + timeout
        while (found := re.search(pattern, self.output)) is None:
            if over or time.monotonic() > end:
                raise RuntimeError(f"no line {pattern!r}, exit status {self.process.returncode}:\n{self.output}")
            over = self.process.poll() is not None
            time.sleep(0.01)
        return found.group(1)

    def wait_ready(self) -> float:
        """Returns when a request was answered: the seconds since the start."""
        with httpx.Client(base_url=self.url, timeout=READY_S, verify=PLAIN) as client:
            assert client.get("/healthz").status_code == 200
        return time.monotonic() - self.started_at

    def wait_exit(self, timeout: float = 60) -> int:
        return self.process.wait(timeout)

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def launch(
    folder: Path, *, server: Path = ROOT / "server.py", errors: Any = None, **environment: str
) -> Iterator[Process]:
    """`server.py` from the start on, whatever comes of it, until the end of the block. Its log goes to `errors`."""
    process = Process(folder, environment, server=server, errors=errors)
    try:
        yield process
    finally:
        if process.process.poll() is None:
            process.terminate()
            process.terminate()
            try:
                process.wait_exit()
            except subprocess.TimeoutExpired:
                process.kill()
                raise


@contextmanager
def start(folder: Path, *, server: Path = ROOT / "server.py", **environment: str) -> Iterator[Process]:
    """`server.py`, ready to answer, until the end of the block."""
    with launch(folder, server=server, errors=None, **environment) as process:
        process.wait_ready()
        yield process


def copy_of_the_tree(folder: Path) -> Path:
    """Copies what serves, for a test to change; gives the copy's `server.py`."""
    skipped = shutil.ignore_patterns(".*", "tests", "bench", "data", "node_modules")
    shutil.copytree(ROOT, folder, ignore=skipped)
    return folder / "server.py"

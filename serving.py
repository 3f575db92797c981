"""Running the server: sockets, worker processes, signals."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import gc
import logging
import multiprocessing
import multiprocessing.connection
import resource
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any, cast

import uvicorn
from fastapi import FastAPI
from typing_extensions import override
from uvicorn.config import STARTUP_FAILURE

from api.door import Doorkeeper, DoorRules
from turns.run import Turns

log = logging.getLogger("recollect.serving")

BAD_SETTINGS = 2
"""The exit status when the server can't start as it is set up."""

_GRACE_S = 5.0
"""What requests get on top of the turns' own time to end, before they are cancelled."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
"""Of glibc's malloc.h. To set the second one stops it from growing, and the first one from growing with it."""

_LARGE_PIECE = 1024 * 1024

_FILES_A_CONNECTION = 4
"""A connection may hold a turn, with its session's file and its lock."""


def arguments(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """The settings that the command line names: host and port. Anything else ends the process, with a hint."""
    parser = argparse.ArgumentParser(
        prog="server.py",
        description="Serves Recollect. All its settings are variables of the environment: see the README.",
        epilog="Keys, links, checks and what else an operator does: admin.py --help",
        allow_abbrev=False,
    )
    parser.add_argument("--host", metavar="ADDRESS", help="where to listen; before RECOLLECT_HOST")
    parser.add_argument("--port", metavar="NUMBER", help="before RECOLLECT_PORT")
    said, unknown = parser.parse_known_args(argv)
    if unknown:
        parser.error(f"{unknown[0]} is not known here: settings are variables such as RECOLLECT_WORKERS=2 (README)")
    return {name: value for name, value in vars(said).items() if value is not None}


@contextlib.contextmanager
def no_collector() -> Iterator[None]:
    """No garbage is looked for meanwhile: what is built here stays, and most of it is looked through for nothing."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises `OSError`, for one, when the port is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named as TCP, or asyncio leaves Nagle's algorithm on, which costs 40 ms an answer.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(2048)
        sock.set_inheritable(True)
    except OSError:
        sock.close()
        raise
    return sock


def allow_many_files() -> None:
    """Each connection and each running turn holds a descriptor: raises the soft limit to the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(hard, 65536) if hard != resource.RLIM_INFINITY else 65536
    if soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def give_memory_back() -> None:
    """Large pieces of memory go back to the system when they are free, where the C library is one that can be told to.

    The GNU one takes to keeping them, up to 32 MB each, for each thread: some requests of 4 MB at once leave 500 MB.
    """
    with contextlib.suppress(OSError, AttributeError):
        tell = ctypes.CDLL(None).mallopt
        for what, size in (
            (_M_MMAP_THRESHOLD, _LARGE_PIECE),
            (_M_TRIM_THRESHOLD, 16 * _LARGE_PIECE),
            (_M_ARENA_MAX, 2),
        ):
            tell(what, size)


def door_rules(connections: int, per_address: int | None) -> DoorRules:
    """So many connections, or as many as this process has files for; of one address half, unless it is said."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files != resource.RLIM_INFINITY:
        connections = max(1, min(connections, files // _FILES_A_CONNECTION))
    return DoorRules(connections=connections, connections_per_address=per_address or max(1, connections // 2))


def configured(app: FastAPI, *, shutdown_s: float, door: DoorRules | None = None, **more: Any) -> uvicorn.Config:
    """How uvicorn serves the app: through the door, and without anything that the app has no use for."""
    return uvicorn.Config(
        app,
        http=cast(type[asyncio.Protocol], Doorkeeper(door, getattr(app.state, "door_told", None)).protocol),
        ws="none",
        proxy_headers=False,  # the app itself knows whom to believe
        access_log=False,  # it would write one-time links down
        timeout_graceful_shutdown=int(shutdown_s + _GRACE_S) + 1,
        **more,
    )


def run(
    app: FastAPI,
    sock: socket.socket,
    *,
    shutdown_s: float,
    door: DoorRules | None = None,
    started: Callable[[], None] | None = None,
) -> None:
    """Serves the app in this process until SIGTERM, SIGINT or SIGHUP; then turns get `shutdown_s` seconds to end.

    A second signal ends them at once. Returns in either case: the exit status is 0.
    """
    config = configured(app, shutdown_s=shutdown_s, door=door, log_level="warning", log_config=None)
    _Server(config, app.state.turns, shutdown_s, started).run(sockets=[sock])


class _Server(uvicorn.Server):
    def __init__(
        self, config: uvicorn.Config, turns: Turns, shutdown_s: float, started: Callable[[], None] | None
    ) -> None:
        super().__init__(config)
        self._turns, self._shutdown_s, self._tell_started = turns, shutdown_s, started

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and self._tell_started is not None:
            self._tell_started()

    @override
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        draining = asyncio.create_task(self._drain())
        await super().shutdown(sockets)
        await draining
        if self.force_exit:  # then uvicorn leaves this out, and would cut it off
            await self.lifespan.shutdown()

    async def _drain(self) -> None:
        if running := len(self._turns.running):
            log.info("told to stop: %d turns have %g seconds to end", running, self._shutdown_s)
        ending = asyncio.create_task(self._turns.drain(self._shutdown_s))
        while not ending.done():
            await asyncio.wait([ending], timeout=0.1)
            if self.force_exit:
                await self._turns.drain(0)

    @override
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True

    @contextlib.contextmanager
    @override
    def capture_signals(self) -> Iterator[None]:
        """uvicorn's raises the signal again when all is done, and so ends with its status; ours ends well."""
        before = {signal.SIGTERM: signal.signal(signal.SIGTERM, self.handle_exit)}
        # Of a worker process, Ctrl-C is its supervisor's to hear: it passes on one SIGTERM.
        own = multiprocessing.parent_process() is None
        for sig in (signal.SIGINT, *_hang_up()):
            before[sig] = signal.signal(sig, self.handle_exit if own else signal.SIG_IGN)
        try:
            yield
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)


def _hang_up() -> list[signal.Signals]:
    """The signal of a terminal that is gone; not where `nohup` has it ignored. Unheard, it would cut turns off."""
    return [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]


def end_with_parent() -> None:
    """Ends this worker process when its supervisor is gone, even if that was killed."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        signal.raise_signal(signal.SIGTERM)

    threading.Thread(target=wait, name="recollect-parent", daemon=True).start()


def supervise(work: Callable[[], None], workers: int, *, on_death: Callable[[int], None] = lambda pid: None) -> int:
    """Runs `work` in so many processes until SIGTERM, SIGINT or SIGHUP, which it passes on; gives the exit status.

    A worker that dies is replaced. One that can't start ends the server: it would fail the same way again.
    `on_death` is told the process id of each that died.
    """
    supervisor = _Supervisor(work, on_death)
    return supervisor.run(workers)


class _Supervisor:
    def __init__(self, work: Callable[[], None], on_death: Callable[[int], None]) -> None:
        self._on_death = on_death
        self._context = multiprocessing.get_context("spawn")
        self._work, self._workers, self._signals = work, list[BaseProcess](), 0

    def run(self, workers: int) -> int:
        for sig in (signal.SIGTERM, signal.SIGINT, *_hang_up()):
            signal.signal(sig, self._pass_on)
        self._workers = [self._start() for _ in range(workers)]
        while not self._signals:
            multiprocessing.connection.wait([worker.sentinel for worker in self._workers], timeout=0.5)
            for place, worker in enumerate(self._workers):
                if worker.is_alive() or self._signals:
                    continue
                if worker.exitcode in (STARTUP_FAILURE, BAD_SETTINGS):
                    self._pass_on(signal.SIGTERM, None)
                    break
                self._on_death(worker.pid or 0)
                log.warning("a worker died (exit status %s) and is replaced", worker.exitcode)
                self._workers[place] = self._start()
        for worker in self._workers:
            worker.join()
        statuses = [worker.exitcode or 0 for worker in self._workers]
        # One that had not begun to serve when it was told to end dies of it.
        return max((abs(status) for status in statuses if status != -signal.SIGTERM), default=0)

    def _start(self) -> BaseProcess:
        worker = self._context.Process(target=self._work, name="recollect-worker")
        worker.start()
        return worker

    def _pass_on(self, sig: int, frame: FrameType | None) -> None:
        self._signals += 1
        for worker in self._workers:
            if worker.is_alive():
                worker.terminate()

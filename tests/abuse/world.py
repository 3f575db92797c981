"""A server with an instant model, a bystander beside it, and what an attack does to the two of them."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Final

import psutil

from tests.abuse.attacks import Attack, Told
from tests.abuse.bystander import Seen
from tests.live_server import ROOT, Process, start

_AHEAD: Final = -15
"""The nice value with which a process has some twenty times the share of another one."""


@dataclass(frozen=True)
class Spent:
    """Seconds: what the server's processes and its event loop's thread ran, how long that thread was ready to run and
    had no processor, and what all that is none of the suite's took of all processors."""

    wall: float = 0.0
    server: float = 0.0
    loop: float = 0.0
    loop_waited: float = 0.0
    others: float = 0.0

    def __sub__(self, earlier: Spent) -> Spent:
        return Spent(*(now - then for now, then in zip(astuple(self), astuple(earlier), strict=True)))

    @staticmethod
    def until_now(server: int) -> Spent:
        """Since the machine began."""
        ran, waited = (int(word) / 1e9 for word in Path(f"/proc/{server}/schedstat").read_text().split()[:2])
        machine = psutil.cpu_times()
        ours = sum(_processor_s(one) for one in _family(psutil.Process()))
        busy = sum(machine[:3]) + getattr(machine, "irq", 0.0) + getattr(machine, "softirq", 0.0)
        theirs = sum(_processor_s(one) for one in _family(psutil.Process(server)))
        return Spent(time.monotonic(), theirs, ran, waited, busy - ours)


def _family(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]


def _processor_s(process: psutil.Process) -> float:
    """Also of its children that have ended."""
    try:
        return sum(process.cpu_times()[:4])
    except psutil.NoSuchProcess:
        return 0.0


@dataclass(frozen=True)
class Outcome:
    """What an attack did. Memory is the most that the server had, in MB."""

    told: Told
    seen: Seen
    memory_mb: float
    spent: Spent

    def __str__(self) -> str:
        waits = f"healthz {self.seen.p99('healthz') * 1000:.0f} ms, invoke {self.seen.p99('invoke') * 1000:.0f} ms"
        wrong = f", wrong: {self.seen.wrong[:3]}" if self.seen.wrong else ""
        spent, asked = self.spent, max(1, self.told.total())
        work = (
            f"in {spent.wall:.0f} s the server ran {spent.server:.1f} s ({spent.server / asked * 1000:.1f} ms for each "
            f"request, {spent.loop:.1f} s on the loop), the loop waited {spent.loop_waited:.1f} s for a processor, "
            f"others of this machine took {spent.others / spent.wall:.1f} processors, load {os.getloadavg()[0]:.0f}"
        )
        return f"{waits} (p99), {self.memory_mb:.0f} MB, told {dict(self.told.most_common())}{wrong}; {work}"


@contextmanager
def world(folder: Path, *, ahead: bool = False) -> Iterator[Process]:
    """A server, and its model in a process of its own; both `ahead` of all else on the machine, if so wished."""
    nice = _AHEAD if ahead else 0
    _set_group_ahead(nice)
    command = [sys.executable, "-m", "tests.openai_stub", "--port", "0"]
    model = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    assert model.stdout is not None
    try:
        url = model.stdout.readline().decode().strip()
        with start(folder, OPENAI_BASE_URL=url, OPENAI_API_KEY="none") as server:
            for process in (model.pid, server.process.pid):
                _set_nice(process, nice)
            yield server
            server.kill()  # it would wait for turns whose clients are gone
    finally:
        model.kill()
        model.wait()
        model.stdout.close()


@contextmanager
def bystander(server: Process) -> Iterator[Seen]:
    """Another user, whose waiting is known after the block."""
    command = [sys.executable, "-m", "tests.abuse.bystander", server.url, server.key("alice")]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    _set_nice(process.pid, psutil.Process(server.process.pid).nice())
    seen = Seen()
    try:
        yield seen
    finally:
        printed, _ = process.communicate(timeout=90)
        seen.__dict__.update(json.loads(printed))


def _set_group_ahead(nice: int) -> None:
    """Where Linux shares processors between sessions before it does between processes, it is this session's share."""
    group = Path("/proc/self/autogroup")
    if nice and group.exists():
        group.write_text(str(nice))


def _set_nice(process: int, nice: int) -> None:
    """Of all threads that it has, and so of those that they start."""
    for thread in psutil.Process(process).threads():
        os.setpriority(os.PRIO_PROCESS, thread.id, nice)


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
            before = Spent.until_now(server.process.pid)
            told = await attack(server, scale)
            spent = Spent.until_now(server.process.pid) - before
            await asyncio.sleep(2.0)
    finally:
        most = memory.stop()
    return Outcome(told, seen, most, spent)

"""A server with an instant model, a bystander beside it, and what an attack does to the two of them."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Final

import psutil

from histories import open_store
from histories.base import SessionNotFound, Turn, TurnStatus
from tests.abuse.attack import TURNS_ENDED, Attack
from tests.abuse.bystander import Seen, Span
from tests.abuse.calls import Told
from tests.live_server import ROOT, Process, start
from tests.stores import all_turns, texts

HEALTHZ_S, INVOKE_S, MEMORY_MB, RECOVERY_S, AHEAD = 0.25, 1.0, 400, 2.0, 2
"""What a bystander may wait, at the 99th percentile; what the server may need; how soon after an attack's end all is as
before; and after how many turns of others one who waits in line hears a first token."""

_BEFORE_S, _AT_LEAST_S, _AFTER_S = 1.0, 1.0, 6.0
"""How long the bystander asks before an attack, to be under way when it begins; how long an attack is taken to last, at
least; how long the bystander asks after it."""

_PLAIN_MB = 150.0
"""What a server takes that has started, without the embedded model."""

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

    attack: Attack
    told: Told
    seen: Seen
    memory_mb: float
    model_mb: float
    """How much of it is the embedded model's, which was there before the attack."""

    spent: Spent
    during: Span
    turns_ended: list[float]
    lost: list[str]
    """What the bystander was told of, and is not on the record."""

    @property
    def asked(self) -> str:
        """What the bystander does besides `/healthz`."""
        return "stream" if self.attack.listens else "invoke"

    def p99(self, what: str) -> float:
        """Seconds, of what was under way during the attack."""
        return self.seen.p99(what, self.during)

    @property
    def recovery_s(self) -> float:
        """How long after the attack's end an answer came that was too long under way: from then on, all is well."""
        bars = {"healthz": HEALTHZ_S, **({} if self.attack.listens else {"invoke": INVOKE_S})}
        troubled = max(self.seen.troubled_until(what, bar) for what, bar in bars.items())
        return max(0.0, troubled - self.during[1])

    @property
    def most_ahead(self) -> int:
        """How many turns of others ended between a question of the bystander's and its first token, at most."""
        return max((sum(a < at < b for at in self.turns_ended) for a, b in self.seen.stream), default=0)

    @property
    def faults(self) -> list[str]:
        """What the bystander noticed that it should not have."""
        found = [*self.seen.wrong[:3], *(f"lost: {one}" for one in self.lost[:3])]
        found += [f"the offender was told {one}" for one in self.told if one not in self.attack.told]
        if self.p99("healthz") >= HEALTHZ_S:
            found.append("healthz")
        if not self.attack.listens and self.p99("invoke") >= INVOKE_S:
            found.append("invoke")
        if self.most_ahead > AHEAD:
            found.append("others went first")
        if self.memory_mb - self.model_mb >= MEMORY_MB:
            found.append("memory")
        if self.recovery_s >= RECOVERY_S:
            found.append("recovery")
        return found

    def __str__(self) -> str:
        waits = f"healthz {self.p99('healthz') * 1000:.0f} ms, {self.asked} {self.p99(self.asked) * 1000:.0f} ms (p99)"
        if self.attack.listens:
            waits += f", {self.most_ahead} turns of others ahead at most of {len(self.seen.stream)} questions"
        kept = f"{len(self.seen.acknowledged) - len(self.lost)} of {len(self.seen.acknowledged)} turns kept"
        spent, asked = self.spent, max(1, self.told.total())
        work = (
            f"in {spent.wall:.0f} s the server ran {spent.server:.1f} s ({spent.server / asked * 1000:.1f} ms for each "
            f"request, {spent.loop:.1f} s on the loop), the loop waited {spent.loop_waited:.1f} s for a processor, "
            f"others of this machine took {spent.others / spent.wall:.1f} processors, load {os.getloadavg()[0]:.0f}"
        )
        told = dict(self.told.most_common())
        memory = f"{self.memory_mb:.0f} MB" + (f", of which the model {self.model_mb:.0f}" if self.model_mb else "")
        return f"{waits}, recovery {self.recovery_s:.1f} s, {memory}, {kept}, told {told}; {work}"


@contextmanager
def world(folder: Path, attack: Attack, *, store_url: str = "file:", ahead: bool = False) -> Iterator[Process]:
    """A server as the attack needs it, and its model in a process of its own; both `ahead` of all else on the
    machine, if so wished."""
    nice = _AHEAD if ahead else 0
    _set_group_ahead(nice)
    environment = {"RECOLLECT_HISTORY_URL": store_url, **attack.settings}
    with _model(nice) as url:
        if not attack.embedded:
            environment |= {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": "none"}
        if attack.files is not None:
            environment["FEW_FILES"] = str(attack.files)
        program = ROOT / ("server.py" if attack.files is None else "tests/abuse/few_files.py")
        with start(folder, server=program, **environment) as server:
            _set_nice(server.process.pid, nice)
            yield server
            server.kill()  # it would wait for turns whose clients are gone


@contextmanager
def _model(nice: int) -> Iterator[str]:
    """An instant one."""
    command = [sys.executable, "-m", "tests.openai_stub", "--port", "0"]
    model = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    assert model.stdout is not None
    try:
        url = model.stdout.readline().decode().strip()
        _set_nice(model.pid, nice)
        yield url
    finally:
        model.kill()
        model.wait()
        model.stdout.close()


@contextmanager
def bystander(server: Process, chain: str = "chat", how: str = "invoke") -> Iterator[Seen]:
    """Another user, whose waiting is known after the block."""
    command = [sys.executable, "-m", "tests.abuse.bystander", server.url, server.key("alice"), chain, how]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    _set_nice(process.pid, psutil.Process(server.process.pid).nice())
    seen = Seen()
    try:
        yield seen
    finally:
        printed, _ = process.communicate(timeout=150)
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


def most_memory_mb(process: int) -> float:
    """What it has had at most since it was started, by the kernel's own count."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6


async def suffer(server: Process, attack: Attack, scale: float, store_url: str = "file:") -> Outcome:
    """One attack, and what the bystander saw of it and after it. The server is killed in the end, and the record read
    as it is then."""
    model_mb = most_memory_mb(server.process.pid) - _PLAIN_MB if attack.embedded else 0.0
    await attack.prepare(server, scale)
    TURNS_ENDED.clear()
    with bystander(server, attack.beside, "stream" if attack.listens else "invoke") as seen:
        await asyncio.sleep(_BEFORE_S)
        before, begun = Spent.until_now(server.process.pid), time.monotonic()
        told = await attack.act(server, scale)
        ended, spent = max(time.monotonic(), begun + _AT_LEAST_S), Spent.until_now(server.process.pid) - before
        await asyncio.sleep(_AFTER_S)
        turns_ended = list(TURNS_ENDED)
    memory = most_memory_mb(server.process.pid)
    server.kill()
    missing = await lost(store_url, server.data_dir / "histories", seen)
    return Outcome(attack, told, seen, memory, model_mb, spent, (begun, ended), turns_ended, missing)


async def lost(store_url: str, folder: Path, seen: Seen) -> list[str]:
    """Which turns of the bystander's that were acknowledged are not on the record, word for word."""
    store = open_store(store_url, default_dir=str(folder))
    await store.open()
    try:
        kept: dict[tuple[str, str], Turn] = {}
        for session in {session for session, *_ in seen.acknowledged}:
            with suppress(SessionNotFound):
                turns = await all_turns(store.history("alice", session), 200)
                kept |= {(session, turn.turn_id): turn for turn in turns}
    finally:
        await store.close()
    return [
        f"{turn} of {session}"
        for session, turn, words, reply in seen.acknowledged
        if not _says(kept.get((session, turn)), words, reply)
    ]


def _says(turn: Turn | None, words: str, reply: str) -> bool:
    if turn is None or turn.status is not TurnStatus.COMPLETE:
        return False
    return texts(turn.input) == [words] and texts(turn.output) == [reply]

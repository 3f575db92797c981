"""One schedule: clients that do all kinds of things to one user's sessions, and what has to hold afterwards."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from langchain_core.messages import AIMessage, HumanMessage

from histories.base import (
    Feedback,
    HistoryError,
    NewTurn,
    OpenTurn,
    Reply,
    SessionBusy,
    SessionHistory,
    StoreUnavailable,
    Turn,
    TurnStatus,
)
from tests.simulate.power import Platter
from tests.simulate.process import Died, Process
from tests.simulate.world import World

_MEMORY: Final = Path("/dev/shm")
_Act = Callable[[SessionHistory, Process], Coroutine[Any, Any, None]]


class Broken(AssertionError):
    """An invariant does not hold."""


class Story:
    """`trouble` is how often disks fail and processes die: 0 for never."""

    def __init__(self, world: World, folder: str) -> None:
        self._world, self._random = world, world.random
        self._platter, self._folder, self._cuts = Platter(f"{folder}/0"), folder, 0
        self.trouble = self._random.choice([0.0, 0.0, 0.02])
        changes = self._random.random() < 0.4
        self._processes = [self._process() for _ in range(self._random.choice([1, 1, 2, 3]))]
        self._number = 0
        self._begun: dict[str, list[str]] = defaultdict(list)
        self._complete: dict[str, list[str]] = defaultdict(list)
        self._loose: set[str] = set()
        """Sessions from which something was taken away: there is no saying what is left."""
        turns: list[_Act] = [self._turn] * 5
        self._acts = [*turns, *[self._rename] * 3, self._renames, self._look, self._rate]
        if changes:
            self._acts += [self._rewind, self._choose, self._delete, self._fork, self._again, self._delete_turn]

    def _process(self) -> Process:
        return Process(self._world, self._platter, self.trouble)

    async def play(self) -> None:
        for process in self._processes:
            await process.store.open()
        await asyncio.gather(*(self._client(number) for number in range(self._random.randint(2, 5))))
        for process in self._processes:
            process.disk.trouble = 0.0
        await self._check()

    async def _client(self, number: int) -> None:
        for _ in range(self._random.randint(2, 5)):
            place = self._random.randrange(len(self._processes))
            process, session = self._processes[place], self._random.choice(["s1", "s1", "s1", "s2"])
            act = self._random.choice(self._acts)
            await asyncio.sleep(self._random.choice([0, 0, 0.001, 0.05]))
            with suppress(HistoryError, Died):
                await act(process.store.history("alice", session), process)
            if self.trouble and self._random.random() < 0.05 and not process.disk.is_dead:
                process.die()
                await self._start(place)
            elif self.trouble and self._random.random() < 0.03:
                await self._cut_power()

    async def _start(self, place: int) -> None:
        self._processes[place] = self._process()
        await self._processes[place].store.open()

    async def _cut_power(self) -> None:
        """All processes die, and others start on what had reached the disk."""
        for process in self._processes:
            process.die()
        self._cuts += 1
        self._platter = self._platter.after_a_cut(f"{self._folder}/{self._cuts}", self._random)
        for place in range(len(self._processes)):
            await self._start(place)

    # What clients do.

    async def _turn(self, history: SessionHistory, process: Process, **more: Any) -> None:
        self._number += 1
        name = f"turn {self._number}"
        new = NewTurn(input=[HumanMessage(name)], turn_id=name, given=self._random.random() < 0.3, **more)
        turn = await history.begin(new, wait_s=self._random.choice([0, 1, 30]), window_tokens=100)
        if not isinstance(turn, OpenTurn):
            raise Broken(f"{name} was never said before")
        process.turns.add(turn)
        self._begun[history.session_id].append(name)
        try:
            if self._random.random() < 0.2 and hasattr(turn, "journal"):
                with suppress(StoreUnavailable):
                    await turn.journal([b'"re: "', b'"%s"' % name.encode()])
            await asyncio.sleep(self._random.choice([0, 0, 0.01]))
            process.disk.step()
            ending = turn.end(Reply(status=TurnStatus.COMPLETE, output=[AIMessage(f"re: {name}")]))
            if self._random.random() < 0.3:
                ended, _ = await asyncio.gather(ending, history.rename(name), return_exceptions=True)
                if isinstance(ended, BaseException):
                    raise ended
            else:
                await ending
            self._complete[history.session_id].append(name)
        finally:
            process.forget(turn)

    async def _again(self, history: SessionHistory, process: Process) -> None:
        page = await history.turns(limit=1)
        if page.items and page.items[0].status is not TurnStatus.RUNNING:
            self._loose.add(history.session_id)
            await self._turn(history, process, version_of=page.items[0].turn_id)

    async def _rename(self, history: SessionHistory, process: Process) -> None:
        await history.rename("a title")

    async def _renames(self, history: SessionHistory, process: Process) -> None:
        await asyncio.gather(*(history.rename(f"title {n}") for n in range(20)), return_exceptions=True)

    async def _look(self, history: SessionHistory, process: Process) -> None:
        await history.info()
        await history.turns(limit=3)

    async def _rate(self, history: SessionHistory, process: Process) -> None:
        await self._to_some_turn(history, lambda turn_id: history.feedback(turn_id, Feedback(score=1, comment="")))

    async def _rewind(self, history: SessionHistory, process: Process) -> None:
        self._loose.add(history.session_id)
        keep = self._random.random() < 0.5
        await self._to_some_turn(history, lambda turn_id: history.rewind(turn_id, keep=keep))

    async def _choose(self, history: SessionHistory, process: Process) -> None:
        self._loose.add(history.session_id)
        await self._to_some_turn(history, history.choose)

    async def _delete_turn(self, history: SessionHistory, process: Process) -> None:
        self._loose.add(history.session_id)
        await self._to_some_turn(history, history.delete_turn)

    async def _to_some_turn(self, history: SessionHistory, act: Callable[[str], Awaitable[None]]) -> None:
        turns = self._begun[history.session_id]
        if turns:
            await act(self._random.choice(turns))

    async def _fork(self, history: SessionHistory, process: Process) -> None:
        self._number += 1
        await self._to_some_turn(history, lambda turn_id: history.fork(f"fork {self._number}", turn_id))

    async def _delete(self, history: SessionHistory, process: Process) -> None:
        self._loose.add(history.session_id)
        await history.delete()

    # What holds afterwards.

    async def _check(self) -> None:
        process = Process(self._world, self._platter, 0.0)
        for session in ("s1", "s2"):
            history = process.store.history("alice", session)
            self._check_turns(session, await _all_turns(history))
            await self._next_turn_works(history)

    def _check_turns(self, session: str, turns: list[Turn]) -> None:
        names = [turn.turn_id for turn in turns]
        if len(set(names)) < len(names):
            raise Broken(f"twice on the record: {names}")
        if any(turn.status is TurnStatus.RUNNING for turn in turns):
            raise Broken("a turn runs that nobody runs")
        for turn in turns:
            reply, whole = "".join(str(message.content) for message in turn.output), f"re: {turn.turn_id}"
            fits = reply == whole if turn.status is TurnStatus.COMPLETE else whole.startswith(reply)  # or its journal's
            if turn.input[0].content != turn.turn_id or not fits:
                raise Broken(f"torn apart: {turn}")
        if session in self._loose:
            return
        for kind, kept in (("begun", names), ("complete", [t.turn_id for t in turns if t.status == "complete"])):
            acknowledged = self._begun[session] if kind == "begun" else self._complete[session]
            lost = set(acknowledged) - set(kept)
            if lost:
                raise Broken(f"{kind} in {session}, acknowledged and not there: {lost}; {names}")
        order = [name for name in names if name in self._begun[session]]
        if order != self._begun[session]:
            raise Broken(f"out of order: {order}, {self._begun[session]}")

    async def _next_turn_works(self, history: SessionHistory) -> None:
        try:
            turn = await history.begin(NewTurn(input=[HumanMessage("next")]), wait_s=5)
        except SessionBusy as error:
            raise Broken("a session that nobody uses is busy") from error
        if not isinstance(turn, OpenTurn):
            raise Broken("a new turn is answered from the record")
        await turn.end(Reply(status=TurnStatus.COMPLETE, output=[AIMessage("done")]))


async def _all_turns(history: SessionHistory) -> list[Turn]:
    page = await history.turns(limit=3)
    turns = page.items
    while page.next is not None:
        page = await history.turns(limit=3, before=page.next)
        turns = page.items + turns
    return turns


def simulate(seed: int) -> tuple[int, float]:
    """One schedule: how many steps it had, and how long it took in its own time.

    Raises `Hang`, `Broken`, or whatever a store should not raise."""
    folder = tempfile.mkdtemp(prefix="simulate-", dir=_MEMORY if _MEMORY.is_dir() else None)
    world = World(seed)
    try:
        with world.running() as loop:
            loop.set_exception_handler(lambda loop, context: None)  # of who died, nobody asks what came of it
            story = asyncio.ensure_future(Story(world, folder).play(), loop=loop)
            try:
                loop.run_until_complete(story)
            finally:
                _cancel_all(loop)
    finally:
        _close_all(folder)
        shutil.rmtree(folder, ignore_errors=True)
    return world.steps, world.now


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    """What still waits is let go of; nothing runs any more."""
    loop.set_exception_handler(lambda loop, context: None)
    for task in asyncio.all_tasks(loop):
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        with suppress(BaseException):
            task.get_coro().close()


def _close_all(folder: str) -> None:
    """What processes that died had open, the kernel closes."""
    for number in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if os.readlink(f"/proc/self/fd/{number}").startswith(folder):
                os.close(int(number))

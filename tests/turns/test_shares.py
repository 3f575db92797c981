"""Fair shares: who runs, who waits, who is refused."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from typing import Any

import pytest

from histories.base import TurnStatus
from histories.memory import MemoryStore
from tests.echo_model import EchoModel
from tests.proofs import proves
from turns.errors import InvalidInput
from turns.rules import Rules, Stop
from turns.run import Turns
from turns.shares import FairThreads, LineFull, ShareRules, Shares, working_for
from turns.with_history import ChainWithHistory


class Work:
    """Work in shares, which ends when it is told to."""

    def __init__(self, **rules: int) -> None:
        self.shares = Shares(ShareRules(**rules))
        self.begun: list[str] = []
        self._ends: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def ask(self, *names: str) -> None:
        """Each name's first letter is its user."""
        for name in names:
            self._ends[name] = asyncio.Event()
            self.tasks[name] = asyncio.create_task(self._do(name))
            await _settle()

    async def _do(self, name: str) -> None:
        async with self.shares.share(name[0]):
            self.begun.append(name)
            await self._ends[name].wait()

    async def end(self, *names: str) -> None:
        for name in names:
            self._ends[name].set()
            await _settle()


async def _settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_users_who_wait_take_turns() -> None:
    work = Work(at_once=2, each=2)
    await work.ask("a1", "a2", "a3", "a4", "a5", "b1", "b2", "c1")
    assert work.begun == ["a1", "a2"]
    await work.end("a1", "a2", "b1", "a3", "c1")
    assert work.begun == ["a1", "a2", "b1", "a3", "c1", "b2", "a4"]


async def test_who_has_nothing_under_way_goes_first_when_a_place_is_free() -> None:
    work = Work(at_once=3, each=3)
    await work.ask("a1", "a2", "b1", "a3", "a4", "b2", "c1")
    await work.end("a1")
    assert work.begun[3:] == ["c1"]
    await work.end("c1")
    assert work.begun[4:] == ["a3"]  # both have one under way, and a was there first
    await work.end("a3")
    assert work.begun[5:] == ["b2"]


async def test_one_user_leaves_room_for_others() -> None:
    work = Work(at_once=4, each=2)
    await work.ask("a1", "a2", "a3", "b1")
    assert work.begun == ["a1", "a2", "b1"]
    await work.end("a1")
    assert work.begun[-1] == "a3"


async def test_who_gives_up_holds_nothing() -> None:
    work = Work(at_once=1, each=1)
    await work.ask("a1", "a2", "b1")
    work.tasks["a2"].cancel()
    await _settle()
    await work.end("a1")
    assert work.begun == ["a1", "b1"]
    work.tasks["b1"].cancel()
    await _settle()
    await work.ask("c1")
    assert work.begun[-1] == "c1"


async def test_who_gives_up_as_it_is_called_passes_the_share_on() -> None:
    work = Work(at_once=1, each=1)
    await work.ask("a1", "b1", "c1")
    work._ends["a1"].set()
    await asyncio.sleep(0)
    work.tasks["b1"].cancel()
    await _settle()
    assert "c1" in work.begun


async def test_a_full_line_is_refused_by_user_and_in_all() -> None:
    shares = Shares(ShareRules(line=2, line_of_all=3))
    leave = shares.admit("a")
    shares.admit("a")
    with pytest.raises(LineFull, match="You have too many"):
        shares.admit("a")
    shares.admit("b")
    with pytest.raises(LineFull, match="Too many"):
        shares.admit("c")
    leave()
    shares.admit("c")
    assert len(shares) == 3


def config(user: str, session: str) -> Any:
    return {"configurable": {"user_id": user, "session_id": session}}


async def test_a_turn_that_waits_for_its_share_can_be_stopped_and_keeps_the_question() -> None:
    go = asyncio.Event()
    turns = Turns(MemoryStore(), Rules(shares=ShareRules(at_once=1, each=1)))
    chain = ChainWithHistory(EchoModel(pause=lambda said: go.wait()), turns)
    first = asyncio.create_task(chain.ainvoke("one", config("a", "s1")))
    while not turns.shares.running:
        await asyncio.sleep(0)
    second = asyncio.create_task(chain.ainvoke("two", config("a", "s2")))
    history = turns.store.history("a", "s2")
    while not (await history.turns()).items:
        await asyncio.sleep(0.001)
    await history.stop()
    with pytest.raises(Exception, match="stopped"):
        await second
    (turn,) = (await history.turns()).items
    assert (turn.status, turn.input[0].content) == (TurnStatus.INTERRUPTED, "two")
    go.set()
    await first
    assert (turns.shares.running, len(turns.shares)) == (0, 0)


@proves("G13")
async def test_one_user_with_500_turns_in_line_does_not_hold_another_up() -> None:
    order: list[str] = []

    class Model(EchoModel):
        async def _agenerate(self, messages: Any, *args: Any, **kwargs: Any) -> Any:
            order.append(str(messages[-1].content))
            await asyncio.sleep(0.001)
            return await super()._agenerate(messages, *args, **kwargs)

    turns = Turns(MemoryStore(), Rules(shares=ShareRules(at_once=2)))
    chain = ChainWithHistory(Model(), turns)
    crowd = [asyncio.create_task(chain.ainvoke(f"a{n}", config("a", f"s{n}"))) for n in range(500)]
    while len(turns.shares) < 500 or len(order) < 2:
        await asyncio.sleep(0)
    begun = len(order)
    await chain.ainvoke("b", config("b", "s"))
    assert order.index("b") - begun <= 2
    for task in crowd:
        task.cancel()
    await asyncio.gather(*crowd, return_exceptions=True)
    for run in list(turns.running):
        run.stop(Stop.ASKED)
    await turns.drain(5)
    assert (turns.shares.running, len(turns.shares)) == (0, 0)


async def test_a_batch_is_bounded_and_takes_one_users_share() -> None:
    model = EchoModel()
    turns = Turns(MemoryStore(), Rules(max_batch=5, shares=ShareRules(each=2, line=3)))
    chain = ChainWithHistory(model, turns)
    configs = [config("a", f"s{n}") for n in range(6)]
    with pytest.raises(InvalidInput, match="at most 5 inputs"):
        await chain.abatch(["x"] * 6, configs)
    assert len(await chain.abatch(["x"] * 5, configs[:5])) == 5


@proves("G13")
async def test_all_batches_of_one_user_take_one_share_and_leave_others_theirs() -> None:
    go = asyncio.Event()

    async def pause(said: int) -> None:
        await go.wait()

    turns = Turns(MemoryStore(), Rules(shares=ShareRules(each=2)))
    chain = ChainWithHistory(EchoModel(pause=pause), turns)

    def batch(user: str, number: int) -> Any:
        return chain.abatch(["x"] * 5, [config(user, f"{number}-{n}") for n in range(5)])

    asked = [asyncio.create_task(batch(user, number)) for number, user in enumerate("aab")]
    while turns.shares.running < 4:
        await asyncio.sleep(0.001)
    for _ in range(20):
        await asyncio.sleep(0)
    assert Counter(run._user_id for run in turns.running) == {"a": 2, "b": 2}
    go.set()
    assert [len(outputs) for outputs in await asyncio.gather(*asked)] == [5, 5, 5]


@proves("G13")
async def test_blocking_calls_of_one_user_leave_threads_to_others() -> None:
    threads = FairThreads(3, 2, "test")
    asyncio.get_running_loop().set_default_executor(threads)
    go = threading.Event()

    async def block(user: str) -> None:
        working_for.set(user)
        await asyncio.to_thread(go.wait, 10)

    async def ask(user: str) -> str:
        working_for.set(user)
        return await asyncio.to_thread(lambda: user)

    crowd = [asyncio.create_task(block("a")) for _ in range(14)]
    await _settle()
    assert await asyncio.wait_for(asyncio.create_task(ask("b")), 60) == "b"
    go.set()
    await asyncio.gather(*crowd)


async def test_what_a_blocking_call_raises_is_its_callers() -> None:
    threads = FairThreads(1, 1, "test")
    asyncio.get_running_loop().set_default_executor(threads)
    with pytest.raises(ZeroDivisionError):
        await asyncio.to_thread(lambda: 1 // 0)
    assert await asyncio.to_thread(lambda: 1) == 1

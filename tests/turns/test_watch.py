"""Turns that are followed, joined, left and come back to: in the process that runs them, and in another one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import pytest
from langchain_core.messages import AIMessage
from typing_extensions import override

import histories.gate
from histories.base import (
    Attempt,
    Event,
    OpenTurn,
    SessionHistory,
    SessionNotFound,
    StoreUnavailable,
    Turn,
    TurnNotFound,
    TurnRunning,
    TurnStatus,
)
from histories.memory import MemoryHistory, MemoryStore
from tests.echo_model import EchoModel
from tests.proofs import proves
from tests.turns.test_turns import Gate, settled, wait_for
from tests.turns.test_with_history import config, shapes, text_of, turns_of
from turns import attendance, turn_run
from turns.errors import RecordedFailure, ShuttingDown, TurnStopped, WrongChain
from turns.rules import Rules
from turns.run import Turns
from turns.turn_run import TurnRun
from turns.voice import encode
from turns.watch import ended, rest_of, watch
from turns.with_history import ChainWithHistory

WORDS = "one two three four five six"
WITHIN_S = 60


def text_chain(turns: Turns, gate: Gate | None = None, name: str = "") -> ChainWithHistory:
    chain, _ = shapes(EchoModel(prompts=[], pause=gate), turns)["string out"]
    return chain.model_copy(update={"chain_name": name})


def started(turns: Turns, gate: Gate | None = None, **configurable: str) -> TurnRun:
    ask = {"topic": "", "question": WORDS}
    return text_chain(turns, gate).start(ask, config(turn_id="t", **configurable), streaming=True)


async def heard(events: AsyncGenerator[Sequence[Event], None], upto: int | None = None) -> list[Event]:
    found: list[Event] = []
    async with asyncio.timeout(WITHIN_S), aclosing(events):
        async for some in events:
            found += some
            if upto is not None and found and found[-1].seq >= upto:
                break
    return found


def said(events: Sequence[Event]) -> str:
    return "".join(json.loads(event.data) for event in events)


@pytest.mark.parametrize("ended_before", [False, True])
async def test_who_follows_elsewhere_a_turn_that_a_shutdown_ended_is_told_to_try_again(ended_before: bool) -> None:
    store, gate = MemoryStore(), Gate(2)
    here = Turns(store)
    run = started(here, gate)
    await gate.reached.wait()
    following = watch(Turns(store), "alice", "s1", "t")
    if not ended_before:
        assert await anext(following)
    await here.drain(0)
    await asyncio.wait({run.task})
    with pytest.raises(ShuttingDown, match="turn_id 't'"):
        await heard(following)


@proves("G12")
@pytest.mark.parametrize("where", ["here", "elsewhere"])
async def test_a_running_turn_is_followed_from_its_beginning_and_from_any_event(where: str) -> None:
    store, gate = MemoryStore(), Gate(4)
    turns = Turns(store)
    run = started(turns, gate)
    own = asyncio.create_task(heard(run.events()))
    await gate.reached.wait()
    watcher = turns if where == "here" else Turns(store)
    first = await heard(watch(watcher, "alice", "s1", "t"), upto=3)
    assert [event.seq for event in first] == [0, 1, 2, 3]
    following = asyncio.create_task(heard(watch(watcher, "alice", "s1", "t", after=1)))
    await asyncio.sleep(0)
    gate.opened.set()
    everything, rest = await own, await following
    assert [event.seq for event in everything] == list(range(len(everything)))
    assert said(first[:2]) + said(rest) == said(everything) == f"{WORDS}."


@proves("G12")
async def test_a_turn_that_has_ended_is_told_from_its_record_to_whoever_comes_back() -> None:
    store = MemoryStore()
    everything = await heard(started(Turns(store)).events())
    for after in range(-1, len(everything) + 2):
        rest = await heard(watch(Turns(store), "alice", "s1", "t", after=after))
        assert said(everything[: after + 1]) + said(rest) == f"{WORDS}."
        assert not rest or rest[-1].seq == len(everything) - 1


async def test_what_is_not_there_can_not_be_followed() -> None:
    store = MemoryStore()
    await heard(started(Turns(store)).events())
    for user, session, turn in (("bob", "s1", "t"), ("alice", "s1", "x"), ("alice", "x", "t")):
        with pytest.raises((TurnNotFound, SessionNotFound)):
            await heard(watch(Turns(store), user, session, turn))


@pytest.mark.parametrize("where", ["here", "elsewhere"])
async def test_a_retry_of_a_running_turn_gets_its_reply(where: str) -> None:
    store, gate = MemoryStore(), Gate(0)
    turns = Turns(store)
    chain = text_chain(turns, gate)
    ask = {"topic": "", "question": WORDS}
    first = asyncio.create_task(chain.ainvoke(ask, config(turn_id="t")))
    await gate.reached.wait()
    other = chain if where == "here" else text_chain(Turns(store))
    again = asyncio.create_task(other.ainvoke(ask, config(turn_id="t")))
    await asyncio.sleep(0)
    gate.opened.set()
    assert await first == await again == f"{WORDS}."
    assert len(await turns_of(store)) == 1


async def test_a_retry_of_a_turn_that_is_stopped_is_told_so() -> None:
    store, gate = MemoryStore(), Gate(2)
    run = started(Turns(store), gate)
    await gate.reached.wait()
    ask = {"topic": "", "question": WORDS}
    again = asyncio.create_task(text_chain(Turns(store)).ainvoke(ask, config(turn_id="t")))
    await asyncio.sleep(0)
    await store.history("alice", "s1").stop()
    await asyncio.wait({run.task})
    with pytest.raises(TurnStopped):
        await again


async def test_a_turn_id_that_runs_on_another_chain_is_not_joined() -> None:
    store, gate = MemoryStore(), Gate(0)
    ask = {"topic": "", "question": WORDS}
    first = asyncio.create_task(text_chain(Turns(store), gate, "one").ainvoke(ask, config(turn_id="t")))
    await gate.reached.wait()
    again = asyncio.create_task(text_chain(Turns(store), None, "two").ainvoke(ask, config(turn_id="t")))
    await asyncio.sleep(0)
    gate.opened.set()
    await first
    with pytest.raises(WrongChain):
        await again


async def test_who_follows_a_failed_turn_is_told_what_its_client_was_told() -> None:
    store = MemoryStore()

    def fail(words: int) -> None:
        if words == 2:
            raise ValueError

    chain, ask = shapes(EchoModel(prompts=[], pause=fail), Turns(store))["string out"]
    run = chain.start(ask(WORDS), config(turn_id="t"), streaming=True)
    with pytest.raises(Exception, match="could not answer"):
        await heard(run.events())
    rest: list[Event] = []

    async def follow() -> None:
        async for some in watch(Turns(store), "alice", "s1", "t", after=0):
            rest.extend(some)

    with pytest.raises(RecordedFailure, match="could not answer") as told:
        await follow()
    assert (told.value.status_code, said(rest)) == (502, " two")


# Who leaves, and who comes back.


async def test_a_turn_that_nobody_listens_to_goes_on_for_a_while_and_then_stops() -> None:
    store, gate = MemoryStore(), Gate(2)
    turns = Turns(store, Rules(grace_s=0.05))
    run = started(turns, gate)
    await heard(run.events(), upto=1)
    await settled(turns)
    (turn,) = await turns_of(store)
    assert (turn.status, turn.details["finish_reason"]) == (TurnStatus.INTERRUPTED, "left")


async def test_who_comes_back_in_time_keeps_the_turn_running() -> None:
    store, gate = MemoryStore(), Gate(2)
    turns = Turns(store, Rules(grace_s=30))
    run = started(turns, gate)
    first = await heard(run.events(), upto=1)
    await gate.reached.wait()
    back = asyncio.create_task(heard(watch(turns, "alice", "s1", "t", after=1)))
    await asyncio.sleep(0)
    gate.opened.set()
    assert said(first) + said(await back) == f"{WORDS}."
    assert (await turns_of(store))[0].status is TurnStatus.COMPLETE


async def forsaken(turns: Turns) -> None:
    """Another turn that nobody listens to, until it is stopped: so others could have been stopped by then, too."""
    run = text_chain(turns, Gate(2)).start(
        {"topic": "", "question": WORDS}, {"configurable": {"user_id": "bob", "session_id": "s1"}}, streaming=True
    )
    await heard(run.events(), upto=1)
    async with asyncio.timeout(WITHIN_S):
        await asyncio.wait({run.task})


@pytest.mark.parametrize("rules", [Rules(grace_s=0.01), Rules(on_disconnect="stop")], ids=["grace", "stop"])
async def test_a_turn_goes_on_while_somebody_listens_elsewhere_and_no_longer(
    rules: Rules, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(histories.gate, "ATTENDED_S", 0.3)
    monkeypatch.setattr(attendance, "_EVERY_S", 0.05)
    monkeypatch.setattr(turn_run, "_LOOK_AGAIN_S", 0.01)
    store, gate = MemoryStore(), Gate(4)
    here, elsewhere = Turns(store, rules), Turns(store)
    run = started(here, gate)
    following = watch(elsewhere, "alice", "s1", "t")
    own = run.events()
    await anext(own)
    await anext(following)
    await own.aclose()
    await forsaken(here)
    assert not run.task.done()
    await following.aclose()
    await settled(here)
    (turn,) = await turns_of(store)
    assert (turn.status, turn.details["finish_reason"]) == (TurnStatus.INTERRUPTED, "left")


@pytest.mark.parametrize("where", ["here", "elsewhere"])
async def test_who_waits_for_a_reply_listens_too(where: str) -> None:
    store, gate = MemoryStore(), Gate(4)
    rules = Rules(grace_s=0.05)
    running = Turns(store, rules)
    run = started(running, gate)
    waiting = asyncio.create_task(ended(running if where == "here" else Turns(store), "alice", "s1", "t"))
    await heard(run.events(), upto=1)
    await forsaken(running)
    gate.opened.set()
    assert (await waiting).status is TurnStatus.COMPLETE


async def test_a_turn_is_not_stopped_while_somebody_still_listens() -> None:
    store, gate = MemoryStore(), Gate(2)
    turns = Turns(store, Rules(on_disconnect="stop"))
    run = started(turns, gate)
    staying = asyncio.create_task(heard(run.events()))
    await heard(run.events(), upto=1)
    await gate.reached.wait()
    gate.opened.set()
    assert said(await staying) == f"{WORDS}."


@pytest.mark.parametrize(("wish", "status"), [("finish", TurnStatus.COMPLETE), ("stop", TurnStatus.INTERRUPTED)])
async def test_a_request_may_choose_what_becomes_of_its_turn(wish: str, status: TurnStatus) -> None:
    store, gate = MemoryStore(), Gate(2)
    turns = Turns(store, Rules(on_disconnect="stop" if wish == "finish" else "finish"))
    run = started(turns, gate, on_disconnect=wish)
    await heard(run.events(), upto=1)
    gate.opened.set()
    await settled(turns)
    assert (await turns_of(store))[0].status is status


# What is sent is in the store.


class SlowJournal(MemoryStore):
    """A store whose journal waits until it is let, and may refuse."""

    def __init__(self) -> None:
        super().__init__()
        self.let, self.refuses, self.journaled = asyncio.Event(), False, list[bytes]()

    @override
    def history(self, user_id: str, session_id: str) -> SessionHistory:
        return _SlowHistory(self, user_id, session_id)


class _SlowHistory(MemoryHistory):
    @override
    async def _begin(self, attempt: Attempt) -> OpenTurn | Turn:
        begun = await super()._begin(attempt)
        store = self._store
        assert isinstance(begun, OpenTurn)
        assert isinstance(store, SlowJournal)
        write = begun._journal

        async def slowly(first: int, events: Sequence[bytes]) -> None:
            await store.let.wait()
            if store.refuses:
                raise StoreUnavailable("full")
            await write(first, events)
            store.journaled += events

        begun._journal = slowly  # type: ignore[method-assign]
        return begun


@proves("G1", "G12")
async def test_nothing_is_heard_before_the_store_has_it() -> None:
    store, gate = SlowJournal(), Gate(4)
    run = started(Turns(store), gate)
    found: list[Event] = []

    async def listen() -> None:
        async with aclosing(run.events()) as events:
            async for some in events:
                found.extend(some)
                assert len(store.journaled) >= len(found) or run.task.done()

    listening = asyncio.create_task(listen())
    await gate.reached.wait()
    assert found == []
    store.let.set()
    await wait_for(lambda: len(found) == 4)
    gate.opened.set()
    await listening
    assert said(found) == f"{WORDS}."


async def test_what_is_said_in_one_breath_is_written_once_with_the_end() -> None:
    store = SlowJournal()
    store.let.set()
    assert said(await heard(started(Turns(store)).events())) == f"{WORDS}."
    assert store.journaled == []


async def test_a_journal_that_fails_holds_the_words_back_until_they_are_recorded() -> None:
    store, gate = SlowJournal(), Gate(4)
    store.refuses = True
    store.let.set()
    run = started(Turns(store), gate)
    listening = asyncio.create_task(heard(run.events()))
    await gate.reached.wait()
    assert not listening.done()
    gate.opened.set()
    assert said(await listening) == f"{WORDS}."
    assert text_of(list((await turns_of(store))[0].output)) == f"{WORDS}."


async def test_a_named_turn_that_runs_is_refused_where_it_can_not_be_joined() -> None:
    store, gate = MemoryStore(), Gate(0)
    run = started(Turns(store), gate)
    await gate.reached.wait()
    other = started(Turns(store))
    with pytest.raises(TurnRunning):
        await heard(other.events())
    gate.opened.set()
    await asyncio.wait({run.task})


def test_a_message_is_told_whole_to_who_has_heard_nothing_and_its_rest_to_others() -> None:
    turn = Turn(
        turn_id="t",
        status=TurnStatus.COMPLETE,
        chain="",
        started_at=None,  # type: ignore[arg-type]
        output=[AIMessage("abcdef")],
        kind="message",
        details={"events": 3, "lengths": [2, 2, 2]},
    )
    told = [json.loads(event.data)["content"] for after in (-1, 0, 1) for event in rest_of(turn, after, encode)]
    assert told == ["abcdef", "cdef", "ef"]
    assert rest_of(turn, 2, encode) == []

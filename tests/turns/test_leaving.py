"""Who leaves while their turn runs, or waits: what it does to the model, and what is kept."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from histories.base import TurnStatus
from histories.memory import MemoryStore
from tests.echo_model import EchoModel
from tests.proofs import proves
from tests.turns.test_turns import STOPS, WAYS, Gate, chain_on, quiet_log, read_all, settled, wait_for
from tests.turns.test_with_history import config, question, text_of, turns_of
from turns.connection import Connection, connection
from turns.errors import TurnStopped
from turns.rules import Rules
from turns.run import Turns
from turns.turn_run import BEGINS_WITHIN_S


@proves("G4")
@quiet_log
@pytest.mark.parametrize("way", WAYS)
async def test_a_client_that_leaves_stops_the_model_and_keeps_the_partial_reply(way: str) -> None:
    store, gate = MemoryStore(), Gate(0 if way == "invoke" else 2)
    model, turns, client = EchoModel(prompts=[], pause=gate), Turns(store, STOPS), Connection()
    connection.set(client)
    reading = asyncio.create_task(read_all(chain_on(model, turns), "one two three four", way))
    await gate.reached.wait()
    client.lose()
    await wait_for(lambda: model.running == 0)
    with pytest.raises(TurnStopped):
        await reading
    (turn,) = await turns_of(store)
    assert turn.status is TurnStatus.INTERRUPTED
    assert text_of(list(turn.input)) == "one two three four"
    assert text_of(list(turn.output)) == ("" if way == "invoke" else "one two")


@proves("G4")
@quiet_log
@pytest.mark.parametrize("way", WAYS)
async def test_where_turns_finish_a_client_that_leaves_keeps_the_whole_reply(way: str) -> None:
    store, gate = MemoryStore(), Gate(0 if way == "invoke" else 2)
    model, client = EchoModel(prompts=[], pause=gate), Connection()
    turns = Turns(store, Rules(on_disconnect="finish"))
    connection.set(client)
    reading = asyncio.create_task(read_all(chain_on(model, turns), "one two three four", way))
    await gate.reached.wait()
    client.lose()
    reading.cancel()
    gate.opened.set()
    await settled(turns)
    (turn,) = await turns_of(store)
    assert (turn.status, text_of(list(turn.output))) == (TurnStatus.COMPLETE, "one two three four.")


# LangChain's astream_log waits for its runnable when it is cancelled: there, only the connection tells.
@pytest.mark.parametrize("way", ["invoke", "stream", "stream_events"])
async def test_a_request_that_is_cancelled_has_left(way: str) -> None:
    store, gate = MemoryStore(), Gate(0 if way == "invoke" else 2)
    model, turns = EchoModel(prompts=[], pause=gate), Turns(store, STOPS)
    reading = asyncio.create_task(read_all(chain_on(model, turns), "one two three four", way))
    await gate.reached.wait()
    reading.cancel()
    await settled(turns)
    assert (await turns_of(store))[0].status is TurnStatus.INTERRUPTED
    assert model.running == 0


async def test_a_generator_that_is_closed_has_left() -> None:
    store, model = MemoryStore(), EchoModel(prompts=[])
    turns = Turns(store, STOPS)
    chain: Any = chain_on(model, turns)
    async with aclosing(chain.astream(question("one two three"), config())) as chunks:
        assert text_of(await anext(chunks)) == "one"
    await settled(turns)
    assert (await turns_of(store))[0].status in (TurnStatus.INTERRUPTED, TurnStatus.COMPLETE)


async def test_a_client_that_leaves_while_it_waits_leaves_nothing() -> None:
    store, gate = MemoryStore(), Gate(0)
    turns = Turns(store, STOPS)
    chain = chain_on(EchoModel(prompts=[], pause=gate), turns)
    first = asyncio.create_task(chain.ainvoke(question("one"), config()))
    await gate.reached.wait()
    second = asyncio.create_task(chain.ainvoke(question("two"), config()))
    await wait_for(lambda: len(turns.running) == 2)
    second.cancel()
    await wait_for(lambda: len(turns.running) == 1)
    gate.opened.set()
    await first
    assert [text_of(list(t.input)) for t in await turns_of(store)] == ["one"]


async def test_a_client_that_is_gone_already_starts_nothing() -> None:
    store, client = MemoryStore(), Connection()
    model = EchoModel(prompts=[])
    client.lose()
    connection.set(client)
    with pytest.raises(TurnStopped):
        await chain_on(model, Turns(store, STOPS)).ainvoke(question("one"), config())
    assert model.prompts == []


async def test_who_leaves_while_their_turn_stands_in_line_leaves_the_line() -> None:
    store, gate, client = MemoryStore(), Gate(0), Connection()
    turns = Turns(store, Rules(on_disconnect="grace", grace_s=60))
    model = EchoModel(prompts=[], pause=gate)
    chain = chain_on(model, turns)
    first = asyncio.create_task(chain.ainvoke(question("one"), config()))
    await gate.reached.wait()
    connection.set(client)
    crowd = [asyncio.create_task(chain.ainvoke(question(f"gone {n}"), config())) for n in range(5)]
    await wait_for(lambda: len(turns.running) == 6)
    client.lose()
    await wait_for(lambda: len(turns.running) == 1)
    for told in await asyncio.gather(*crowd, return_exceptions=True):
        assert isinstance(told, TurnStopped)
    gate.opened.set()
    await first
    assert [text_of(list(t.input)) for t in await turns_of(store)] == ["one"]


async def test_who_leaves_as_their_turn_begins_has_the_whole_grace_to_come_back() -> None:
    store, gate, later, client = MemoryStore(), Gate(0), Gate(0), Connection()
    turns = Turns(store, Rules(on_disconnect="grace", grace_s=60))
    model = EchoModel(prompts=[], pause=gate)
    chain = chain_on(model, turns)
    first = asyncio.create_task(chain.ainvoke(question("one"), config()))
    await gate.reached.wait()
    connection.set(client)
    second = asyncio.create_task(chain.ainvoke(question("two"), config()))
    await wait_for(lambda: len(turns.running) == 2)
    client.lose()
    model.pause = later
    gate.opened.set()
    await first
    await later.reached.wait()
    await asyncio.sleep(2 * BEGINS_WITHIN_S)
    later.opened.set()
    assert text_of(await second).startswith("one, ")
    assert [t.status for t in await turns_of(store)] == [TurnStatus.COMPLETE] * 2

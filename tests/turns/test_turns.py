"""Turns as they run: who may stop them, what is kept then, and who is told what."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.runnables import Runnable, RunnableLambda
from typing_extensions import override

from histories.base import NewTurn, OpenTurn, Reply, SessionHistory, StoreFull, Turn, TurnStatus
from histories.memory import MemoryHistory, MemoryStore
from tests.echo_model import EchoModel
from tests.proofs import proves
from tests.turns.test_with_history import PROMPT, config, question, text_of, turns_of
from turns.errors import ChainFailed, ShuttingDown, TurnStopped, TurnTooLong
from turns.rules import Rules
from turns.run import Turns
from turns.shares import ShareRules
from turns.voice import Voice, encode
from turns.with_history import ChainWithHistory

STOPS = Rules(on_disconnect="stop")


class Gate:
    """Holds a model back before its n-th word."""

    def __init__(self, word: int) -> None:
        self.word, self.opened, self.reached = word, asyncio.Event(), asyncio.Event()

    async def __call__(self, said: int) -> None:
        if said == self.word:
            self.reached.set()
            await self.opened.wait()


def chain_on(model: EchoModel, turns: Turns) -> ChainWithHistory:
    return ChainWithHistory(
        PROMPT | model, turns, chain_name="tutor", input_messages_key="question", history_messages_key="history"
    )


async def wait_for(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.001)


async def settled(turns: Turns) -> None:
    async with asyncio.timeout(60):
        while turns.running:
            await asyncio.sleep(0.001)


async def read_all(chain: ChainWithHistory, text: str, way: str, **configurable: Any) -> list[Any]:
    if way == "invoke":
        return [await chain.ainvoke(question(text), config(**configurable))]
    calls: dict[str, Callable[[], AsyncIterator[Any]]] = {
        "stream": lambda: chain.astream(question(text), config(**configurable)),
        "stream_log": lambda: chain.astream_log(question(text), config(**configurable)),
        "stream_events": lambda: chain.astream_events(question(text), config(**configurable), version="v2"),
    }
    return [item async for item in calls[way]()]


WAYS = ["invoke", "stream", "stream_log", "stream_events"]
quiet_log = pytest.mark.filterwarnings("ignore:astream_log is deprecated")  # LangServe's endpoint is made of it


@quiet_log
@pytest.mark.parametrize("way", WAYS[1:])
async def test_a_stop_on_purpose_ends_the_stream_well_and_keeps_what_was_said(way: str) -> None:
    store, gate = MemoryStore(), Gate(2)
    turns = Turns(store, STOPS)
    reading = asyncio.create_task(read_all(chain_on(EchoModel(prompts=[], pause=gate), turns), "one two three", way))
    await gate.reached.wait()
    assert await store.history("alice", "s1").stop()
    assert await reading
    (turn,) = await turns_of(store)
    assert (turn.status, text_of(list(turn.output))) == (TurnStatus.INTERRUPTED, "one two")


async def test_what_was_said_before_a_stop_is_shown_to_the_model_later() -> None:
    store, gate = MemoryStore(), Gate(2)
    model = EchoModel(prompts=[], pause=gate)
    chain = chain_on(model, Turns(store, STOPS))
    reading = asyncio.create_task(read_all(chain, "one two three", "stream"))
    await gate.reached.wait()
    await store.history("alice", "s1").stop()
    await reading
    model.pause = None
    await chain.ainvoke(question("go on"), config())
    assert [m.text for m in model.prompts[-1][1:]] == ["one two three", "one two", "go on"]


async def test_a_stop_before_the_first_word_is_told_as_such() -> None:
    store, gate = MemoryStore(), Gate(0)
    chain = chain_on(EchoModel(prompts=[], pause=gate), Turns(store, STOPS))
    reading = asyncio.create_task(read_all(chain, "one two three", "stream"))
    await gate.reached.wait()
    await store.history("alice", "s1").stop()
    with pytest.raises(TurnStopped):
        await reading


@proves("G5")
@pytest.mark.parametrize(("word", "status"), [(0, TurnStatus.FAILED), (1, TurnStatus.INTERRUPTED)])
async def test_a_failed_turn_keeps_the_words_and_is_not_shown_to_the_model(word: int, status: TurnStatus) -> None:
    def fail(said: int) -> None:
        if said == word:
            raise ConnectionResetError("the secret address")

    store, model = MemoryStore(), EchoModel(prompts=[], pause=fail)
    chain = chain_on(model, Turns(store, STOPS))
    with pytest.raises(ChainFailed) as told:
        await read_all(chain, "one two", "stream")
    assert "secret" not in str(told.value)
    assert isinstance(told.value.__cause__, ConnectionResetError)
    (turn,) = await turns_of(store)
    assert (turn.status, text_of(list(turn.input))) == (status, "one two")
    model.pause = None
    reply = await chain.ainvoke(question("again"), config())
    assert text_of(reply) == ("again." if status is TurnStatus.FAILED else "one two, again.")


async def test_a_turn_that_takes_too_long_is_ended_and_keeps_what_it_said() -> None:
    for limit_s in (0.05, 0.5, 5):  # the first one will do, unless the machine is so slow that a word takes longer
        store, gate = MemoryStore(), Gate(1)
        model = EchoModel(prompts=[], pause=gate)
        chain = chain_on(model, Turns(store, Rules(limit_s=limit_s)))
        with pytest.raises(TurnTooLong):
            await read_all(chain, "one two", "stream")
        assert model.running == 0
        (turn,) = await turns_of(store)
        if turn.output:
            break
    assert (turn.status, turn.details["finish_reason"]) == (TurnStatus.INTERRUPTED, "error")
    gate.word = 0
    with pytest.raises(TurnTooLong):
        await read_all(chain, "one two", "invoke")
    assert (await turns_of(store))[1].status is TurnStatus.FAILED


async def test_a_chain_may_take_its_time_before_the_model_is_asked() -> None:
    chain = chain_on(EchoModel(pause=lambda said: asyncio.sleep(0.03)), Turns(MemoryStore(), Rules(limit_s=0)))
    assert len(await read_all(chain, "one two three", "stream")) >= 3


async def test_a_time_out_of_the_chains_own_is_an_error_of_the_chain() -> None:
    def fail(said: int) -> None:
        raise TimeoutError

    with pytest.raises(ChainFailed):
        await read_all(chain_on(EchoModel(pause=fail), Turns(MemoryStore())), "one", "stream")


async def test_running_turns_may_end_when_the_server_shuts_down() -> None:
    store, gate = MemoryStore(), Gate(1)
    turns = Turns(store, STOPS)
    chain = chain_on(EchoModel(pause=gate), turns)
    reading = asyncio.create_task(read_all(chain, "one two", "stream"))
    await gate.reached.wait()
    draining = asyncio.create_task(turns.drain(5))
    await asyncio.sleep(0)
    with pytest.raises(ShuttingDown):
        await chain.ainvoke(question("too late"), config("s2"))
    gate.opened.set()
    await draining
    assert text_of(await reading) == "one two."
    assert [t.status for t in await turns_of(store)] == [TurnStatus.COMPLETE]


async def test_turns_that_do_not_end_in_time_are_interrupted_and_keep_what_they_said() -> None:
    store, gate = MemoryStore(), Gate(1)
    turns = Turns(store, STOPS)
    reading = asyncio.create_task(read_all(chain_on(EchoModel(pause=gate), turns), "one two", "stream"))
    await gate.reached.wait()
    await turns.drain(0.01)
    with pytest.raises(ShuttingDown):
        await reading
    (turn,) = await turns_of(store)
    assert (turn.status, text_of(list(turn.output))) == (TurnStatus.INTERRUPTED, "one")
    await turns.drain(0)


async def test_turns_in_line_are_refused_at_once_when_the_server_shuts_down() -> None:
    store, gate = MemoryStore(), Gate(0)
    turns = Turns(store, Rules(shares=ShareRules(at_once=1)))
    chain = chain_on(EchoModel(pause=gate), turns)
    first = asyncio.create_task(chain.ainvoke(question("one"), config()))
    await gate.reached.wait()
    for_the_session = [asyncio.create_task(chain.ainvoke(question("two"), config())) for _ in range(5)]
    for_a_place = [asyncio.create_task(chain.ainvoke(question("one"), config(f"s{n}"))) for n in range(2, 5)]
    await wait_for(lambda: len(turns.running) == 9)
    draining = asyncio.create_task(turns.drain(60))
    await wait_for(lambda: len(turns.running) == 1)
    for told in await asyncio.gather(*for_the_session, *for_a_place, return_exceptions=True):
        assert isinstance(told, ShuttingDown)
    gate.opened.set()
    await draining
    assert text_of(await first) == "one."
    assert [text_of(list(t.input)) for t in await turns_of(store)] == ["one"]


class FullHistory(MemoryHistory):
    """A history whose disk is full when the turn ends."""

    @override
    async def begin(self, new: NewTurn, **options: Any) -> OpenTurn | Turn:
        turn = await super().begin(new, **options)
        assert isinstance(turn, OpenTurn)
        return _FullTurn(turn)


class _FullTurn(OpenTurn):
    def __init__(self, turn: OpenTurn) -> None:
        self._turn, self.turn_id, self.window = turn, turn.turn_id, turn.window

    @override
    async def end(self, reply: Reply) -> None:
        await self._end(reply)

    @override
    async def _journal(self, first: int, events: Sequence[bytes]) -> None:
        await self._turn.journal(events)

    @override
    async def _end(self, reply: Reply) -> None:
        await self._turn.end(Reply(status=TurnStatus.INTERRUPTED))
        raise StoreFull("The disk is full.")


class FullStore(MemoryStore):
    @override
    def history(self, user_id: str, session_id: str) -> SessionHistory:
        return FullHistory(self, user_id, session_id)


@proves("G2")
@pytest.mark.parametrize("way", ["invoke", "stream"])
async def test_a_reply_that_can_not_be_saved_is_an_error(way: str) -> None:
    with pytest.raises(StoreFull):
        await read_all(chain_on(EchoModel(prompts=[]), Turns(FullStore())), "one", way)


async def test_an_output_without_messages_is_kept_as_json() -> None:
    store = MemoryStore()
    outputs: list[Any] = [3, {"a": 1, "b": 2}, None]
    for output in outputs:
        said: Runnable[Any, Any] = RunnableLambda(partial(lambda output, _: output, output))
        assert await ChainWithHistory(said, Turns(store, STOPS)).ainvoke("hi", config()) == output
    assert [text_of(list(t.output)) for t in await turns_of(store)] == ["3", '{"a": 1, "b": 2}', "null"]
    assert {t.status for t in await turns_of(store)} == {TurnStatus.COMPLETE}


def test_what_was_said_is_put_together_by_its_kind() -> None:
    def said(*chunks: Any) -> Any:
        voice = Voice(encode, journals=True)
        voice.chunks.extend(chunks)
        return voice.output()

    assert said() is None
    assert said("a", "b", "c") == "abc"
    assert said(*(AIMessageChunk(content=text) for text in "abc")).content == "abc"
    assert said([1], [2], [3]) == [1, 2, 3]
    assert said({"a": 1}, {"a": 2}) == {"a": 2}
    parts = said([AIMessageChunk(content="a", id="1")], [AIMessageChunk(content="b", id="1")], [AIMessage("c")])
    assert [part.text for part in parts] == ["ab", "c"]

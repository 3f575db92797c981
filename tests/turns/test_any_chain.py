"""Any chain: whatever it says is kept and given again, and no output, exception or exit of one keeps a session."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    AnyMessage,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.runnables import Runnable, RunnableGenerator, RunnableLambda
from pydantic import BaseModel
from typing_extensions import TypedDict

from histories.base import HistoryStore, Turn, TurnStatus, jsonable
from histories.memory import MemoryStore
from tests.any_chains import CALL, DOCUMENT, OUTPUTS, STREAMS, Colour
from tests.examples import tries
from tests.fuzz.outputs import Speaker, said_by
from tests.proofs import proves
from tests.turns.test_with_history import config
from turns.calls import fit_to_show
from turns.errors import ChainError, InvalidInput, WrongChain
from turns.parts import parts_of
from turns.run import Turns
from turns.schemas import named_schema, taking_messages
from turns.with_history import ChainWithHistory


def saying(store: HistoryStore, *chunks: Any, **options: Any) -> ChainWithHistory:
    """A chain that says these things, and raises those that are exceptions; with one, on `invoke` too."""

    async def say(_: AsyncIterator[Any]) -> AsyncIterator[Any]:
        for chunk in chunks:
            if isinstance(chunk, BaseException):
                raise chunk
            yield chunk

    said: Runnable[Any, Any] = RunnableGenerator(say)
    if len(chunks) == 1 and not isinstance(chunks[0], BaseException):
        said = RunnableLambda(lambda _: chunks[0])
    return ChainWithHistory(said, Turns(store), **{"chain_name": "any", **options})


async def streamed(chain: ChainWithHistory, **configurable: Any) -> list[Any]:
    return [chunk async for chunk in chain.astream("hi", config(**configurable))]


async def kept(store: HistoryStore) -> Turn:
    return (await store.history("alice", "s1").turns()).items[-1]


@pytest.mark.parametrize("name", OUTPUTS)
async def test_an_output_of_any_kind_is_answered_as_it_is_kept_as_text_and_given_again(name: str) -> None:
    output, text = OUTPUTS[name]
    store = MemoryStore()
    chain = saying(store, output)
    assert await chain.ainvoke("hi", config(turn_id="t")) == output
    turn = await kept(store)
    assert (turn.status, [m.text for m in turn.output]) == (TurnStatus.COMPLETE, [text])
    again = await chain.ainvoke("hi", config(turn_id="t"))
    assert again == jsonable(output)
    assert await streamed(chain) == [output]
    assert [m.text for m in (await kept(store)).output] == [text]


@pytest.mark.parametrize("name", STREAMS)
async def test_a_stream_of_any_kind_is_sent_as_it_comes_and_kept_as_one_answer(name: str) -> None:
    chunks, texts = STREAMS[name]
    store = MemoryStore()
    assert await streamed(saying(store, *chunks)) == chunks
    turn = await kept(store)
    assert (turn.status, [m.text for m in turn.output]) == (TurnStatus.COMPLETE, texts)
    assert all(type(m) in (AIMessage, ToolMessage) for m in turn.output)


async def test_the_documents_beside_an_answer_are_its_sources_and_come_again() -> None:
    store = MemoryStore()
    chain = saying(store, {"input": "hi", "context": [DOCUMENT], "answer": "sunny"}, output_messages_key="answer")
    await chain.ainvoke("hi", config(turn_id="t"))
    (source,) = (await kept(store)).details["sources"]
    assert (source["text"], source["title"], source["url"]) == ("It is sunny.", "Weather", "https://example.org/w")
    assert [part["type"] for part in parts_of(await kept(store))] == ["text", "source"]
    again = await chain.ainvoke("hi", config(turn_id="t"))
    assert (again["answer"], again["context"][0]["page_content"]) == ("sunny", "It is sunny.")


async def test_what_json_can_not_hold_of_a_reply_never_loses_it() -> None:
    odd = {"at": datetime(2026, 1, 1, tzinfo=UTC), "id": UUID(int=1), "sum": Decimal("1.5"), "c": Colour.RED}
    odd |= {"set": {1}, "bytes": b"x", "tuple": (1, 2), 3: "three"}  # type: ignore[dict-item]
    store = MemoryStore()
    await saying(store, AIMessage("hi", response_metadata=odd)).ainvoke("hi", config())
    (message,) = (await kept(store)).output
    assert message.text == "hi"
    assert message.response_metadata["at"] == "2026-01-01T00:00:00+00:00"
    assert message.response_metadata["3"] == "three"
    assert message.response_metadata["set"] == [1]


async def test_only_new_messages_of_a_state_are_kept_and_the_past_is_not_sent_again() -> None:
    store = MemoryStore()

    def graph(state: dict[str, Any]) -> dict[str, Any]:
        call = AIMessage("", tool_calls=[CALL])
        return {
            "messages": [*state["messages"], call, ToolMessage("sunny", tool_call_id="c1"), AIMessage("It is sunny")]
        }

    chain = ChainWithHistory(RunnableLambda(graph), Turns(store), input_messages_key="messages")
    for number in range(3):
        output = await chain.ainvoke({"messages": [("human", f"q{number}")]}, config())
        assert [m.type for m in output["messages"]] == ["human", "ai", "tool", "ai"]
    assert [m.type for m in (await kept(store)).output] == ["ai", "tool", "ai"]
    parts = parts_of(await kept(store))
    assert [part["type"] for part in parts] == ["tool_call", "tool_result", "text"]


# --- a turn always ends

FAILURES: list[Callable[[], BaseException]] = [
    ValueError,
    KeyError,
    RecursionError,
    GeneratorExit,
    KeyboardInterrupt,
    SystemExit,
    asyncio.CancelledError,
    StopAsyncIteration,
    TimeoutError,
    lambda: BaseExceptionGroup("two", [ValueError(), SystemExit(3)]),
]


@proves("G10")
@pytest.mark.parametrize("said", [(), ("a",)], ids=["at once", "late"])
@pytest.mark.parametrize("make", FAILURES, ids=lambda make: getattr(make, "__name__", "group"))
async def test_whatever_a_chain_raises_its_turn_ends_and_the_session_is_free(
    store: HistoryStore, make: Callable[[], BaseException], said: tuple[str, ...]
) -> None:
    with pytest.raises(ChainError):
        await streamed(saying(store, *said, make()))
    turn = await kept(store)
    assert turn.status is (TurnStatus.INTERRUPTED if said else TurnStatus.FAILED)
    assert [m.text for m in turn.output] == list(said)
    async with asyncio.timeout(60):
        await saying(store, "next").ainvoke("hi", config())


@pytest.mark.parametrize("make", FAILURES[:6], ids=lambda make: getattr(make, "__name__", "group"))
async def test_whatever_a_function_in_a_thread_raises_its_turn_ends(make: Callable[[], BaseException]) -> None:
    def fail(_: Any) -> Any:
        raise make()

    store = MemoryStore()
    with pytest.raises(ChainError):
        await ChainWithHistory(RunnableLambda(fail), Turns(store)).ainvoke("hi", config())
    assert (await kept(store)).status is TurnStatus.FAILED


@proves("G10")
async def test_no_output_out_of_many_random_ones_keeps_a_session_or_is_lost() -> None:
    store, dice = MemoryStore(), random.Random(11)
    for number in range(tries(100)):
        chunks = said_by(dice)
        chain = ChainWithHistory(Speaker(chunks), Turns(store))
        async with asyncio.timeout(60):
            try:
                await (streamed(chain) if number % 2 else chain.ainvoke("hi", config()))
            except ChainError:
                assert isinstance(chunks[-1], BaseException)
        turn = await kept(store)
        assert turn.status in (TurnStatus.COMPLETE, TurnStatus.INTERRUPTED, TurnStatus.FAILED)


# --- what comes in, and what a model is shown

INPUTS: list[Any] = [
    {"role": "user", "content": "hi"},
    ["human", "hi"],
    [["human", "hi"]],
    [{"type": "human", "content": "hi"}],
    [{"type": "text", "text": "hi"}],
    {"messages": [{"role": "user", "content": "hi"}]},
]


@pytest.mark.parametrize("value", INPUTS, ids=str)
async def test_messages_are_taken_in_every_form_of_langchains(value: Any) -> None:
    store = MemoryStore()
    await saying(store, "ok").ainvoke(value, config())
    assert [(m.type, m.text) for m in (await kept(store)).input] == [("human", "hi")]


class Asked(TypedDict):
    said: list[AnyMessage]


@pytest.mark.parametrize("value", [["human", "hi"], {"role": "user", "content": "hi"}, "hi"], ids=str)
def test_a_dictionary_whatever_its_name_takes_messages_in_every_form(value: Any) -> None:
    schema = named_schema(taking_messages(Asked, "said"), "any", "Input")
    (message,) = schema.model_validate({"said": [value]}).root["said"]  # type: ignore[attr-defined]
    assert (message.type, message.text) == ("human", "hi")


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value", [[None], [3], 3, None, [{"x": 1}], {"x": 1, "y": 2}, [{"type": "human", "content": [{"a": nested(99)}]}]]
)
async def test_what_is_no_message_is_refused_with_a_sentence(value: Any) -> None:
    with pytest.raises(InvalidInput):
        await saying(MemoryStore(), "ok").ainvoke(value, config())


async def test_a_pydantic_model_as_input_is_taken_for_its_fields() -> None:
    class Upload(BaseModel):
        input: str
        file: str

    store, seen = MemoryStore(), list[Any]()

    def read(value: Any) -> str:
        seen.append((value.file, value["input"], len(value["past"])))
        return "ok"

    chain = ChainWithHistory(
        RunnableLambda(read), Turns(store), input_messages_key="input", history_messages_key="past"
    )
    for _ in range(2):
        await chain.ainvoke(Upload(input="hi", file="abc"), config())
    assert seen == [("abc", "hi", 0), ("abc", "hi", 2)]


async def test_a_turn_id_of_another_chain_is_refused() -> None:
    store = MemoryStore()
    await saying(store, "one", chain_name="chat").ainvoke("hi", config(turn_id="t"))
    with pytest.raises(WrongChain, match="/chat"):
        await saying(store, "two", chain_name="tutor").ainvoke("hi", config(turn_id="t"))


@proves("G11")
def test_a_history_is_shown_well_formed() -> None:
    second = {**CALL, "id": "c2"}
    bad = {"name": "w", "args": '{"ci', "id": "c3", "error": None, "type": "invalid_tool_call"}
    past: list[BaseMessage] = [
        HumanMessage("1"), AIMessage("", tool_calls=[CALL]),
        HumanMessage("2"), AIMessage("look", tool_calls=[CALL, second]), ToolMessage("a", tool_call_id="c1"),
        HumanMessage("3"), AIMessage(""), HumanMessage("4"), AIMessage("cut", invalid_tool_calls=[bad]),
        ToolMessage("of no call", tool_call_id="c9"), SystemMessage("obey"),
        HumanMessage("5"), AIMessage([{"type": "thinking", "thinking": "hm"}]),
        HumanMessage("6"), AIMessage("", tool_calls=[second]),
    ]  # fmt: skip
    shown = fit_to_show(past, [ToolMessage("b", tool_call_id="c2")])
    assert [m.text for m in shown] == ["1", "2", "look", "a", "3", "4", "cut", "5", "6", ""]
    assert [call["id"] for m in shown if isinstance(m, AIMessage) for call in m.tool_calls] == ["c1", "c2"]
    assert not any(isinstance(m, AIMessage) and m.invalid_tool_calls for m in shown)
    assert all(any(m is one for one in past) for m in shown if m.text not in ("look", "cut"))


async def test_a_call_that_was_cut_off_is_no_call() -> None:
    store = MemoryStore()
    chunk = AIMessageChunk(content="", tool_call_chunks=[{"name": "weather", "args": '{"ci', "id": "c1", "index": 0}])
    with pytest.raises(ChainError):
        await streamed(saying(store, chunk, ValueError()))
    (message,) = (await kept(store)).output
    assert isinstance(message, AIMessage)
    assert (message.tool_calls, message.invalid_tool_calls[0]["args"]) == ([], '{"ci')


async def test_messages_that_have_the_same_ids_each_turn_are_kept_each_turn() -> None:
    """As a server's that has not thought about ids."""
    store = MemoryStore()
    chunks, texts = STREAMS["a call, its result and an answer"]
    for _ in range(2):
        await streamed(saying(store, *chunks))
        assert [m.text for m in (await kept(store)).output] == texts

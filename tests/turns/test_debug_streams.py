"""`astream_log` and `astream_events` of a chain with a memory, held against LangChain's own of the chain it wraps."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import weakref
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from langchain_core.load.dump import dumps
from langchain_core.messages import AIMessageChunk, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableLambda
from langchain_core.tracers.log_stream import RunLogPatch
from typing_extensions import override

from api.langserve_gaps import StreamSerializer
from bench.models import TimedModel
from histories.memory import MemoryStore
from turns.debug_streams import Queue
from turns.run import Turns
from turns.with_history import ChainWithHistory

CONFIG: Any = {"configurable": {"user_id": "alice", "session_id": "s1"}}
PROMPT = ChatPromptTemplate.from_messages([("human", "{question}")])


CHAINS: dict[str, Runnable[Any, Any]] = {
    "message": PROMPT | TimedModel(),
    "text": PROMPT | TimedModel() | StrOutputParser(),
    "data": RunnableLambda(lambda _: {"x": 1}) | RunnableLambda(lambda value: {**value, "answer": "2"}),
    "one step": RunnableLambda(lambda _: "said"),
}
bound = pytest.mark.parametrize("bound", CHAINS.values(), ids=CHAINS)
as_langchain = pytest.mark.filterwarnings("ignore:astream_log is deprecated")


def remembering(bound: Runnable[Any, Any]) -> ChainWithHistory:
    return ChainWithHistory(bound, Turns(MemoryStore()), chain_name="c", input_messages_key="question")


def changed(ops: list[dict[str, Any]]) -> Counter[tuple[str, ...]]:
    return Counter((op["op"], op["path"], type(op["value"]).__name__) for op in ops)


@as_langchain
@bound
async def test_a_log_has_the_changes_that_langchains_has(bound: Runnable[Any, Any]) -> None:
    ask = {"question": "one"}
    mine = [op async for patch in remembering(bound).astream_log(ask, CONFIG) for op in patch.ops]
    theirs = [op async for patch in bound.astream_log(ask) for op in patch.ops]
    assert changed(mine) == changed(theirs)


@as_langchain
@bound
@pytest.mark.parametrize("lists", [True, False], ids=["lists", "no lists"])
async def test_a_log_adds_up_to_what_langchains_does(bound: Runnable[Any, Any], lists: bool) -> None:
    ask = {"question": "one"}
    options: Any = {"diff": False, "with_streamed_output_list": lists}
    logs: list[Any] = [log async for log in remembering(bound).astream_log(ask, CONFIG, **options)]
    mine = logs[-1].state
    theirs = [log async for log in bound.astream_log(ask, **options)][-1].state
    assert said(mine["final_output"]) == said(theirs["final_output"])
    assert list(map(said, mine["streamed_output"])) == list(map(said, theirs["streamed_output"]))
    assert (mine["name"], mine["type"], list(mine["logs"])) == (theirs["name"], theirs["type"], list(theirs["logs"]))


@as_langchain
async def test_a_log_leaves_out_what_it_is_asked_to() -> None:
    chain = remembering(CHAINS["message"])
    log: list[Any] = [
        one async for one in chain.astream_log({"question": "one"}, CONFIG, diff=False, exclude_types=["prompt"])
    ]
    assert list(log[-1].state["logs"]) == ["TimedModel"]


@bound
async def test_events_are_those_of_langchain(bound: Runnable[Any, Any]) -> None:
    ask = {"question": "one"}
    mine: list[Any] = [event async for event in remembering(bound).astream_events(ask, CONFIG, version="v2")]
    theirs: list[Any] = [event async for event in bound.astream_events(ask, version="v2")]
    if bound is CHAINS["one step"]:  # it is a run of its own within that of the turn
        mine = [event for event in mine if event["parent_ids"]]
        theirs = [{**event, "parent_ids": [0]} for event in theirs]
    assert [kind(event) for event in mine] == [kind(event) for event in theirs]
    assert said(mine[-1]["data"]["output"]) == said(theirs[-1]["data"]["output"])


class Says(TimedModel):
    """Says so many words, one by one."""

    words: int = 0

    @override
    async def _astream(self, *args: Any, **kwargs: Any) -> AsyncIterator[ChatGenerationChunk]:
        for _ in range(self.words):
            yield ChatGenerationChunk(message=AIMessageChunk(content="word "))


async def calls_of(way: str, words: int) -> int:
    """How many functions are called when a reply of so many words is streamed as clients get it."""
    chain, dumps, count = remembering(PROMPT | Says(words=words) | StrOutputParser()), StreamSerializer().dumps, 0
    if way == "message":
        chain = remembering(PROMPT | Says(words=words))
    ask, streams = {"question": "one"}, (chain.astream_log, chain.astream_events)

    def called(_: object, kind: str, __: object) -> None:
        nonlocal count
        count += kind in ("call", "c_call")

    sys.setprofile(called)
    try:
        for stream in streams:
            async for told in stream(ask, CONFIG):
                dumps(told.ops if isinstance(told, RunLogPatch) else told)
    finally:
        sys.setprofile(None)
    return count


@as_langchain
@pytest.mark.parametrize("way", ["message", "text"])
async def test_a_word_costs_the_same_however_long_the_reply_is(way: str) -> None:
    await calls_of(way, 100)  # what is done once, is done
    short, middle, long = [await calls_of(way, words) for words in (100, 200, 800)]
    assert (long - middle) / 600 < 1.1 * (middle - short) / 100


async def test_what_is_told_after_its_reader_has_left_is_not_kept() -> None:
    queue, before, after = Queue(), HumanMessage("before"), HumanMessage("after")
    kept = [weakref.ref(before), weakref.ref(after)]
    queue.put(before)
    queue.close()
    queue.put(after)
    del before, after
    gc.collect()
    assert [one() for one in kept] == [None, None]


async def test_it_is_told_from_any_thread_in_order() -> None:
    queue = Queue()
    queue.put(1)

    async def telling() -> None:
        await asyncio.to_thread(queue.put, 2)
        queue.put(3)

    task = asyncio.create_task(queue.filled_by(telling()))
    assert [told async for told in queue] == [1, 2, 3]
    await task


def kind(event: Any) -> tuple[Any, ...]:
    return event["event"], event["name"], len(event["parent_ids"]), tuple(event["tags"])


def said(value: Any) -> str:
    """A value as JSON, without ids that are made anew each time."""
    return dumps(without_ids(json.loads(dumps(value))))


def without_ids(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_ids(item) for key, item in value.items() if key != "id"}
    return [without_ids(item) for item in value] if isinstance(value, list) else value

"""`astream_log` and `astream_events` of a chain with a memory, held against LangChain's own of the chain it wraps."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from langchain_core.load.dump import dumps
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableLambda

from bench.models import TimedModel
from histories.memory import MemoryStore
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


def kind(event: Any) -> tuple[Any, ...]:
    return event["event"], event["name"], len(event["parent_ids"]), tuple(event["tags"])


def said(value: Any) -> str:
    """A value as JSON, without ids that are made anew each time."""
    return dumps(without_ids(json.loads(dumps(value))))


def without_ids(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_ids(item) for key, item in value.items() if key != "id"}
    return [without_ids(item) for item in value] if isinstance(value, list) else value

"""The rest of the wrapper's face: schemas, callback managers, several model calls in one turn, synchronous events."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.callbacks import AsyncCallbackManager
from langchain_core.language_models import BaseChatModel, FakeListLLM
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda

from histories.base import NewTurn
from histories.memory import MemoryStore
from tests.echo_model import USAGE, EchoModel
from tests.turns.test_turns import Gate, chain_on
from tests.turns.test_with_history import PROMPT, config, question, text_of, turns_of
from turns.rules import Speech, Stop
from turns.run import Turns
from turns.schemas import named_schema
from turns.shown import Redaction
from turns.with_history import ChainWithHistory


def test_the_history_of_a_session_is_the_stores() -> None:
    store = MemoryStore()
    chain = ChainWithHistory(EchoModel(), Turns(store))
    chain.turns.store.history("alice", "s1").add_messages([HumanMessage("hi"), AIMessage("ho")])
    assert len(chain.get_session_history("alice", "s1").messages) == 2


def test_the_schema_is_the_given_types_or_what_langchain_makes_of_the_keys() -> None:
    turns = Turns(MemoryStore())
    plain = ChainWithHistory(PROMPT | EchoModel(), turns, input_messages_key="question", history_messages_key="history")
    assert set(plain.get_input_schema().model_json_schema()["properties"]) == {"question"}
    assert plain.get_input_schema() is plain.get_input_schema()
    typed = plain.with_types(input_type=dict[str, int])
    assert typed.get_input_schema().model_json_schema()["additionalProperties"] == {"type": "integer"}


async def test_a_callback_manager_of_the_callers_is_heard_and_left_as_it_was() -> None:
    for parser in (True, False):
        store, manager = MemoryStore(), AsyncCallbackManager(handlers=[])
        runnable: Runnable[Any, Any] = PROMPT | EchoModel()
        keys: dict[str, Any] = {"input_messages_key": "question", "history_messages_key": "history"}
        nested: Runnable[Any, Any] = RunnableLambda(runnable.ainvoke) | StrOutputParser()
        chain = ChainWithHistory(nested if parser else runnable, Turns(store), **keys)
        called: RunnableConfig = {**config(), "callbacks": manager}
        assert text_of(await chain.ainvoke(question("hi"), called)) == "hi."
        assert manager.handlers == []
        assert (await turns_of(store))[0].usage == dict(USAGE)


async def test_the_tokens_of_all_calls_of_a_turn_are_added_up() -> None:
    async def twice(value: Any, config: RunnableConfig) -> str:
        model: BaseChatModel = EchoModel()
        await model.ainvoke(value, config)
        return str((await model.ainvoke(value, config)).text)

    store = MemoryStore()
    chain = ChainWithHistory(RunnableLambda(twice), Turns(store), output_type=str)
    assert await chain.ainvoke("hi", config()) == "hi."
    assert (await turns_of(store))[0].usage == {"input_tokens": 14, "output_tokens": 6, "total_tokens": 20}


def test_what_langchain_itself_has_not_goes_past_no_history() -> None:
    with pytest.raises(NotImplementedError):
        chain_on(EchoModel(), Turns(MemoryStore())).stream_events(question("one"), config(), version="v2")


async def test_a_model_that_is_no_chat_model_remembers_and_tells_no_tokens() -> None:
    store = MemoryStore()
    model: Runnable[Any, Any] = RunnableLambda(FakeListLLM(responses=["yes"]).ainvoke)
    assert await ChainWithHistory(model, Turns(store), output_type=str).ainvoke("hi", config()) == "yes"
    assert (await turns_of(store))[0].usage is None


async def test_an_answer_of_several_messages_comes_back_as_several() -> None:
    said: Runnable[Any, Any] = RunnableLambda(lambda _: [AIMessage("a"), AIMessage("b")])
    chain = ChainWithHistory(said, Turns(MemoryStore()))
    for _ in range(2):
        assert [text_of(message) for message in await chain.ainvoke("hi", config(turn_id="t"))] == ["a", "b"]


async def test_a_second_stop_changes_nothing() -> None:
    gate, store = Gate(0), MemoryStore()
    turns = Turns(store)
    model = EchoModel(pause=gate)

    async def say(_: Any) -> Any:
        async for chunk in model.astream("hi"):
            yield chunk

    def unkept(output: Any, cut: bool) -> Any:
        return None

    run = turns.start("alice", "s1", NewTurn(input=[HumanMessage("hi")]), Speech(say, say, unkept))
    await gate.reached.wait()
    run.stop(Stop.ASKED)
    run.stop(Stop.LEFT)
    await run.task
    run.stop(Stop.LEFT)
    assert [turn.status for turn in await turns_of(store)] == ["interrupted"]


def test_what_a_model_server_said_of_an_error_is_left_out() -> None:
    redaction = Redaction(show_prompts=True)
    assert "secret" not in repr(
        redaction.clean(
            {"output": AIMessage("", response_metadata={"body": "secret", "headers": {}, "status_code": 401})}
        )
    )


def test_chains_whose_types_are_langchains_own_schemas_have_each_its_own() -> None:
    def of_int(value: int) -> str:
        return str(value)

    def of_text(value: str) -> int:
        return len(value)

    one, other = RunnableLambda(of_int, name="same"), RunnableLambda(of_text, name="same")
    made = [one.get_input_schema(), other.get_input_schema(), one.get_output_schema(), other.get_output_schema()]
    schemas = [named_schema(kind, f"own{number}", "Input") for number, kind in enumerate(made)]
    assert [schema.model_json_schema()["type"] for schema in schemas] == ["integer", "string", "string", "integer"]
    whole: Any = schemas[1].model_validate("x").model_dump()
    assert whole == "x"
    assert schemas[1].__name__ != schemas[0].__name__

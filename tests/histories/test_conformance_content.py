"""What every store does about what is said, and about whose it is; and that LangChain's own class can use it."""

from __future__ import annotations

import asyncio
import json
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from langchain_core._api import LangChainDeprecationWarning
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    HumanMessageChunk,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_core.runnables.history import RunnableWithMessageHistory

from histories.base import HistoryStore, NewTurn, Reply, SessionHistory, TurnStatus
from tests.proofs import proves
from tests.stores import all_sessions, all_turns, begun, replied, said, talk, texts

CONSTRUCTOR = {"lc": 1, "type": "constructor", "id": ["langchain", "llms", "OpenAI"], "kwargs": {"api_key": {}}}
CALL = {"name": "search", "args": {"q": ["ü", None, 1.5, {"deep": True}]}, "id": "c1", "type": "tool_call"}
BAD_CALL = {"name": "search", "args": "{", "id": None, "error": "not JSON", "type": "invalid_tool_call"}
USAGE = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3, "input_token_details": {"cache_read": 1}}
PICTURE = [
    {"type": "text", "text": "look"},
    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}},
    "x",
]

MESSAGES: dict[str, BaseMessage] = {
    "human": HumanMessage("hello", name="al", id="m1"),
    "multimodal": HumanMessage(PICTURE),  # type: ignore[arg-type]
    "ai": AIMessage("hi", response_metadata={"model_name": "x", "logprobs": [{"a": -0.25}]}, usage_metadata=USAGE),
    "tool calls": AIMessage("", tool_calls=[CALL, CALL], invalid_tool_calls=[BAD_CALL]),
    "tool": ToolMessage("result", tool_call_id="c1", artifact={"rows": [[1, None]]}, status="error"),
    "function": FunctionMessage(content="result", name="search"),
    "system": SystemMessage("be good"),
    "chat": ChatMessage(content="hello", role="critic"),
    "remove": RemoveMessage("m1"),
    "constructor": HumanMessage("x", additional_kwargs={"a": CONSTRUCTOR}, response_metadata=CONSTRUCTOR),
    "constructor as content": HumanMessage([CONSTRUCTOR]),
    "more fields": HumanMessage("x", mood="good", nested={"a": [1]}),
    "empty": HumanMessage(""),
    "NUL": HumanMessage("a\0b"),
    "line ends": HumanMessage("a\r\n\n\u2028\u2029\x85\x1cb\v\f"),
    "surrogates": HumanMessage("a\ud83db\udc00", additional_kwargs={"\udfff": "\ud800"}),
    "surrogates in a row": HumanMessage("\ud83d\ude00 is not 😀", additional_kwargs={"\ud83d\ude00": 1}),
    "looks escaped": HumanMessage('\\ud83d\\ude00 \\u0000 \\n "}],"crc":"00000000"}'),
    "any script": HumanMessage("\u202eשלום नमस्ते 你好 👩‍👩‍👧‍👦 e\u0301 \ufeff\uffff\U0010ffff"),
    "large": HumanMessage("0123456789abcdef" * 65536),
    "large and many": AIMessage([{"type": "text", "text": f"{n} ü\n"} for n in range(20_000)]),
    "numbers": HumanMessage("", additional_kwargs={"n": [10**400, -0.0, 1e308, 5e-324, 2**53 + 1, True, 1.0, None]}),
}


@proves("G8")
@pytest.mark.parametrize("name", MESSAGES)
async def test_what_is_read_equals_what_was_said(history: SessionHistory, name: str) -> None:
    message = MESSAGES[name]
    turn = await begun(history, NewTurn(input=[message, HumanMessage("and")]))
    await turn.end(Reply(status=TurnStatus.COMPLETE, output=[message]))
    again = await begun(history, "probe", window=10_000_000)
    await again.end(replied("", TurnStatus.FAILED))
    (kept, _) = await all_turns(history)
    for read in ([*kept.input, *kept.output], again.past, await history.aget_messages()):
        assert read == [message, HumanMessage("and"), message]
        assert [type(m) for m in read] == [type(message), HumanMessage, type(message)]
        assert read[0].model_dump() == message.model_dump()


@proves("G8")
async def test_chunks_are_kept_as_whole_messages(history: SessionHistory) -> None:
    pieces: list[Any] = [
        {"name": name, "args": args, "id": id_, "index": 0, "type": "tool_call_chunk"}
        for name, args, id_ in [("search", '{"q"', "c1"), (None, ": 1}", None)]
    ]
    chunk = AIMessageChunk(content="he") + AIMessageChunk(content="llo", usage_metadata=USAGE, id="m1")  # type: ignore[arg-type]
    for piece in pieces:
        chunk += AIMessageChunk(content="", tool_call_chunks=[piece])
    turn = await begun(history, NewTurn(input=[HumanMessageChunk(content="hi")]))
    assert isinstance(chunk, AIMessageChunk)
    await turn.end(Reply(status=TurnStatus.COMPLETE, output=[chunk]))
    human, ai = await history.aget_messages()
    assert (type(human), human.content) == (HumanMessage, "hi")
    assert isinstance(ai, AIMessage)
    assert type(ai) is AIMessage
    assert (ai.content, ai.type, ai.id) == ("hello", "ai", "m1")
    assert [(c["name"], c["args"]) for c in ai.tool_calls] == [("search", {"q": 1})]


async def test_what_was_said_can_not_be_changed_from_outside(history: SessionHistory) -> None:
    message = HumanMessage("hello", additional_kwargs={"a": [1]})
    turn = await begun(history, NewTurn(input=[message]))
    message.additional_kwargs["a"].append(2)
    await turn.end(replied())
    for _ in range(3):
        kept = (await all_turns(history))[0]
        assert kept.input[0].content == "hello"
        assert kept.input[0].additional_kwargs == {"a": [1]}
        kept.input[0].additional_kwargs["a"].append(3)
        following = await begun(history, "more", window=1000)
        assert following.past[0].additional_kwargs == {"a": [1]}
        following.past[0].additional_kwargs["a"].append(4)
        following.past[0].content = "changed"
        await following.end(replied("", TurnStatus.FAILED))


HOSTILE = [
    "a", "A", "a ", "a.", "a..", "a/b", "a\\b", "a//b", "a/../b", "../../etc/passwd", "..", ".", "/", "\\", "~", "-",
    "a%2Fb", "a%b", "%00", "%", "a:b", "a|b", "a*", "a?", "[a]", "{a}", "a\nb", "a\0b", "\x7f", "a b", " a",
    "CON", "con", "con.txt", "NUL", "nul", "LPT1", "COM0", "aux.jsonl", "s1.jsonl", "s1.turn", ".stops", "!", "33",
    unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "é"), "ﬁ", "fi", "ß", "ss", "İ", "i", "ı", "K", "k",
    "👍" * 128, "👍" * 127, "x" * 128, "x" * 127, "1", "10", "' OR 1=1 --", '"; DROP TABLE x', "$(id)", "{a}:b", "a}b",
    "\u202e", "\u200b", "\u00a0a", "🏳️‍🌈", "🏳🌈",
]  # fmt: skip


@proves("G7")
async def test_no_two_users_and_no_two_sessions_ever_meet(store: HistoryStore) -> None:
    for user in HOSTILE:
        await talk(store.history(user, "s1"), f"of {user!r}")
    for session in HOSTILE:
        await talk(store.history("owner", session), f"of {session!r}")
    for name in HOSTILE:
        assert texts(await store.history(name, "s1").aget_messages())[0] == f"of {name!r}"
        assert texts(await store.history("owner", name).aget_messages())[0] == f"of {name!r}"
        assert [(s.session_id, s.turns) for s in await all_sessions(store, name)] == [("s1", 1)]
    assert sorted(s.session_id for s in await all_sessions(store, "owner", limit=7)) == sorted(HOSTILE)
    assert sorted(s.session_id for s in await all_sessions(store, "owner", query="of")) == sorted(HOSTILE)
    await store.forget("a")
    await store.history("owner", "a").delete()
    assert len(await all_sessions(store, "owner")) == len(HOSTILE) - 1
    for name in HOSTILE[1:]:
        assert len(await all_turns(store.history(name, "s1"))) == 1
        assert len(await all_turns(store.history("owner", name))) == 1


@pytest.mark.parametrize(
    ("one", "two"), [(("a", "b/c"), ("a/b", "c")), (("a:b", "c"), ("a", "b:c")), (("1", "23"), ("12", "3"))]
)
async def test_user_and_session_do_not_run_together(
    store: HistoryStore, one: tuple[str, str], two: tuple[str, str]
) -> None:
    await talk(store.history(*one), "one")
    held = await begun(store.history(*one), said("more", turn_id="t"))
    assert await all_turns(store.history(*two)) == []
    turn = await begun(store.history(*two), said("two", turn_id="t"), wait_s=0)
    await turn.end(replied())
    await held.end(replied())
    assert len(await all_turns(store.history(*two))) == 1


async def test_hostile_turn_ids_stay_apart(history: SessionHistory) -> None:
    for turn_id in HOSTILE:
        turn = await begun(history, said(turn_id, turn_id=turn_id))
        await turn.end(replied(json.dumps(turn_id)))
    assert [t.turn_id for t in await all_turns(history)] == HOSTILE
    await history.rewind(HOSTILE[1])
    assert [t.turn_id for t in await all_turns(history)] == HOSTILE[:1]


@contextmanager
def deprecated() -> Iterator[None]:
    with warnings.catch_warnings():
        # The class is to go in langchain-core 2.0; until then, people's chains use it, and it has to work with ours.
        warnings.filterwarnings("ignore", "RunnableWithMessageHistory is deprecated", LangChainDeprecationWarning)
        yield


def _remembering(store: HistoryStore) -> RunnableWithMessageHistory:
    def reply(messages: Any) -> AIMessage:
        return AIMessage(f"{len(messages)} so far")

    with deprecated():
        return RunnableWithMessageHistory(RunnableLambda(reply), lambda session_id: store.history("alice", session_id))


def _config(session_id: str) -> RunnableConfig:
    return {"configurable": {"session_id": session_id}}


async def test_langchains_own_class_remembers_with_a_history(store: HistoryStore) -> None:
    chain = _remembering(store)
    assert (await chain.ainvoke([HumanMessage("one")], _config("s1"))).content == "1 so far"
    assert (await chain.ainvoke([HumanMessage("two")], _config("s1"))).content == "3 so far"
    assert [c.content async for c in chain.astream([HumanMessage("three")], _config("s1"))] == ["5 so far"]
    assert [t.status for t in await all_turns(store.history("alice", "s1"))] == [TurnStatus.COMPLETE] * 3
    assert await all_turns(store.history("alice", "s2")) == []


async def test_langchains_own_class_remembers_without_an_event_loop(store: HistoryStore) -> None:
    chain = _remembering(store)

    def use() -> list[str]:
        replies = [
            chain.invoke([HumanMessage("one")], _config("s1")),
            *chain.stream([HumanMessage("2")], _config("s1")),
        ]
        return texts(replies)

    assert await asyncio.to_thread(use) == ["1 so far", "3 so far"]
    assert len(await all_turns(store.history("alice", "s1"))) == 2


async def test_the_blocking_twins_do_the_same(history: SessionHistory) -> None:
    def use() -> list[str]:
        assert history.messages == []
        history.add_user_message("hello")
        history.add_ai_message("hi")
        history.add_messages(
            [SystemMessage("s"), HumanMessage("q"), AIMessage("a"), ToolMessage("t", tool_call_id="c")]
        )
        history.add_messages([])
        found = texts(history.messages)
        history.clear()
        assert history.messages == []
        return found

    assert await asyncio.to_thread(use) == ["hello", "hi", "s", "q", "a", "t"]


async def test_messages_that_are_added_are_one_turn(history: SessionHistory) -> None:
    await history.aadd_messages([HumanMessage("q"), AIMessage("a"), HumanMessage("q2")])
    (turn,) = await all_turns(history)
    assert (texts(turn.input), texts(turn.output)) == (["q"], ["a", "q2"])

"""What is read equals what was said: for whatever a message may hold, and from every version of a file."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    HumanMessageChunk,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)
from pydantic import BaseModel

from histories import codec
from histories.base import HistoryDamaged
from histories.codec import UnknownMessage, dump_messages, load_messages
from histories.files.names import file_name
from histories.files.records import Sums, encode, session_line
from histories.files.store import FileStore
from histories.window import estimate_tokens
from tests.examples import tries
from tests.proofs import proves
from tests.stores import all_turns, said, talk, texts

DATA = Path(__file__).parents[1] / "data"

# Any text, lone surrogates and pairs of them, too: what a JSON body can smuggle in.
texts_ = st.text(st.characters(exclude_categories=[]), max_size=30) | st.lists(
    st.sampled_from(["\ud83d", "\ude00", "😀", "\\", '"', "u", "\0", "\u2028", "é", "a"])
).map("".join)
numbers = st.integers() | st.floats(allow_nan=False)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | numbers | texts_,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts_, inner, max_size=4),
    max_leaves=12,
)
objects = st.dictionaries(texts_, json_values, max_size=3)
contents = texts_ | st.lists(texts_ | objects, max_size=3)
ids = st.none() | texts_
common = {"additional_kwargs": objects, "response_metadata": objects, "id": ids, "name": ids}
calls = st.fixed_dictionaries({"name": texts_, "args": objects, "id": ids})
bad_calls = st.fixed_dictionaries({"name": ids, "args": ids, "id": ids, "error": ids})
usages = st.fixed_dictionaries({f"{kind}_tokens": st.integers(0, 2**40) for kind in ("input", "output", "total")})


def _of(kind: Callable[..., BaseMessage], **more: st.SearchStrategy[Any]) -> st.SearchStrategy[BaseMessage]:
    return st.fixed_dictionaries({"content": contents, **common, **more}).map(lambda fields: kind(**fields))


messages = st.one_of(
    _of(HumanMessage),
    _of(SystemMessage),
    _of(
        AIMessage,
        tool_calls=st.lists(calls, max_size=2),
        invalid_tool_calls=st.lists(bad_calls, max_size=2),
        usage_metadata=st.none() | usages,
    ),
    _of(ToolMessage, tool_call_id=texts_, artifact=json_values, status=st.sampled_from(["success", "error"])),
    _of(FunctionMessage, name=texts_),
    _of(ChatMessage, role=texts_),
    texts_.map(lambda id_: RemoveMessage(id=id_)),
)


@proves("G8")
@settings(max_examples=tries(60), deadline=None)
@given(st.lists(messages, max_size=3))
def test_what_is_read_equals_what_was_said(said: list[BaseMessage]) -> None:
    text = dump_messages(said)
    assert text.isascii()
    assert "\n" not in text
    read = load_messages(json.loads(text))
    assert [type(m) for m in read] == [type(m) for m in said]
    assert [m.model_dump() for m in read] == [m.model_dump() for m in said]
    assert read == said
    assert dump_messages(read) == text


@settings(max_examples=tries(60), deadline=None)
@given(json_values)
def test_any_json_value_comes_back(value: object) -> None:
    assert codec.undump(json.loads(codec.dump(value))) == value
    packed = {"wtf8": value}
    assert codec.undump(json.loads(codec.dump(packed))) == packed


@proves("G8")
@settings(max_examples=tries(30), deadline=None)
@given(json_values)
def test_whatever_is_read_is_a_message_or_is_refused(value: object) -> None:
    nested = base64.b64encode(b"[" * 100_000).decode()
    for broken in (
        {"wtf8": nested},
        value,
        [value],
        [{"type": "human", "data": value}],
        [{"type": value, "data": {}}],
        {"wtf8": value},
    ):
        try:
            load_messages(broken)
        except UnknownMessage:
            continue


class Colour(StrEnum):
    RED = "red"


class Parsed(BaseModel):
    answer: int = 42


class Plain:
    pass


class Loud(HumanMessage):
    volume: int = 11


class LoudChunk(HumanMessageChunk):
    pass


class Other(BaseMessage):
    type: str = "other"


def _deep(levels: int) -> Any:
    value: Any = "deep"
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [b"x", {1: 2}, {None: 1}, (1, 2), {1, 2}, Plain(), datetime.max.time(), 1j, Plain, _deep(101), _deep(5000), [(1,)]],
)
@pytest.mark.parametrize("place", ["additional_kwargs", "response_metadata", "extra"])
def test_what_json_would_change_or_cannot_hold_is_refused(place: str, value: object) -> None:
    fields = {"more": value} if place == "extra" else {place: {"x": value}}
    with pytest.raises(UnknownMessage):
        dump_messages([HumanMessage("hello", **fields)])
    with pytest.raises(UnknownMessage):
        dump_messages([ToolMessage("hello", tool_call_id="1", artifact=value)])


def test_what_refers_to_itself_is_refused() -> None:
    loop: dict[str, Any] = {}
    loop["loop"] = loop
    with pytest.raises(UnknownMessage):
        dump_messages([HumanMessage("hello", additional_kwargs=loop)])
    with pytest.raises(UnknownMessage):
        codec.dump(loop)


def test_what_could_not_be_read_again_is_not_written() -> None:
    message = AIMessage("hello", tool_calls=[{"name": "f", "args": {}, "id": "1"}])
    message.tool_calls[0]["more"] = 1  # type: ignore[typeddict-unknown-key]
    with pytest.raises(UnknownMessage):
        dump_messages([message])


@pytest.mark.parametrize("value", [Colour.RED, True, 10**4000, _deep(90), float("inf")])
def test_what_json_holds_in_its_own_way_is_equal(value: object) -> None:
    (read,) = load_messages(json.loads(dump_messages([HumanMessage("", additional_kwargs={"x": value})])))
    assert read.additional_kwargs == {"x": value}


def test_a_parsed_answer_is_kept_as_its_fields() -> None:
    said = AIMessage("", additional_kwargs={"parsed": Parsed()})
    (read,) = load_messages(json.loads(dump_messages([said])))
    assert read.additional_kwargs == {"parsed": {"answer": 42}}


def test_a_subclass_is_kept_as_what_it_is_a_kind_of() -> None:
    for message in (Loud(content="x"), LoudChunk.model_validate({"content": "x", "mood": "good"})):
        (read,) = load_messages(json.loads(dump_messages([message])))
        assert (type(read), read.content) == (HumanMessage, "x")
        assert read.model_extra == ({"volume": 11} if isinstance(message, Loud) else {"mood": "good"})


def test_what_is_none_of_langchains_messages_is_refused() -> None:
    imposter = Other(content="x", type="ai")
    for message in (Other(content="x"), imposter):
        with pytest.raises(UnknownMessage):
            dump_messages([message])


def test_the_text_of_messages_is_what_was_said() -> None:
    parts: list[Any] = ["one", {"type": "text", "text": "two"}, {"type": "image_url", "image_url": {}}, {"text": 3}]
    assert codec.text_of([HumanMessage(parts), AIMessage("three")]) == "one\ntwo\nthree"


def test_tokens_are_estimated_for_any_content() -> None:
    parts: list[Any] = [
        "a" * 35,
        {"type": "text", "text": "a" * 35},
        {"type": "image_url", "image_url": {}},
        {"text": 3},
    ]
    assert estimate_tokens([HumanMessage(parts)]) == 4 + 10 + 10 + 800 + 800
    assert estimate_tokens([HumanMessage("é\ud800" * 7)]) == 4 + 10
    assert estimate_tokens([]) == 0


# Files of all versions.


def _place(folder: Path, user: str, session: str) -> Path:
    path = folder / file_name(user) / f"{file_name(session)}.jsonl"
    path.parent.mkdir(mode=0o700, parents=True)
    return path


async def test_a_file_of_version_1_stays_readable(tmp_path: Path) -> None:
    path = _place(tmp_path, "alice", "s1")
    shutil.copyfile(DATA / "v1.jsonl", path)
    store = FileStore(tmp_path)
    history = store.history("alice", "s1")
    info = await history.info()
    assert (info.session_id, info.title, info.chain, info.turns) == ("s1", "A sample: é 🦜", "tutor", 6)
    assert info.created_at == datetime.fromisoformat("2026-01-02T03:04:05.000006+00:00")
    turns = await all_turns(history)
    assert [(t.turn_id, t.status.value, texts(t.input), texts(t.output)) for t in turns] == [
        ("plain", "complete", ["Hello é 🦜"], ["Hi"]),
        ("surrogates", "complete", ["\ud83d\ude00 \ud800"], ["\udc00"]),
        ("cut", "interrupted", ["Go on"], ["Half a"]),
        ("tools", "complete", ["Search"], ["", "found", "There"]),
        ("retried", "complete", ["Third try"], ["At last"]),
        ("orphan", "interrupted", ["Never answered"], []),
    ]
    assert turns[0].usage == {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
    assert (turns[0].kind, turns[0].tokens, turns[0].chain) == ("str", 12, "chat")
    call = turns[3].output[0]
    assert isinstance(call, AIMessage)
    assert call.tool_calls[0]["args"] == {"q": "é"}
    before = path.read_bytes()
    await talk(history, "And it goes on")
    assert path.read_bytes().startswith(before)
    assert (await all_turns(history))[:-2] == turns[:-1]
    assert (await history.info()).turns == 7
    await store.close()


@pytest.mark.parametrize("where", ["head", "last", "torn", "torn short"])
async def test_a_file_of_a_newer_version_is_left_as_it_is(tmp_path: Path, where: str) -> None:
    newer = b'{"v":2,"r":"turn","new":"and quite different"}\n'
    at = datetime.fromisoformat("2026-01-02T03:04:05+00:00")
    head = session_line("alice", "s1", at)
    later = {"r": "session", "user": "alice", "session": "s1", "at": at.isoformat(), "v": 7}
    content = {
        "head": newer + newer, "last": head + newer, "torn": head + newer[:30],
        "torn short": encode(later, Sums())[:20],
    }[where]  # fmt: skip
    path = _place(tmp_path, "alice", "s1")
    path.write_bytes(content)
    store = FileStore(tmp_path)
    history = store.history("alice", "s1")
    for change in (history.begin(said("x"), window_tokens=100), history.rename("x"), history.rewind("x")):
        with pytest.raises(HistoryDamaged, match="newer version"):
            await change
    assert path.read_bytes() == content
    assert sorted(p.name for p in path.parent.iterdir()) == [path.name]
    await store.close()

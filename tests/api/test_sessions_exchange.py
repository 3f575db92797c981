"""What is exported comes back as it was, whatever was said; and schemas say the same of ids as the server does."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from api.sessions.exchange import ExchangedTurn, conversation_of, read_conversation
from api.sessions.markdown import title_as_markdown, turn_as_markdown
from api.sessions.models import ID_PATTERN
from histories.base import InvalidId, Session, Turn, TurnStatus, Usage, check_id, estimate_tokens
from tests.examples import tries

AT = datetime(2026, 3, 1, 9, 30, 0, 250, UTC)
texts = st.text(st.characters(), max_size=20) | st.text("\ud83d\ude00\x00a`<#>\n", max_size=9)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts, lambda v: st.lists(v) | st.dictionaries(texts, v)
)
parts = st.builds(lambda text: {"type": "text", "text": text}, texts) | st.dictionaries(texts, values, max_size=3)
contents = texts | st.lists(texts | parts, max_size=3)
calls = st.lists(
    st.builds(lambda a: {"name": "f", "args": {"a": a}, "id": "1", "type": "tool_call"}, values), max_size=2
)
messages: st.SearchStrategy[BaseMessage] = st.one_of(
    st.builds(lambda c, n: HumanMessage(content=c, name=n), contents, st.none() | texts),
    st.builds(lambda c, t: AIMessage(content=c, tool_calls=t), contents, calls),
    st.builds(lambda c, a: ToolMessage(content=c, tool_call_id="1", artifact=a), texts, values),
)


@settings(max_examples=tries(30), deadline=None)
@given(st.lists(messages, max_size=3), st.lists(messages, max_size=3), st.sampled_from(list(TurnStatus)[1:]))
def test_a_turn_comes_back_as_it_left(asked: list[BaseMessage], said: list[BaseMessage], status: TurnStatus) -> None:
    usage = Usage(input_tokens=1, output_tokens=2, total_tokens=3)
    turn = Turn(
        turn_id="t",
        status=status,
        chain="chat",
        started_at=AT,
        ended_at=AT,
        input=asked,
        output=said,
        usage=usage,
        kind="text",
    )
    session = Session(session_id="s", title="T", chain="chat", created_at=AT, updated_at=AT, turns=1)
    left = json.dumps({**conversation_of(session), "turns": [ExchangedTurn.of(turn).model_dump()]})
    _, [back] = read_conversation(json.loads(left))
    assert (back.input, back.output) == (asked, said)
    fields = ("turn_id", "status", "chain", "started_at", "ended_at", "usage", "kind")
    assert [getattr(back, field) for field in fields] == [getattr(turn, field) for field in fields]
    assert back.tokens == (estimate_tokens([*asked, *said]) if turn.shown else 0)
    assert title_as_markdown(session).decode() == "# T"
    assert turn_as_markdown(turn).decode().startswith(" · 2026-03-01 09:30 UTC · chat")


@settings(max_examples=tries(100))
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=130) | st.text(". /\\\x00\x85\u2003a", max_size=4))
def test_the_schema_of_an_id_is_the_rule(value: str) -> None:
    try:
        proper = bool(check_id(value))
    except InvalidId:
        proper = False
    assert (1 <= len(value) <= 128 and re.fullmatch(ID_PATTERN, value) is not None) == proper

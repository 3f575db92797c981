"""What Recollect's model asks of a server is what LangChain's own asks, whatever the prompt and the settings."""

from __future__ import annotations

from typing import Any

import langchain_openai
import pytest
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    HumanMessageChunk,
    SystemMessage,
    SystemMessageChunk,
    ToolMessage,
)
from pydantic import SecretStr

from chat_models.chat_openai import ChatOpenAI

F = {"name": "f", "arguments": '{"x": 1}'}
CALL = {"id": "a", "type": "function", "function": F}
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}}
USED: Any = {"name": "f", "args": {"x": 1, "é": "💡"}, "id": "a", "type": "tool_call"}
ASKED: dict[str, Any] = {
    "text": "hello",
    "pairs": [("system", "s"), ("human", "h"), ("ai", "a")],
    "dictionaries": [{"role": "developer", "content": "d"}, {"role": "user", "content": "u"}],
    "a developer's words": [SystemMessage("s", additional_kwargs={"__openai_role__": "developer"}), HumanMessage("h")],
    "nothing": [HumanMessage(""), AIMessage("")],
    "names": [SystemMessage("s", name="n"), HumanMessage("h", name=""), AIMessage("a", name="b")],
    "calls": [AIMessage("", tool_calls=[USED]), ToolMessage("r", tool_call_id="a", name="f", artifact={})],
    "calls with words": [
        AIMessage("t", tool_calls=[USED]),
        ToolMessage([{"type": "text", "text": "r"}], tool_call_id="a"),
    ],
    "a call that was none": [
        AIMessage(
            "", invalid_tool_calls=[{"name": "f", "args": "{no", "id": "a", "error": "x", "type": "invalid_tool_call"}]
        )
    ],
    "a call as it came": [AIMessage("", additional_kwargs={"tool_calls": [CALL]})],
    "an old call": [AIMessage("", additional_kwargs={"function_call": F}), FunctionMessage(content="r", name="f")],
    "thoughts": [AIMessage("a", additional_kwargs={"reasoning_content": "t"})],
    "a refusal": [AIMessage("", additional_kwargs={"refusal": "no"})],
    "sound": [AIMessage("", additional_kwargs={"audio": {"id": "x", "data": "AA"}})],
    "blocks": [AIMessage([{"type": "text", "text": "a"}, {"type": "tool_use", "id": "a", "name": "f", "input": {}}])],
    "blocks of LangChain's": [AIMessage([{"type": "text", "text": "a"}], response_metadata={"output_version": "v1"})],
    "chunks": [SystemMessageChunk(content="s"), HumanMessageChunk(content="h"), AIMessageChunk(content="a")],
    "another role": [ChatMessage(content="c", role="critic")],
    "a picture": [HumanMessage([{"type": "text", "text": "what?"}, PICTURE])],
    "a picture in LangChain's words": [HumanMessage([{"type": "image", "base64": "AA", "mime_type": "image/png"}])],
    "a file": [HumanMessage([{"type": "file", "base64": "AA", "mime_type": "application/pdf", "filename": "a.pdf"}])],
    "what was told of a reply": [
        HumanMessage("h", id="1"),
        AIMessage("a", id="2", usage_metadata={"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}),
    ],
    "any characters": [HumanMessage("\u2028\0é漢💡\x7f")],
}
SETTINGS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "o series": {"model_name": "o3-mini"},
    "a stop and a limit": {"stop": ["z"], "max_tokens": 5, "temperature": 0.2},
    "more": {"model_kwargs": {"user": "u"}, "extra_body": {"a": 1}, "service_tier": "auto", "reasoning_effort": "low"},
    "messages of LangChain's": {"output_version": "v1"},
    "another API": {"use_responses_api": True},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("prompt", ASKED.values(), ids=ASKED)
def test_the_payload_is_langchains(prompt: Any, settings: dict[str, Any]) -> None:
    plainly, ours = [payload_of(kind, settings, prompt) for kind in (langchain_openai.ChatOpenAI, ChatOpenAI)]
    assert ours == plainly


def payload_of(kind: type[langchain_openai.ChatOpenAI], settings: dict[str, Any], prompt: Any) -> Any:
    """What the server is asked, or the error that comes of it."""
    model = kind(openai_api_key=SecretStr("none"), **{"model_name": "m1", **settings})
    try:
        return model._get_request_payload(prompt, stop=["."], n=1)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        return type(error), str(error)

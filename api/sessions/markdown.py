"""Conversations as Markdown, for people."""

from __future__ import annotations

import json
import re

from langchain_core.messages import AIMessage, BaseMessage

from histories.base import Session, Turn, TurnStatus, text_of

_VOICES = {"human": "You", "ai": "Reply", "tool": "Tool"}
_HTML = re.compile(r"<[a-zA-Z/!?]")
_LINES = re.compile(r"\r\n|\r|\n")


def title_as_markdown(session: Session) -> bytes:
    """The head of a conversation to be read."""
    return _well_formed(f"# {_escaped(session.title)}").encode()


def turn_as_markdown(turn: Turn) -> bytes:
    """A turn, without its number. What was said is quoted, so that it can't pass for the frame around it."""
    status = "" if turn.status is TurnStatus.COMPLETE else f" · {turn.status.value}"
    when, who = f"{turn.started_at:%Y-%m-%d %H:%M} UTC", _escaped(turn.chain or "no chain")
    blocks = [f" · {when} · {who}{status}"]
    for message in (*turn.input, *turn.output):
        blocks += [f"**{_VOICES.get(message.type, 'Other')}**", *_said(message)]
    return _well_formed("\n\n".join(blocks)).encode()


def _said(message: BaseMessage) -> list[str]:
    text = text_of([message])
    blocks = [_quoted(text)] if text.strip() else []
    if isinstance(message.content, list):
        kinds = [str(part.get("type")) for part in message.content if isinstance(part, dict) and "text" not in part]
        blocks += [f"*({_escaped(kind)})*" for kind in kinds]
    if isinstance(message, AIMessage):
        calls = [{"name": call["name"], "args": call["args"]} for call in message.tool_calls]
        blocks += [_fenced(json.dumps(call, ensure_ascii=False)) for call in calls]
    return blocks or ["*(nothing)*"]


def _quoted(text: str) -> str:
    """As a quotation, in which Markdown still is Markdown; what holds HTML, as it is."""
    if _HTML.search(text):
        return _fenced(text)
    return "\n".join(f"> {line}" for line in _LINES.split(text))


def _fenced(text: str) -> str:
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return "\n".join([fence + "text", *_LINES.split(text), fence])


def _escaped(text: str) -> str:
    one_line = " ".join(_LINES.split(text))
    return re.sub(r"([\\`*_{}\[\]<>()#+!|&~])", r"\\\1", one_line)


def _well_formed(text: str) -> str:
    """UTF-8 has no lone surrogates."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

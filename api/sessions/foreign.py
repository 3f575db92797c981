"""Conversations of other programs, as `import` takes them: ChatGPT, open-webui, LibreChat, LangChain's own file.

Their formats are known from what is publicly documented. What is no text of a person or of a model can't come along,
and is counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from api.sessions.models import time_of

_PEOPLE = frozenset({"user", "human"})
_MODELS = frozenset({"assistant", "ai"})

Said = tuple[str, str, Any]
"""Who spoke (`human`, `ai`, or something else), what, and when, as the other program writes times."""


class Unreadable(ValueError):
    """What was sent is no conversation that is known here."""


def converted(value: Any) -> dict[str, Any]:
    """One conversation in the form of `import`, and how many messages could not come along: `left_out`.

    Raises Unreadable.
    """
    title, begun, said = _read(value)
    known = [one for one in said if one[0] in ("human", "ai") and one[1].strip()]
    if not known:
        raise Unreadable("There is nothing in it that a person said.")
    created = _time(begun if begun is not None else known[0][2])
    conversation = {
        "version": 1,
        "session_id": uuid4().hex,
        "title": _title(title or known[0][1]),
        "created_at": created,
        "turns": list(_turns(known, created)),
    }
    return {"conversation": conversation, "left_out": len(said) - len(known)}


def _read(value: Any) -> tuple[str, Any, list[Said]]:
    """A conversation's title, its beginning, and what was said."""
    try:
        if isinstance(value, list):
            return "", None, [_langchain(message) for message in value]
        if "mapping" in value:
            return str(value.get("title") or ""), value.get("create_time"), list(_chatgpt(value))
        chat = value.get("chat", value)
        messages = chat.get("history", {}).get("messages") or chat.get("messages") or chat.get("messagesTree")
        if isinstance(messages, dict):  # open-webui: a tree, of which one leaf is shown
            messages = _line(messages, chat["history"].get("currentId"), "parentId")
        messages, others = _newest(messages)
        begun = value.get("created_at") or value.get("createdAt") or chat.get("timestamp")
        return str(chat.get("title") or ""), begun, [*map(_plain, messages), *others]
    except (AttributeError, IndexError, KeyError, TypeError) as error:
        raise Unreadable("This is not a conversation of ChatGPT, open-webui, LibreChat or LangChain.") from error


def _line(nodes: dict[str, Any], leaf: str | None, parent: str) -> list[Any]:
    """The nodes from the root to a leaf: the line that was shown last."""
    found: list[Any] = []
    at = leaf or next(reversed(nodes), "")
    seen = set[str]()
    while at in nodes and at not in seen:
        seen.add(at)
        found.append(nodes[at])
        at = nodes[at].get(parent)
    return found[::-1]


def _newest(messages: list[Any]) -> tuple[list[Any], list[Said]]:
    """Of a tree of LibreChat's (`children`) the line that was said last, and something for each that is not in it."""
    line, others = list[Any](), list[Said]()
    if not any(message.get("children") for message in messages):
        return messages, others
    while messages:
        line.append(messages[-1])
        aside = messages[:-1]
        while aside:
            others.append(("other", "", None))
            aside.extend(aside.pop().get("children") or ())
        messages = line[-1].get("children") or []
    return line, others


def _chatgpt(value: dict[str, Any]) -> Iterator[Said]:
    for node in _line(value["mapping"], value.get("current_node"), "parent"):
        message = node.get("message")
        if not message or message["author"]["role"] == "system":
            continue
        parts = message["content"].get("parts") or []
        text = "\n".join(part for part in parts if isinstance(part, str))
        yield _who(message["author"]["role"]), text, message.get("create_time")


def _plain(message: dict[str, Any]) -> Said:
    """A message of open-webui (`role`) or of LibreChat (`isCreatedByUser`)."""
    role = message.get("role") or ("user" if message.get("isCreatedByUser") else "assistant")
    text = message.get("content") or message.get("text") or ""
    if isinstance(text, list):
        texts = [part.get("text") or "" for part in text if isinstance(part, dict)]
        text = "\n".join(str(one.get("value") or "") if isinstance(one, dict) else str(one) for one in texts)
    return _who(role), str(text), message.get("timestamp") or message.get("createdAt")


def _langchain(message: dict[str, Any]) -> Said:
    content = message["data"]["content"]
    if isinstance(content, list):
        content = "\n".join(part if isinstance(part, str) else str(part.get("text") or "") for part in content)
    return _who(message["type"]), str(content), None


def _who(role: str) -> str:
    return "human" if role in _PEOPLE else "ai" if role in _MODELS else "other"


def _turns(said: list[Said], created: str) -> Iterator[dict[str, Any]]:
    """Each question with what follows it. What a model says first has no question."""
    turn: dict[str, Any] | None = None
    for who, text, at in said:
        message = {"type": who, "data": {"content": text}}
        if turn is None or who == "human":
            if turn is not None:
                yield turn
            begun = created if at is None else _time(at)
            turn = {"turn_id": uuid4().hex, "chain": "", "started_at": begun, "ended_at": begun}
            turn |= {"status": "failed", "input": [], "output": [], "kind": "text"}
        turn["input" if who == "human" else "output"].append(message)
        if who == "ai":
            turn["status"] = "complete"
    if turn is not None:
        yield turn


def _time(value: Any) -> str:
    """A time, in seconds, milliseconds, or ISO 8601; now, if it is none."""
    try:
        if isinstance(value, str):
            at = datetime.fromisoformat(value)
            return time_of(at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC))
        seconds = float(value)
        return time_of(datetime.fromtimestamp(seconds / 1000 if seconds > 1e11 else seconds, UTC))
    except (OSError, OverflowError, TypeError, ValueError):
        return time_of(datetime.now(UTC))


def _title(text: str) -> str:
    words = " ".join("".join(c if c.isprintable() else " " for c in text[:400]).split())
    return words[:200] or "Untitled"

"""What a model is shown of long turns: no turn takes more than its share, and each says what is left out of it.

What is shown of a turn follows from the turn and its share alone: it is the same in each prompt, so that the prompt
caches of model servers stay warm.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

from histories.base import PART_TOKENS, ShownTurn, estimate_tokens, text_tokens

_LEAST_LEVEL: Final = 60
"""A message that is cut to less tells nothing: before that, tool steps are left out."""


def fitting(turns: Sequence[ShownTurn], *, limit: int, share: int) -> list[ShownTurn]:
    """The newest turns within `limit` tokens, none above `share`. The last one is always there, if only in part."""
    shown: list[ShownTurn] = []
    left = limit
    for turn in reversed(turns):
        most = share if shown else min(share, max(limit, _LEAST_LEVEL))
        fit = turn if turn.tokens <= most else ShownTurn(turn.turn_id, shortened(turn.messages, most))
        left -= fit.tokens
        if left < 0 and shown:
            break
        shown.append(fit)
    return shown[::-1]


def shortened(messages: Sequence[BaseMessage], share: int) -> list[BaseMessage]:
    """The messages of a turn within about `share` tokens: long ones are cut in their middle.

    Pictures, and other parts that are no text, stay as long as a fifth is left for words. Where the messages are too
    many, tool calls are left out with their results, the oldest first; never those of the last reply, which may still
    be answered.
    """
    sizes = [estimate_tokens([message]) for message in messages]
    size = sum(sizes)
    if size <= share:
        return list(messages)
    kept, pictures = _with_pictures(messages, share * 4 // 5)
    sizes = [estimate_tokens([one]) - PART_TOKENS * count for one, count in zip(kept, pictures, strict=True)]
    share -= PART_TOKENS * sum(pictures)
    dropped = 0
    while _level(sizes, share) < _LEAST_LEVEL and (steps := _first_steps(kept)) is not None:
        dropped += steps.stop - steps.start
        del kept[steps], sizes[steps]
    level = max(_level(sizes, share), 8)
    shown = [_cut(one, level) if size > level else one for one, size in zip(kept, sizes, strict=True)]
    if dropped and shown:
        shown[0] = _with_note(
            shown[0], f"[… {dropped:,} messages with tool calls and their results are left out here …]"
        )
    return shown


def _with_pictures(messages: Sequence[BaseMessage], room: int) -> tuple[list[BaseMessage], list[int]]:
    """The messages with the first of their pictures that have room, and how many that are in each."""
    kept, counts = list(messages), [0] * len(messages)
    for place, message in enumerate(messages):
        content: Any = message.content
        if isinstance(content, str) or not any(map(_is_picture, content)):
            continue
        parts = list[Any]()
        for part in content:
            fits = _is_picture(part) and room >= PART_TOKENS
            room, counts[place] = room - PART_TOKENS * fits, counts[place] + fits
            parts.append(part if fits or not _is_picture(part) else _left_out(part))
        kept[place] = message.model_copy(update={"content": parts})
    return kept, counts


def _is_picture(part: Any) -> bool:
    return not (isinstance(part, str) or isinstance(part.get("text"), str) or part.get("type") in _CALLS)


def _left_out(part: Any) -> Any:
    return {"type": "text", "text": f"[one {part.get('type', 'part')} is left out here]"}


_CALLS: Final = ("tool_use", "tool_call", "function_call")
"""Parts that say what a tool call of their message does."""


def _level(sizes: Sequence[int], share: int) -> int:
    """To how many tokens the larger messages have to be cut, so that all together come to the share."""
    left, ordered = share, sorted(sizes)
    for place, size in enumerate(ordered):
        level = left // (len(ordered) - place)
        if size > level:
            return level
        left -= size
    return max(sizes, default=0)


def _first_steps(messages: Sequence[BaseMessage]) -> slice | None:
    """The oldest reply with tool calls, and their results."""
    for place, message in enumerate(messages):
        if isinstance(message, AIMessage) and message.tool_calls:
            end = place + 1
            while end < len(messages) and isinstance(messages[end], ToolMessage):
                end += 1
            return slice(place, end) if end < len(messages) else None
    return None


def _cut(message: BaseMessage, level: int) -> BaseMessage:
    content: Any = message.content
    if isinstance(content, list):
        room = level // max(1, len(content) - sum(map(_is_picture, content)))
        content = [_cut_part(part, room) for part in content]
    else:
        content = cut_text(content, level)
    changes: dict[str, Any] = {"content": content}
    if isinstance(message, ToolMessage):
        changes["artifact"] = None
    if isinstance(message, AIMessage) and message.tool_calls:
        calls = [
            {**call, "args": _cut_args(call["args"], level // len(message.tool_calls))} for call in message.tool_calls
        ]
        told = {key: value for key, value in message.additional_kwargs.items() if key != "tool_calls"}
        changes |= {"tool_calls": calls, "additional_kwargs": told}
    return message.model_copy(update=changes)


def _cut_part(part: Any, room: int) -> Any:
    if isinstance(part, str):
        return cut_text(part, room)
    if isinstance(part.get("text"), str):
        return {**part, "text": cut_text(part["text"], room)}
    return part


def _cut_args(args: dict[str, Any], level: int) -> dict[str, Any]:
    room = level // max(1, len(args))
    return {name: cut_text(value, room) if isinstance(value, str) else value for name, value in args.items()}


def cut_text(text: str, level: int) -> str:
    """The beginning and the end of a text, within about so many tokens, and between them what was left out."""
    tokens = text_tokens(text)
    if tokens <= level or len(text) <= 80:
        return text
    kept = max(16, int(len(text) * max(0, level - 14) / tokens))
    head = kept * 2 // 3
    gone = len(text) - kept
    return f"{text[:head]}\n[… {gone:,} characters are left out here …]\n{text[len(text) - (kept - head) :]}"


def _with_note(message: BaseMessage, note: str) -> BaseMessage:
    content: Any = message.content
    content = f"{content}\n{note}" if isinstance(content, str) else [*content, {"type": "text", "text": note}]
    return message.model_copy(update={"content": content})

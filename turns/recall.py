"""What a model is shown beside the window: notes about the user, and earlier exchanges that bear on the question."""

from __future__ import annotations

import asyncio
import logging
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import Final, Literal, TypeVar, get_args

from langchain_core.messages import BaseMessage, HumanMessage

from histories.base import (
    HistoryError,
    HistoryStore,
    Note,
    Recalled,
    RecalledTurn,
    passage,
    text_of,
    text_tokens,
)
from turns.sizes import size_of

T = TypeVar("T")

log = logging.getLogger("recollect.turns")

Recall = Literal["session", "user", "off"]
RECALLS: Final = get_args(Recall)
"""Where earlier exchanges are looked for: in the session, in all sessions of the same user, or nowhere."""

RECALL_S: Final = 0.25
"""How long a turn waits for what a recall finds: it costs nothing but itself."""

_LATEST_S: Final = 10.0
_FOUND: Final = 12
_QUESTION: Final = 400
"""Characters of a message that are searched with: of a longer one, lines at its two ends."""

_NUMBERS: Final = re.compile(r"\b\d[\d.,:/-]*\b")
_MORE: Final = 100
_ALIKE: Final = 2
"""Exchanges with one and the same question that are shown: who asks it each day learns no more from a third one."""

_SHORT: Final = 32 * 1024
"""Bytes whose words are looked at in some milliseconds."""

_LONGEST: Final = 700
"""Characters of one message that are shown again: of a longer one, those around the question's words."""

_EARLIER: Final = "Earlier exchanges that may bear on my next message, oldest first (they are not part of it):"
_NOTES: Final = "What you know of me:"


async def recalled(
    store: HistoryStore,
    user_id: str,
    question: str,
    *,
    session_id: str | None,
    exclude: Collection[tuple[str, str]] = (),
    limit: int = _FOUND,
) -> list[Recalled]:
    """What the store recalls, best first; nothing, if it can't, or takes too long."""
    question, who = gist(question), (id(store), user_id)
    if not question or who in _late:
        return []
    ask = partial(store.recall, user_id, question, session_id=session_id)
    asking = asyncio.ensure_future(_distinct(ask, exclude, limit))
    try:
        await asyncio.wait({asking}, timeout=RECALL_S)
    except asyncio.CancelledError:
        asking.cancel()
        raise
    if asking.done():
        return _outcome(asking)
    # It goes on: a store that has read a long session once has it in mind. This user's next turns don't wait for it.
    log.info("a recall took longer than %g seconds", RECALL_S)
    _late[who] = asking
    end = asyncio.get_running_loop().call_later(_LATEST_S, asking.cancel)

    def over(_: object) -> None:
        end.cancel()
        _late.pop(who, None)
        _outcome(asking)

    asking.add_done_callback(over)
    return []


def gist(message: str) -> str:
    """What a message is searched with: all of a short one, else lines from its end and its beginning, in turn.

    Who pastes a log or an article says before it, or after it, what is wanted.
    """
    lines = [line for line in map(str.strip, message.splitlines()) if line]
    if len(message) <= _QUESTION or not lines:
        return " ".join(lines)
    half, told = _QUESTION // 2, list[str]()
    if len(lines) == 1:
        return f"{lines[0][-half:]} {lines[0][:half]}"
    while lines and len(" ".join(told)) < _QUESTION:
        last = len(told) % 2 == 0
        line = lines.pop(-1 if last else 0)
        line = line if len(told) < 2 else _NUMBERS.sub(" ", line)  # those of a log are rare words, and tell nothing
        told.append(line[-half:] if last else line[:half])
    return " ".join(told)


async def _distinct(
    ask: Callable[..., Awaitable[list[Recalled]]], exclude: Collection[tuple[str, str]], limit: int
) -> list[Recalled]:
    """The best ones, best first, of which none says what another one does. If many do, more are asked for, once."""
    found = await ask(exclude=exclude, limit=limit)
    kept = await _aside(found, partial(_unlike, found))
    if len(found) < limit or len(kept) > limit * 2 // 3:
        return kept
    seen = {(one.session_id, one.turn.turn_id) for one in found}
    found = [*found, *await ask(exclude={*exclude, *seen}, limit=_MORE)]
    return (await _aside(found, partial(_unlike, found)))[:limit]


def _unlike(found: Sequence[Recalled]) -> list[Recalled]:
    kept, asked, answered = list[Recalled](), Counter[str](), set[tuple[str, str]]()
    for one in found:
        said, replied = (" ".join(text_of(part).split()).casefold() for part in (one.turn.input, one.turn.output))
        if (said, replied) not in answered and asked[said] < _ALIKE:
            answered.add((said, replied))
            asked[said] += 1
            kept.append(one)
    return kept


_late: dict[tuple[int, str], asyncio.Future[list[Recalled]]] = {}
"""Recalls that nobody waits for any more."""


def _outcome(asked: asyncio.Future[list[Recalled]]) -> list[Recalled]:
    if asked.cancelled():
        return []
    error = asked.exception()
    if isinstance(error, HistoryError):
        log.warning("a recall failed: %s", error)
    elif error is not None:
        log.error("a recall failed", exc_info=error)
    return [] if error is not None else asked.result()


async def notes_of(store: HistoryStore, user_id: str) -> list[Note]:
    """The user's notes; none, if they can't be read now."""
    try:
        async with asyncio.timeout(RECALL_S):
            return await store.notes(user_id)
    except (TimeoutError, HistoryError) as error:
        log.warning("the notes can't be read: %s", error)
        return []


async def chosen_aside(found: Sequence[Recalled], question: str, budget: int) -> list[tuple[Recalled, str]]:
    """`chosen`, off the event loop if it takes long: each word of what was said is looked at."""
    return await _aside(found, partial(chosen, found, question, budget))


async def _aside(found: Sequence[Recalled], work: Callable[[], T]) -> T:
    """Work on all that was said in these turns: in a thread, if that is much."""
    if size_of([[*one.turn.input, *one.turn.output] for one in found]) <= _SHORT:
        return work()
    return await asyncio.to_thread(work)


def chosen(found: Sequence[Recalled], question: str, budget: int) -> list[tuple[Recalled, str]]:
    """The best of them within so many tokens, oldest first, each with its text."""
    kept: list[tuple[Recalled, str]] = []
    for one in found:
        text = exchange(one, question)
        size = text_tokens(text) + 1
        if size <= budget:
            budget -= size
            kept.append((one, text))
    return sorted(kept, key=lambda each: each[0].turn.started_at)


def exchange(one: Recalled, question: str) -> str:
    """An exchange as a model is shown it again: when it was, and what was said."""
    said, replied = (passage(question, text_of(part), _LONGEST) for part in (one.turn.input, _spoken(one.turn.output)))
    return f"[{one.turn.started_at:%A, %d %B %Y, %H:%M} UTC]\nI said: {said}\nYou said: {replied}"


def _spoken(output: Sequence[BaseMessage]) -> list[BaseMessage]:
    return [message for message in output if message.type == "ai"] or list(output)


def memory_message(notes: Sequence[Note], earlier: Sequence[tuple[Recalled, str]], name: str) -> BaseMessage | None:
    """All of it in one message, for the place right before the question; None if there is nothing."""
    parts = []
    if notes:
        parts.append("\n".join([_NOTES, *(f"- {note.text}" for note in notes)]))
    if earlier:
        parts.append("\n\n".join([_EARLIER, *(text for _, text in earlier)]))
    return HumanMessage("\n\n".join(parts), id=name) if parts else None


def as_details(earlier: Sequence[tuple[Recalled, str]]) -> list[RecalledTurn]:
    """The same for the record."""
    return [
        RecalledTurn(session_id=one.session_id, turn_id=one.turn.turn_id, at=one.turn.started_at.isoformat())
        for one, _ in earlier
    ]

"""What a model is shown beside the window: notes about the user, and earlier exchanges that bear on the question."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Sequence
from typing import Final, Literal, get_args

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

log = logging.getLogger("recollect.turns")

Recall = Literal["session", "user", "off"]
RECALLS: Final = get_args(Recall)
"""Where earlier exchanges are looked for: in the session, in all sessions of the same user, or nowhere."""

RECALL_S: Final = 0.25
"""How long a turn waits for what a recall finds: it costs nothing but itself."""

_LATEST_S: Final = 10.0
_FOUND: Final = 12
_QUESTION: Final = 2_000
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
    question, who = question[:_QUESTION], (id(store), user_id)
    if not question.strip() or who in _late:
        return []
    asking = asyncio.ensure_future(store.recall(user_id, question, session_id=session_id, exclude=exclude, limit=limit))
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


_SHORT = 32 * 1024
"""Bytes whose words are looked at in some milliseconds."""

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
    if size_of([question, *([*one.turn.input, *one.turn.output] for one in found)]) <= _SHORT:
        return chosen(found, question, budget)
    return await asyncio.to_thread(chosen, found, question, budget)


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

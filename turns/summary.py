"""Sums up what leaves the window, for chains that ask for it: in the background, by the same model, after the turn."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from contextvars import Context
from functools import partial
from typing import Any, Final

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import HumanMessage, SystemMessage

from histories.base import (
    HistoryError,
    HistoryStore,
    SessionHistory,
    Summary,
    Turn,
    estimate_tokens,
    now,
    text_of,
    text_tokens,
)
from turns.fit import Fit, name_of
from turns.recall import RECALL_S
from turns.shares import Budget, no_budget
from turns.shorten import cut_text

log = logging.getLogger("recollect.turns")

_AT_ONCE: Final = 2
"""How many are made at once in a process: they are to be in no turn's way."""

_ASK_S: Final = 120.0
_AGAIN_S: Final = 60.0
"""How soon after a failure a session's next turn tries again."""

_MOST_TURNS: Final = 400
"""How far back is read: what was said before, of a session that was long already, is left to recall."""

_KNOWN: Final = 10_000
_PAGE: Final = 100

_ASK: Final = (
    "You keep the notes of a conversation between a user and an assistant. Write down, in at most {words} words and "
    "in the language of the user, what is worth knowing later: who the user is, what was asked for, facts, numbers, "
    "names, decisions, what is still open. Take over what still holds of the notes so far. Say nothing else."
)

Place = tuple[str, str]

Spend = Callable[[int, Callable[[], int]], AbstractAsyncContextManager[None]]
"""A user's budget of tokens: some are reserved, and set right afterwards."""


class Summaries:
    """The summaries of a process's sessions. What goes wrong with one is logged, and is no turn's concern."""

    def __init__(self, store: HistoryStore, budget: Budget = no_budget) -> None:
        self._store, self._budget = store, budget
        self._making: dict[Place, asyncio.Task[None]] = {}
        self._known: OrderedDict[Place, tuple[str, float]] = OrderedDict()
        self._free = asyncio.Semaphore(_AT_ONCE)
        self._is_closed = False

    async def of(self, user_id: str, session_id: str) -> Summary | None:
        """The summary of a session; None, if there is none, or it can't be had at once."""
        try:
            async with asyncio.timeout(RECALL_S):
                return await self._store.history(user_id, session_id).summary()
        except (TimeoutError, HistoryError) as error:
            log.warning("a summary can't be read: %s", error)
            return None

    def go_on(self, user_id: str, session_id: str, first: str, model: BaseChatModel, fit: Fit) -> None:
        """A turn has ended whose window began with the turn `first`: sums up what is before that, if it is not yet."""
        place, time = (user_id, session_id), asyncio.get_running_loop().time()
        known, again_at = self._known.get(place, ("", 0.0))
        if self._is_closed or place in self._making or (known == first and time < again_at):
            return
        making = asyncio.get_running_loop().create_task(
            self._make(place, first, model, fit), name="recollect-summary", context=Context()
        )
        self._making[place] = making
        making.add_done_callback(lambda _: self._making.pop(place, None))

    async def close(self) -> None:
        """Makes no more; those that are being made are not kept."""
        self._is_closed = True
        making = [*self._making.values()]
        for task in making:
            task.cancel()
        if making:
            await asyncio.wait(making)

    async def _make(self, place: Place, first: str, model: BaseChatModel, fit: Fit) -> None:
        again_s = float("inf")
        try:
            async with self._free:
                await _sum_up(self._store.history(*place), first, model, fit, partial(self._budget, place[0]))
        except Exception as error:  # noqa: BLE001 - a model's, a store's: nobody waits for this
            again_s = _AGAIN_S
            log.warning("a session could not be summed up: %s", error)
        self._known[place] = first, asyncio.get_running_loop().time() + again_s
        self._known.move_to_end(place)
        if len(self._known) > _KNOWN:
            self._known.popitem(last=False)


async def _sum_up(history: SessionHistory, first: str, model: BaseChatModel, fit: Fit, budget: Spend) -> None:
    """Sums up, part by part, what is said between the end of the summary so far and the turn `first`."""
    so_far = await history.summary()
    for part in [*_parts(await _unsummed(history, first, so_far), fit)]:
        text = await _asked(model, so_far, part, fit, budget)
        if not text or await history.summary() != so_far:  # somebody has written another one meanwhile
            return
        made = Summary(text, part[-1].turn_id, part[-1].started_at, now(), name_of(model))
        await history.set_summary(made)
        there = {turn.turn_id for turn in await _unsummed(history, first, so_far)}
        if not there.issuperset(turn.turn_id for turn in part):  # one was taken away meanwhile
            await history.set_summary(None)
            return
        so_far = made


async def _unsummed(history: SessionHistory, first: str, so_far: Summary | None) -> list[Turn]:
    """The turns of the shown line before `first` that the summary does not speak of yet, oldest first."""
    found, is_before, before = list[Turn](), False, None
    while len(found) < _MOST_TURNS:
        page = await history.turns(limit=_PAGE, before=before)
        for turn in reversed(page.items):
            if so_far is not None and turn.turn_id == so_far.up_to:
                return found[::-1]
            if is_before and turn.shown:
                found.append(turn)
            is_before = is_before or turn.turn_id == first
        before = page.next
        if before is None:
            break
    return found[::-1]


def _parts(turns: Sequence[Turn], fit: Fit) -> Iterator[list[Turn]]:
    """Turns that are summed up at once: as much as half of what the model is shown of a past."""
    part, size = list[Turn](), 0
    for turn in turns:
        tokens = text_tokens(_told(turn, fit))
        if part and size + tokens > fit.window // 2:
            yield part
            part, size = [], 0
        part.append(turn)
        size += tokens
    if part:
        yield part


def _told(turn: Turn, fit: Fit) -> str:
    said, replied = (cut_text(text_of(messages), fit.turn // 2) for messages in (turn.input, turn.output))
    return f"User: {said}\nAssistant: {replied}"


async def _asked(model: BaseChatModel, so_far: Summary | None, part: Sequence[Turn], fit: Fit, budget: Spend) -> str:
    """What the model makes of it. Its tokens are the user's: raises `OverBudget` if there are none left."""
    notes = "(none)" if so_far is None else cut_text(so_far.text, summary_tokens(fit))
    said = "\n\n".join(_told(turn, fit) for turn in part)
    prompt = [
        SystemMessage(_ASK.format(words=summary_tokens(fit) // 2)),
        HumanMessage(f"The notes so far:\n{notes}\n\nWhat was said then:\n{said}"),
    ]
    config: Any = {"callbacks": [], "run_name": "summary", "tags": ["summary"]}
    size, used = estimate_tokens(prompt), [0]
    async with budget(size, lambda: used[0]):
        async with asyncio.timeout(_ASK_S):
            answer = await model.ainvoke(prompt, config)
        counted = answer.usage_metadata
        used[0] = size + estimate_tokens([answer]) if counted is None else counted["total_tokens"]
    return cut_text(text_of([answer]).strip(), summary_tokens(fit))


def summary_tokens(fit: Fit) -> int:
    """How long a summary may be: half of what may be recalled, which then is as much less."""
    return fit.recall // 2


def summary_message(summary: Summary, fit: Fit) -> HumanMessage:
    """The summary as a model is shown it, before the window."""
    text = cut_text(summary.text, summary_tokens(fit))
    return HumanMessage(f"{_HEAD}\n{text}", id=f"summary-{summary.up_to}")


_HEAD: Final = "What we spoke of before, summed up:"

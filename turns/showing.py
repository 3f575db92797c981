"""What a model is shown of a session in one turn: what fits of the window, and what is remembered beside it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Sequence
from contextlib import aclosing
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage

from histories.base import (
    HistoryStore,
    Note,
    OpenTurn,
    Recalled,
    RecalledTurn,
    ShownTurn,
    StoreUnavailable,
    estimate_tokens,
    text_of,
)
from turns.calls import fit_to_show
from turns.errors import InvalidInput, MessageTooLong
from turns.failures import innermost, is_too_long
from turns.fit import Fit
from turns.recall import Recall, as_details, chosen_aside, memory_message, notes_of, recalled
from turns.shorten import fitting
from turns.summary import Summaries, summary_message, summary_tokens

_LOOKED_AT: Final = 10
"""How many turns are read of a session whose window is empty."""

_NOTES_SHARE: Final = 8


@dataclass(frozen=True, slots=True)
class Caller:
    """For whom a chain's tools work: the user and the session of the turn that runs."""

    store: HistoryStore
    user_id: str
    session_id: str
    shown: frozenset[tuple[str, str]] = frozenset()


caller: ContextVar[Caller | None] = ContextVar("recollect_caller", default=None)


@dataclass(slots=True)
class Showing:
    """One turn's. `begin` reads what it needs; `past` says what is shown within a limit."""

    store: HistoryStore
    user_id: str
    session_id: str
    fit: Fit
    new: Sequence[BaseMessage]
    recall: Recall = "session"
    notes: bool = False
    summaries: Summaries | None = None
    """Those of this process, if the chain wants what has left the window to be summed up."""

    window: Sequence[ShownTurn] = ()
    limit: int = 0
    shown: int = 0
    """How many tokens of the past were shown last."""

    message: BaseMessage | None = None
    summary: BaseMessage | None = None
    first: str | None = None
    """The first turn of the window, if there are others before it."""

    recalled: list[RecalledTurn] = field(default_factory=list)
    _size: int = 0
    _tried: int = 0
    _fits: tuple[int, list[ShownTurn]] | None = None

    async def begin(self, turn: OpenTurn) -> None:
        """Reads what the turn is shown. Raises `InvalidInput` for the result of a tool that nobody called."""
        self.window = turn.window or (await self._from_record(turn.turn_id) if turn.has_older else [])
        check_tool_messages(self.window, self.new)
        self._size = estimate_tokens(self.new)
        self.limit = self.fit.past(self._size)
        fits = self.window[len(self.window) - len(self._fitting()) :]
        has_older = turn.has_older or len(fits) < len(self.window)
        seen = frozenset((self.session_id, one) for one in (turn.turn_id, *(each.turn_id for each in fits)))
        caller.set(Caller(self.store, self.user_id, self.session_id, seen))
        if has_older and self.window:
            self.first = self.window[0].turn_id
            await self._sum_up({one.turn_id for one in fits})
        if self.new and all(message.type == "human" for message in self.new):  # else it would part calls and results
            await self._remember(turn.turn_id, seen, has_older=has_older)

    async def _sum_up(self, shown: Collection[str]) -> None:
        summary = None if self.summaries is None else await self.summaries.of(self.user_id, self.session_id)
        if summary is not None and summary.up_to not in shown:
            self.summary = summary_message(summary, self.fit)

    def sum_up(self, model: BaseChatModel | None) -> None:
        """What has left the window of this turn, which has ended, is summed up meanwhile, if that is asked for."""
        if self.summaries is not None and self.first is not None and model is not None:
            self.summaries.go_on(self.user_id, self.session_id, self.first, model, self.fit)

    async def _from_record(self, running: str) -> list[ShownTurn]:
        """The last turns of a session of which no window is left, as its turns were counted for a larger one."""
        try:
            page = await self.store.history(self.user_id, self.session_id).turns(limit=_LOOKED_AT)
        except StoreUnavailable:
            return []
        return [
            ShownTurn(turn.turn_id, [*turn.input, *turn.output])
            for turn in page.items
            if turn.shown and turn.turn_id != running
        ]

    async def _remember(self, turn_id: str, seen: frozenset[tuple[str, str]], *, has_older: bool) -> None:
        question, notes, earlier = text_of(self.new), list[Note](), list[tuple[Recalled, str]]()
        if self.notes:
            notes = _newest(await notes_of(self.store, self.user_id), self.fit.window // _NOTES_SHARE)
        if self.recall == "user" or (self.recall == "session" and has_older):
            where = self.session_id if self.recall == "session" else None
            found = await recalled(self.store, self.user_id, question, session_id=where, exclude=seen)
            room = self.fit.recall if self.summary is None else self.fit.recall - summary_tokens(self.fit)
            earlier = await chosen_aside(found, question, room)
        self.message = memory_message(notes, earlier, f"memory-{turn_id}")
        self.recalled = as_details(earlier)

    def _fitting(self) -> list[ShownTurn]:
        """The newest turns of the window within the limit."""
        if self._fits is None or self._fits[0] != self.limit:
            self._fits = self.limit, fitting(self.window, limit=self.limit, share=self.fit.turn)
        return self._fits[1]

    def past(self) -> list[BaseMessage]:
        """What stands before the new message: the newest turns within the limit, and what is remembered."""
        turns = self._fitting()
        messages = [message for turn in turns for message in turn.messages]
        if all(turn.is_plain for turn in turns):
            self.shown = sum(turn.tokens for turn in turns)
        else:
            messages = fit_to_show(messages, self.new)
            self.shown = estimate_tokens(messages)
        if self.summary is not None:
            messages = [self.summary, *messages]
            self.shown += estimate_tokens([self.summary])
        return messages if self.message is None else [*messages, self.message]

    def is_to_shrink(self, error: Exception, attempt: int) -> bool:
        """Whether to ask again with less of the past, as the model says that this was too long for it.

        Raises `MessageTooLong` if there is no less.
        """
        cause = innermost(error)
        if not is_too_long(cause):
            return False
        smaller = self.fit.smaller(cause, shown=self.shown, new=self._size)
        if attempt >= ATTEMPTS or not (self.shown or self.message):
            raise MessageTooLong(
                "This message alone is longer than the model can read at once: send it in parts, or less of it."
            ) from error
        self._tried, self.limit = smaller if attempt == 1 else self._tried // 2, smaller if attempt == 1 else 0
        if attempt > 1:
            self.message, self.summary, self.recalled = None, None, []
        return True

    def took(self, attempt: int) -> None:
        """The model took what it was shown."""
        if attempt > 1:
            self.fit.remember(self._tried + self._size)

    def prompt_tokens(self) -> int:
        """The estimate of all that was shown."""
        return self.shown + self._size + (0 if self.message is None else estimate_tokens([self.message]))


ATTEMPTS: Final = 3
"""As it is; with half of the past; with next to nothing of it, to tell whether the new message alone is too long."""


async def speaking(
    showing: Showing,
    turn: OpenTurn,
    speak: Callable[[list[BaseMessage]], AsyncGenerator[Any, None]],
    has_heard: Callable[[], bool],
) -> AsyncGenerator[Any, None]:
    """What a chain says when it is shown the past; what it says when it is shown less, if that was too long.

    It is asked again only if it has said nothing, and no model has answered it (`has_heard`): a tool may have acted.
    """
    await showing.begin(turn)
    for attempt in range(1, ATTEMPTS + 1):
        said = False
        try:
            async with aclosing(speak(showing.past())) as chunks:
                async for chunk in chunks:
                    if not said:
                        said = True
                        showing.took(attempt)
                    yield chunk
            return
        except Exception as error:
            if said or has_heard() or not showing.is_to_shrink(error, attempt):
                raise


def _newest(notes: Sequence[Note], budget: int) -> list[Note]:
    kept: list[Note] = []
    for note in reversed(notes):
        budget -= len(note.text) // 3 + 2
        if budget < 0:
            break
        kept.append(note)
    return kept[::-1]


def check_tool_messages(window: Sequence[ShownTurn], new: Sequence[BaseMessage]) -> None:
    """A tool's result has to answer a call of the last reply: else it is a forged one."""
    last = window[-1].messages[-1] if window and window[-1].messages else None
    calls = {call["id"] for call in last.tool_calls} if isinstance(last, AIMessage) else set()
    for message in new:
        if message.type == "tool" and getattr(message, "tool_call_id", None) not in calls:
            raise InvalidInput("A tool message answers a tool call of the reply before it: there is no such call.")

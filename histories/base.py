"""The contract that every store keeps.

A history is the record of one session's turns, in the order in which they ran. A turn is begun (from then on the
user's words are durable), runs, and is ended (from then on the reply is durable). Whoever begins a turn owns the
session until the turn ends or the owner dies; everybody else waits, in order of arrival, or is refused.
"""

from __future__ import annotations

import unicodedata
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Generic, TypeVar
from uuid import uuid4

from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import BaseMessage, HumanMessage
from typing_extensions import TypedDict, override

from histories.blocking import run_blocking as run_blocking
from histories.codec import UnknownMessage as UnknownMessage
from histories.codec import dump as dump
from histories.codec import message_from_json as message_from_json
from histories.codec import message_to_json as message_to_json
from histories.codec import text_of as text_of
from histories.codec import undump as undump
from histories.codec import whole as whole
from histories.window import estimate_tokens as estimate_tokens

T = TypeVar("T")


class HistoryError(Exception):
    """What a history can't do. The message says what to do about it, and carries no path and no secret."""

    usual = ""
    """What it says unless it is told otherwise."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message or self.usual)


class InvalidId(HistoryError, ValueError):
    """A session_id or turn_id outside the alphabet."""


class InvalidCursor(HistoryError, ValueError):
    """A page's cursor that this store did not give out."""


class SessionNotFound(HistoryError):
    """The user has no such session."""

    usual = "There is no such session."


class TurnNotFound(HistoryError):
    """The session has no such turn."""

    usual = "The session has no such turn."


class SessionExists(HistoryError):
    """The name that a new session should get is taken."""

    usual = "There is a session of that name already: choose another one."


class SessionBusy(HistoryError):
    """A turn of the session is running, and the wait for it ran out."""

    usual = "A turn of this session is running. Try again when it has ended, or stop it."


class StoreUnavailable(HistoryError):
    """The store can't be reached, or can't write. Nothing that was asked for has been done."""


class StoreFull(StoreUnavailable):
    """The store has no space left."""


class HistoryDamaged(StoreUnavailable):
    """The stored record can't be read as it is: nothing is written to it until it is repaired."""


class TurnLost(StoreUnavailable):
    """Another holder took the session over while this turn ran: what it said was not recorded."""


class TurnStatus(StrEnum):
    RUNNING = "running"
    COMPLETE = "complete"
    INTERRUPTED = "interrupted"
    FAILED = "failed"


class Usage(TypedDict):
    """Tokens, as the model counted them."""

    input_tokens: int
    output_tokens: int
    total_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """How a turn ended. `tokens` is what its output adds to a window, `kind` the shape of the chain's output."""

    status: TurnStatus
    output: Sequence[BaseMessage] = ()
    usage: Usage | None = None
    tokens: int = 0
    kind: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTurn:
    """What a turn begins with. `tokens` is what its input adds to a window.

    `given` tells that the client chose the turn_id: only then is the record searched for it.
    """

    input: Sequence[BaseMessage]
    chain: str = ""
    turn_id: str = field(default_factory=lambda: uuid4().hex)
    given: bool = False
    tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One turn as the record has it. Times are aware, in UTC; `tokens` is what it adds to a window."""

    turn_id: str
    status: TurnStatus
    chain: str
    started_at: datetime
    ended_at: datetime | None = None
    input: Sequence[BaseMessage] = ()
    output: Sequence[BaseMessage] = ()
    usage: Usage | None = None
    kind: str = ""
    tokens: int = 0

    @property
    def shown(self) -> bool:
        """Whether a model is shown this turn: it has a question and an answer, even if only the start of one."""
        return self.status is TurnStatus.COMPLETE or (self.status is TurnStatus.INTERRUPTED and bool(self.output))


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One conversation, as a list of conversations shows it. `turns` counts the turns on the record."""

    session_id: str
    title: str
    chain: str
    created_at: datetime
    updated_at: datetime
    turns: int


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some of a longer list, and the opaque cursor of what follows (None: nothing does)."""

    items: list[T]
    next: str | None = None


class OpenTurn(ABC):
    """A turn that runs. Its session belongs to it until `end` returns or raises."""

    turn_id: str
    past: list[BaseMessage]
    """The window: the messages of earlier turns that the model is to be shown, oldest first."""

    @abstractmethod
    async def end(self, reply: Reply) -> None:
        """Makes the reply durable and frees the session.

        Runs to its end even if the caller is cancelled meanwhile. Whatever it raises (`StoreUnavailable` or one of
        its kinds), the session is free again, and the record then shows this turn as interrupted. `TurnLost` if it has
        ended already.
        """


class SessionHistory(BaseChatMessageHistory, ABC):
    """The history of one session. Every method is safe from any task, thread, process and machine."""

    user_id: str
    session_id: str

    @abstractmethod
    async def begin(
        self,
        new: NewTurn,
        *,
        wait_s: float = 60.0,
        window_tokens: int = 0,
        on_stop: Callable[[], None] | None = None,
    ) -> OpenTurn | Turn:
        """Makes the user's words durable, and gives the turn that now owns the session.

        Waits up to `wait_s` seconds for the turns before it, in order of arrival; `SessionBusy` after that.
        `window_tokens` bounds `past` (0: no past is read). `on_stop` is called, from any thread, when somebody
        asks for this turn to be stopped. With `new.given`: a turn of that id that is complete is returned as it is
        on the record (a `Turn`), one that is running is `SessionBusy` at once, any other one is replaced.
        What a dead owner left running is ended first, as interrupted.
        Cancelled, it leaves either nothing, or a turn that is interrupted.
        """

    @abstractmethod
    async def info(self) -> Session:
        """The session's entry in the list of sessions. `SessionNotFound`."""

    @abstractmethod
    async def turns(self, *, limit: int = 50, before: str | None = None) -> Page[Turn]:
        """The newest turns, oldest of them first; `next` is the `before` of the page of older ones.

        An unknown session has none. `InvalidCursor` for a `before` that is not one.
        """

    @abstractmethod
    async def rename(self, title: str) -> None:
        """Gives the session a title (1 to 200 characters), while a turn runs, too. `SessionNotFound`."""

    @abstractmethod
    async def rewind(self, turn_id: str) -> None:
        """The history ends before that turn. `SessionNotFound`, `TurnNotFound`, `SessionBusy`."""

    @abstractmethod
    async def fork(self, session_id: str, turn_id: str) -> None:
        """A new session of the same user, with the past up to and with that turn.

        `SessionNotFound`, `TurnNotFound`, `SessionExists`, and `SessionBusy` when that turn still runs.
        """

    @abstractmethod
    async def restore(self, turns: Sequence[Turn], *, title: str, created_at: datetime) -> None:
        """Writes a whole session at once, as an import does. `SessionExists`."""

    @abstractmethod
    async def stop(self) -> bool:
        """Asks for the running turn to be stopped, wherever it runs. False when none runs. `SessionNotFound`."""

    @abstractmethod
    async def delete(self) -> None:
        """Forgets the session. `SessionNotFound`; `SessionBusy` while a turn runs."""

    # What LangChain's own RunnableWithMessageHistory calls.

    @override
    async def aget_messages(self) -> list[BaseMessage]:
        """All messages of all turns that a model may be shown, oldest first."""
        pages: list[list[Turn]] = []
        before: str | None = None
        while True:
            page = await self.turns(limit=500, before=before)
            pages.append(page.items)
            before = page.next
            if before is None:
                break
        kept = [turn for page in reversed(pages) for turn in page if turn.shown]
        return [message for turn in kept for message in (*turn.input, *turn.output)]

    @override
    async def aadd_messages(self, messages: Sequence[BaseMessage]) -> None:
        """Records the messages as one complete turn: what comes before the first reply is its input."""
        if not messages:
            return
        split = next((i for i, m in enumerate(messages) if m.type in ("ai", "AIMessageChunk")), len(messages))
        turn = await self.begin(NewTurn(input=messages[:split]))
        assert isinstance(turn, OpenTurn)  # noqa: S101 - only a given turn_id is answered from the record
        await turn.end(Reply(status=TurnStatus.COMPLETE, output=messages[split:]))

    @override
    async def aclear(self) -> None:
        """Forgets the session; one that is not there is no error."""
        try:
            await self.delete()
        except SessionNotFound:
            return

    @property
    def messages(self) -> list[BaseMessage]:  # type: ignore[override]  # LangChain declares an attribute
        """The blocking twin of `aget_messages`."""
        return run_blocking(self.aget_messages)

    @override
    def add_messages(self, messages: Sequence[BaseMessage]) -> None:
        """The blocking twin of `aadd_messages`."""
        run_blocking(lambda: self.aadd_messages(messages))

    @override
    def clear(self) -> None:
        """The blocking twin of `aclear`."""
        run_blocking(self.aclear)


class HistoryStore(ABC):
    """Where histories live. Every method is safe from any task, thread, process and machine that shares the store."""

    async def open(self) -> None:  # noqa: B027 - a store may need neither
        """Gets ready; a store that can't be reached is no error yet (see `ping`)."""

    async def close(self) -> None:  # noqa: B027
        """Lets go of connections and threads."""

    @abstractmethod
    async def ping(self) -> None:
        """Returns when the store can read and write; raises `StoreUnavailable` otherwise."""

    @abstractmethod
    def history(self, user_id: str, session_id: str) -> SessionHistory:
        """The history of one session. Binds without I/O; an unknown session is empty."""

    @abstractmethod
    async def sessions(
        self, user_id: str, *, limit: int = 50, cursor: str | None = None, query: str | None = None
    ) -> Page[Session]:
        """The user's sessions, newest first, only those in which `query` was said or titled. `InvalidCursor`."""

    @abstractmethod
    def users(self) -> AsyncIterator[str]:
        """All who have a session, each once, in no order; who comes meanwhile may be left out. No request needs this.

        Raises `HistoryDamaged`, after all the others, if the record of a session does not tell whose it is.
        """

    @abstractmethod
    async def forget(self, user_id: str) -> None:
        """Deletes all sessions of the user. `SessionBusy` when a turn runs: what could be deleted then is."""


def check_id(value: object, name: str = "session_id") -> str:
    """`value`, if it is a proper session_id or turn_id; raises `InvalidId` with a sentence that says what is one."""
    if not isinstance(value, str) or not 1 <= len(value) <= 128 or not _is_proper(value):
        raise InvalidId(
            f'Send {{"configurable": {{"{name}": "…"}}}} in the config: a string of 1 to 128 characters, '
            "without control characters, / or \\, and not only dots or spaces."
        )
    return value


def _is_proper(value: str) -> bool:
    if value.isascii() and value.isprintable():
        return "/" not in value and "\\" not in value and bool(value.strip(". "))
    if any(c in "/\\" or unicodedata.category(c) in ("Cc", "Cs") for c in value):
        return False
    return not all(c == "." or c.isspace() for c in value)


def now() -> datetime:
    """The time, aware, in UTC."""
    return datetime.now(UTC)


def title_of(messages: Sequence[BaseMessage]) -> str:
    """A session's title until it is renamed: the first words that a person said, at most 60 characters."""
    human = next((m for m in messages if isinstance(m, HumanMessage)), None)
    text = "" if human is None else text_of([human])[:400]
    words = " ".join("".join(c if c.isprintable() or c in _JOINERS else " " for c in text).split())
    if len(words) > 60:
        words = _whole_characters(words[:60].rsplit(" ", 1)[0], words) + "…"
    return words or "Untitled"


_JOINERS = frozenset("\u200c\u200d") | frozenset(map(chr, range(0xE0020, 0xE0080)))
"""They are not printable by themselves, and hold words of Persian and Hindi, families, and flags together."""


def _whole_characters(start: str, text: str) -> str:
    """The start of a text, without the half of a character that its end may be."""
    while start and (start[-1] in _JOINERS or text[len(start)] in _JOINERS or unicodedata.combining(text[len(start)])):
        start = start[:-1]
    return start

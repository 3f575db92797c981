"""What a history holds: turns and sessions, as every store gives them and takes them."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final, Generic, TypeVar

from langchain_core.messages import BaseMessage, HumanMessage
from typing_extensions import TypedDict

from histories.codec import is_plain, text_of
from histories.errors import InvalidId
from histories.unique import new_id
from histories.window import estimate_tokens

T = TypeVar("T")


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


class Failure(TypedDict):
    """Why a turn failed, as its client was told."""

    status_code: int
    message: str


class RecalledTurn(TypedDict):
    """An earlier exchange that a model was shown because it bore on the question. `at` is ISO 8601."""

    session_id: str
    turn_id: str
    at: str


class TurnDetails(TypedDict, total=False):
    """What is kept of a turn beside its messages: JSON, which every store writes down as it is.

    `value` is the chain's output where its messages alone can't give it again in its shape; `key` is where in a
    dictionary they stood. `reasoning` is what a model thought that is in no message. `events` tells in how many events
    it was said, `lengths` how much of its text the first of them brought (see `histories.journal`). `run_id` is the
    run's, by which LangSmith knows the turn.
    """

    finish_reason: str
    error: Failure
    sources: list[dict[str, Any]]
    value: Any
    key: str
    events: int
    lengths: list[int]
    recalled: list[RecalledTurn]
    reasoning: str
    run_id: str


class Feedback(TypedDict):
    """What the user thinks of a reply: -1, 0 or 1, and why."""

    score: int
    comment: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """How a turn ended. `tokens` is what its output adds to a window, `kind` the shape of the chain's output."""

    status: TurnStatus
    output: Sequence[BaseMessage] = ()
    usage: Usage | None = None
    tokens: int = 0
    kind: str = ""
    details: TurnDetails = field(default_factory=TurnDetails)

    @property
    def is_shown(self) -> bool:
        """Whether a model is shown the turn that ended so."""
        return is_shown(self.status, self.output)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTurn:
    """What a turn begins with. `tokens` is what its input adds to a window.

    `given` tells that the client chose the turn_id: only then is the record searched for it. `version_of` names the
    turn of the shown line in whose place this one is to stand, as another version of it.
    """

    input: Sequence[BaseMessage]
    chain: str = ""
    turn_id: str = field(default_factory=new_id)
    given: bool = False
    tokens: int = 0
    version_of: str | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """What was said in a session up to and with the turn `up_to`, which began `at` that time, in few words.

    `made_by` is the name of a model, or "user" when the user wrote it.
    """

    text: str
    up_to: str
    at: datetime
    made_at: datetime
    made_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One turn as the record has it. Times are aware, in UTC; `tokens` is what it adds to a window.

    `versions` are the turn_ids of all that stand at its place, oldest first, its own included; empty if it is alone.
    """

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
    details: TurnDetails = field(default_factory=TurnDetails)
    feedback: Feedback | None = None
    versions: Sequence[str] = ()

    @property
    def shown(self) -> bool:
        """Whether a model is shown this turn: it has a question and an answer, even if only the start of one."""
        return is_shown(self.status, self.output)

    def at_rest(self) -> Turn:
        """The turn as it is kept where nobody runs it: one that still runs is interrupted."""
        status = TurnStatus.INTERRUPTED if self.status is TurnStatus.RUNNING else self.status
        turn = replace(self, status=status, ended_at=self.ended_at or self.started_at)
        return replace(turn, tokens=turn.tokens if turn.shown else 0)


def is_shown(status: TurnStatus, output: Sequence[BaseMessage]) -> bool:
    """Whether a model is shown a turn that ended like this."""
    return status is TurnStatus.COMPLETE or (status is TurnStatus.INTERRUPTED and bool(output))


@dataclass(frozen=True, slots=True)
class TurnTree:
    """All turns of a session, in the order of their beginning, shown or not.

    `after` tells of each which one it follows, by its turn_id, `last` which is the last one shown; "" is none.
    """

    turns: Sequence[Turn]
    after: Sequence[str]
    last: str

    @staticmethod
    def of(turns: Sequence[Turn] | TurnTree) -> TurnTree:
        """A tree, or turns that follow each other as one; `InvalidId` if two of them have one turn_id."""
        ids = [turn.turn_id for turn in (turns.turns if isinstance(turns, TurnTree) else turns)]
        if len(set(ids)) < len(ids):
            raise InvalidId("Two of these turns have the same turn_id.")
        if isinstance(turns, TurnTree):
            return turns
        return TurnTree(turns, ["", *ids[:-1]][: len(ids)], ids[-1] if ids else "")

    @property
    def line(self) -> list[Turn]:
        """The shown line, oldest first."""
        places = {turn.turn_id: place for place, turn in enumerate(self.turns)}
        found, turn_id = list[Turn](), self.last
        while turn_id:
            place = places[turn_id]
            found.append(self.turns[place])
            turn_id = self.after[place]
        return found[::-1]

    def updated_at(self, created_at: datetime) -> datetime:
        """When a session that is written down at once was changed last: when its last turn ended."""
        return max([created_at, *(turn.ended_at or turn.started_at for turn in self.line[-1:])])


@dataclass(frozen=True, slots=True)
class ShownTurn:
    """A turn of the window: its messages, input first.

    They are the store's own, and not to be changed: who hands them to code that may do so hands it copies (`copied`).
    """

    turn_id: str
    messages: Sequence[BaseMessage]
    tokens: int = field(init=False, repr=False, compare=False)
    """The estimate of all of them."""

    is_plain: bool = field(init=False, repr=False, compare=False)
    """Whether they are texts alone, which need no mending to be shown."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "tokens", estimate_tokens(self.messages))
        object.__setattr__(self, "is_plain", all(map(is_plain, self.messages)))


@dataclass(frozen=True, slots=True)
class Event:
    """One piece of what a running turn says: its place in the order, from 0, and JSON in ASCII, on one line."""

    seq: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Hit:
    """Where a search found its words: the turn, and some of its text around them."""

    turn_id: str
    snippet: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One conversation, as a list of conversations shows it. `turns` counts the turns of the shown line.

    `running` is the turn_id of the turn that runs, told by `info` alone; `hits` is where a search found its words.
    """

    session_id: str
    title: str
    chain: str
    created_at: datetime
    updated_at: datetime
    turns: int
    running: str | None = None
    hits: Sequence[Hit] = ()


@dataclass(frozen=True, slots=True)
class Recalled:
    """A complete turn that a recall found, and how well it fits: the more the better."""

    session_id: str
    turn: Turn
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Something about a user that outlives sessions."""

    text: str
    created_at: datetime
    note_id: str = field(default_factory=new_id)


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some of a longer list, and the opaque cursor of what follows (None: nothing does)."""

    items: list[T]
    next: str | None = None


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
    """The time, aware, in UTC: later each time in a process, also when the clock is set back (by no more than 2 hours).

    So what was said last stays the last in every list, and on every record.
    """
    global _latest
    at = datetime.now(UTC)
    if timedelta() <= _latest - at < _SET_BACK:
        at = _latest + timedelta(microseconds=1)
    _latest = at
    return at


_SET_BACK: Final = timedelta(hours=2)
_latest = datetime(1970, 1, 1, tzinfo=UTC)


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

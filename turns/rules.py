"""How turns are run: what an operator may choose, and what a turn is told by those who start it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Literal, get_args

from histories.base import OpenTurn, Turn
from turns.outputs import Recorded
from turns.recall import Recall
from turns.shares import ShareRules

OnDisconnect = Literal["grace", "finish", "stop"]
"""What becomes of a turn that nobody listens to any more: it goes on for a while, to its end, or not at all."""

ON_DISCONNECT: Final = get_args(OnDisconnect)


class Stop(StrEnum):
    """Why a turn is stopped."""

    ASKED = "asked"
    LEFT = "left"
    SHUTDOWN = "shutdown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How turns are run. Times are in seconds; `wait_s` 0 refuses a busy session at once."""

    wait_s: float = 60.0
    limit_s: float = 600.0
    """How long a whole turn may take, from the moment its session is free; 0: any time."""

    window_tokens: int | None = None
    """How many tokens of the past a model is shown; None: what fits it."""

    recall: Recall = "session"
    """Where earlier exchanges are looked for that bear on a question."""

    on_disconnect: OnDisconnect = "grace"
    grace_s: float = 30.0
    """How long a turn goes on when nobody listens to it, with `grace`."""

    hash_users: bool = False
    """Whether traces show users by a hash of their name."""

    show_prompts: bool = False
    """Whether `stream_log` and `stream_events` show clients the system prompt."""

    shares: ShareRules = field(default_factory=ShareRules)
    max_batch: int = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a client is told of an error, and the word for it that stays on the record."""

    status_code: int
    message: str
    reason: str = "error"


Explain = Callable[[BaseException], Told]
"""Says what clients are told of an error that ended a turn."""


def plainly(error: BaseException) -> Told:
    """What to tell where nobody knows better."""
    return Told(status_code=502, message=str(error))


@dataclass(frozen=True, slots=True)
class Speech:
    """What a turn does: `generate` gives the output's chunks once it has begun, `replay` those of a turn on record.

    `record` says how an output is put on the record, and is told whether it was cut off.
    """

    generate: Callable[[OpenTurn], AsyncGenerator[Any, None]]
    replay: Callable[[Turn], AsyncGenerator[Any, None]]
    record: Callable[[Any, bool], Recorded]

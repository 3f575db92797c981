"""What an attack is: what it does, what it needs of the server, and what it may be told."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from tests.abuse.calls import Told
from tests.live_server import Live

Act = Callable[[Live, float], Awaitable[Told]]


async def _no_more(server: Live, scale: float) -> Told:
    return Told()


@dataclass(frozen=True)
class Attack:
    """One row. `act` is given the server and how much of it all is to be done, 1 for the whole."""

    act: Act
    told: frozenset[str]
    """What the offender may be told, and nothing else."""

    prepare: Act = _no_more
    """What is there before the attack begins, and before anybody measures."""

    settings: Mapping[str, str] = field(default_factory=dict)
    files: int | None = None
    """How many files the server may open."""

    beside: str = "chat"
    """The chain that the bystander asks."""

    listens: bool = False
    """The bystander asks for streams, and waits in line: its first token comes after two turns of others at most."""

    embedded: bool = False
    """On the embedded model."""

    @property
    def is_plain(self) -> bool:
        """Whether any server will do."""
        return not self.settings and self.files is None and not self.listens


ATTACKS: Final[dict[str, Attack]] = {}
"""All attacks, by the names of their functions, in the order in which they stand there."""

TURNS_ENDED: Final[list[float]] = []
"""When turns of the offender ended, by `time.monotonic()`, where the bystander counts them."""


def a_turn_ended() -> None:
    TURNS_ENDED.append(time.monotonic())


def attack(
    *told: str,
    prepare: Act = _no_more,
    settings: Mapping[str, str] | None = None,
    files: int | None = None,
    beside: str = "chat",
    listens: bool = False,
    embedded: bool = False,
) -> Callable[[Act], Act]:
    """Makes a function one of the attacks."""

    def add(act: Act) -> Act:
        ATTACKS[act.__name__] = Attack(act, frozenset(told), prepare, settings or {}, files, beside, listens, embedded)
        return act

    return add

"""How much of the logs is read at one go by who brings an index up to them."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

_REST_S: Final = 1.0
"""A thread that rests is one that others may wait for, as at the end of a store: it does so no longer."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How much is read at one go: until when (of `time.monotonic`), and of which logs.

    A log with more than `most` new bytes is left out. After each session `rest` times as long as it took nothing is
    done: the interpreter is others' meanwhile.
    """

    until: float = math.inf
    most: float = math.inf
    rest: float = 0.0

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self.until

    @contextmanager
    def step(self) -> Iterator[None]:
        """Some of the work, and the rest after it."""
        started = time.monotonic()
        yield
        if self.rest:
            time.sleep(min(_REST_S, self.rest * (time.monotonic() - started)))


ALL: Final = Pace()
"""All that there is, however long it takes."""

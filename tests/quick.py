"""What must be quick is so at one of several tries: others' work takes a machine away for a second now and then."""

from __future__ import annotations

import time
from collections.abc import Iterator
from math import inf

import pytest

TRIES = 5


class Try:
    """Measures how long its block takes, in seconds; a test that measures by itself sets `took`."""

    took = inf

    def __enter__(self) -> None:
        self._began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self.took = time.monotonic() - self._began


def tries(seconds: float) -> Iterator[Try]:
    """As many as it takes until one took less than so many seconds: usually a single one. Fails when none did."""
    took = list[float]()
    for _ in range(TRIES):
        one = Try()
        yield one
        took.append(one.took)
        if one.took < seconds:
            return
    pytest.fail(f"never within {seconds} s: {took}")

"""A bound on the time of work that can't be stopped from outside: the work itself asks whether it is spent."""

from __future__ import annotations

from time import monotonic


class TooSlow(Exception):
    """The time for this work is spent."""


class Budget:
    """Some seconds, from now on."""

    def __init__(self, seconds: float) -> None:
        self._end = monotonic() + seconds

    @property
    def spent(self) -> bool:
        return monotonic() > self._end

    def check(self) -> None:
        """Raises TooSlow once the time is spent."""
        if self.spent:
            raise TooSlow

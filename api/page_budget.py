"""A bound on the time of work that can't be stopped from outside: the work itself asks whether it is spent."""

from __future__ import annotations

from time import thread_time


class TooSlow(Exception):
    """The time for this work is spent."""


class Budget:
    """Some seconds of the processor, for the thread that asks for them: others' work is not held against it."""

    def __init__(self, seconds: float) -> None:
        self._end = thread_time() + seconds

    def part(self, seconds: float) -> Budget:
        """So many seconds of what is left."""
        part = Budget(seconds)
        part._end = min(part._end, self._end)
        return part

    @property
    def spent(self) -> bool:
        return thread_time() > self._end

    def check(self) -> None:
        """Raises TooSlow once the time is spent."""
        if self.spent:
            raise TooSlow

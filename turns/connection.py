"""On behalf of whom a chain is called: a client's connection, which may end before its turns do."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar


class Connection:
    """A client's connection, which may end before its turns do."""

    def __init__(self) -> None:
        self._watchers: set[Callable[[], None]] = set()
        self.lost = False

    def watch(self, left: Callable[[], None]) -> None:
        """`left` is called when the client is gone, at once if it is gone already."""
        if self.lost:
            left()
        else:
            self._watchers.add(left)

    def unwatch(self, left: Callable[[], None]) -> None:
        self._watchers.discard(left)

    def lose(self) -> None:
        """The client is gone, or has been answered."""
        self.lost = True
        while self._watchers:
            self._watchers.pop()()


connection: ContextVar[Connection | None] = ContextVar("connection", default=None)
"""The connection on behalf of which a chain is called; None outside of a server."""

"""Who goes next: so many at once, so many of one user, and in turn between the users who wait and have least."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Line(Generic[T]):
    """What waits, and how much of it is under way. It only counts: whoever calls it guards it, and starts what may."""

    def __init__(self, at_once: int, each: int) -> None:
        self.at_once, self.each = at_once, each
        self.under_way = 0
        self._of: Counter[str] = Counter()
        self._waiting: dict[str, deque[T]] = {}  # users in the order of their turns, those alone who may go next

    def takes_at_once(self, user: str) -> bool:
        """Whether nobody waits and there is room for one of the user, which counts as under way from here on."""
        free = not self._waiting and self.under_way < self.at_once and self._of.get(user, 0) < self.each
        if free:
            self._of[user] += 1
            self.under_way += 1
        return free

    def enter(self, user: str, item: T) -> None:
        """The item waits, behind the others of the same user."""
        self._waiting.setdefault(user, deque()).append(item)

    def withdraw(self, user: str, item: T) -> None:
        """The item waits no longer; one that does not wait is no error."""
        items = self._waiting.get(user)
        if items is not None and item in items:
            items.remove(item)
            if not items:
                del self._waiting[user]

    def next(self) -> Iterator[T]:
        """All that may go now: of who has least under way, and one of each user before a second one of any.

        They count as under way from here on.
        """
        while self.under_way < self.at_once:
            user = self._next_user()
            if user is None:
                return
            items = self._waiting.pop(user)
            item = items.popleft()
            if items:
                self._waiting[user] = items  # behind all others
            self._of[user] += 1
            self.under_way += 1
            yield item

    def _next_user(self) -> str | None:
        """Who has waited longest of those who have least under way: who has a place already is not before others."""
        next_one, least = None, self.each
        for user in self._waiting:
            count = self._of.get(user, 0)
            if not count:
                return user
            if count < least:
                next_one, least = user, count
        return next_one

    def done(self, user: str) -> None:
        """One of the user's is over."""
        self.under_way -= 1
        self._of[user] -= 1
        if not self._of[user]:
            del self._of[user]

    def waiting(self, user: str) -> int:
        return len(self._waiting.get(user, ()))

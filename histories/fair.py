"""Who goes next where a store does a few things at a time: one of each user before a second one of any.

Hundreds of turns that one user begins in a moment are many milliseconds of work for a disk or a database, each of them
short. Done in the order in which they came, everybody else's next turn would stand behind all of them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """What waits, of each user in its order. Whoever calls it guards it."""

    def __init__(self) -> None:
        self._of: dict[str, deque[T]] = {}  # users in the order of their turns, those alone who have something here
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def put(self, user: str, item: T) -> None:
        """The item waits, behind the others of the same user."""
        items = self._of.get(user)
        if items is None:
            self._of[user] = deque((item,))
        else:
            items.append(item)
        self._size += 1

    def take(self) -> T:
        """The next one. There must be one."""
        user = next(iter(self._of))
        items = self._of.pop(user)
        item = items.popleft()
        if items:
            self._of[user] = items  # behind all others
        self._size -= 1
        return item


Place = asyncio.Future[None]


class FairSlots:
    """So many may be at it at once; the others wait, in turn between users. For one event loop."""

    def __init__(self, at_once: int) -> None:
        self._free = at_once
        self._waiting: FairQueue[Place] = FairQueue()

    def take_at_once(self) -> bool:
        """Whether there was a slot, which is the caller's now. Where somebody waits, none is free."""
        if self._free <= 0:
            return False
        self._free -= 1
        return True

    def ask(self, user: str) -> Place:
        """A place in line: done when its slot is the caller's. Who no longer waits for it must `give_up`."""
        place: Place = asyncio.get_running_loop().create_future()
        if self.take_at_once():
            place.set_result(None)
        else:
            self._waiting.put(user, place)
        return place

    def give_up(self, place: Place) -> None:
        """Nobody waits there any longer, or wants the slot that it came to."""
        if not place.cancel() and not place.cancelled():
            self.release()

    async def take(self, user: str) -> None:
        """Returns when a slot is the caller's, who must `release` it."""
        if self.take_at_once():
            return
        place = self.ask(user)
        try:
            await place
        except BaseException:
            self.give_up(place)
            raise

    def release(self) -> None:
        """Gives the slot to who is next."""
        while self._waiting:
            place = self._waiting.take()
            if not place.done():
                place.set_result(None)
                return
        self._free += 1

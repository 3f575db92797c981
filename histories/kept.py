"""How much of a user's is kept, for whoever bounds it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from histories.model import Page, Session

_PAGE: Final = 500


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept of a user: sessions, the turns of their shown lines, and about how many bytes all of it takes."""

    sessions: int
    turns: int
    size: int


class Counted(ABC):
    """The part of a store that tells how much it keeps."""

    async def kept(self, user_id: str) -> Kept:
        """How much of the user's is kept now. It looks at each session's entry: no turn needs this.

        Raises: `StoreUnavailable`.
        """
        turns = [session.turns async for session in self.all_sessions(user_id)]
        return Kept(len(turns), sum(turns), await self.bytes_kept(user_id))

    async def all_sessions(self, user_id: str) -> AsyncIterator[Session]:
        """The user's sessions, newest first, as they are listed page by page. Raises: `StoreUnavailable`."""
        cursor: str | None = None
        while True:
            page = await self.sessions(user_id, limit=_PAGE, cursor=cursor)
            for session in page.items:
                yield session
            if page.next is None:
                return
            cursor = page.next

    @abstractmethod
    async def sessions(
        self, user_id: str, *, limit: int = 50, cursor: str | None = None, query: str | None = None
    ) -> Page[Session]:
        """See `HistoryStore`."""

    @abstractmethod
    async def bytes_kept(self, user_id: str, session_id: str | None = None) -> int:
        """About how many bytes a session takes, or all of the user's; 0 for what is not there. `StoreUnavailable`."""

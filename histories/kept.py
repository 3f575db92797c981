"""How much of a user's is kept, for whoever bounds it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from histories.model import Page, Session


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
        sessions = turns = 0
        cursor: str | None = None
        while True:
            page = await self.sessions(user_id, limit=500, cursor=cursor)
            sessions += len(page.items)
            turns += sum(session.turns for session in page.items)
            cursor = page.next
            if cursor is None:
                return Kept(sessions, turns, await self.bytes_kept(user_id))

    @abstractmethod
    async def sessions(
        self, user_id: str, *, limit: int = 50, cursor: str | None = None, query: str | None = None
    ) -> Page[Session]:
        """See `HistoryStore`."""

    @abstractmethod
    async def bytes_kept(self, user_id: str, session_id: str | None = None) -> int:
        """About how many bytes a session takes, or all of the user's; 0 for what is not there. `StoreUnavailable`."""

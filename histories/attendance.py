"""Whether somebody listens to a running turn, told from process to process: so that it is not given up."""

from __future__ import annotations

from abc import ABC, abstractmethod

from histories.gate import Attempt, Gate


class Attended(ABC):
    """The part of a session's history that tells who runs a turn that others listen to it."""

    gate: Gate
    key: str

    async def attend(self, turn_id: str) -> None:
        """Tells the process that runs the turn that somebody listens to it: for ATTENDED_S seconds from now.

        * Any number may say so, of one process and of many; who listens on says it again in time.
        * Of a turn that does not run nothing is said, which is no error.

        Raises: `StoreUnavailable`.
        """
        if not self.gate.attend(self.key, turn_id):
            await self._attend(turn_id)

    async def is_attended(self, turn_id: str) -> bool:
        """Whether that turn runs in this process, and somebody has said, here or elsewhere, that it is listened to.

        For who is about to give a turn up: nobody else asks. Raises: `StoreUnavailable`.
        """
        attempt = self.gate.running.get(self.key)
        if attempt is None or attempt.new.turn_id != turn_id:
            return False
        return self.gate.is_attended(self.key) or await self._is_attended(attempt)

    @abstractmethod
    async def _attend(self, turn_id: str) -> None:
        """Leaves word for another process that runs the turn, if one does."""

    @abstractmethod
    async def _is_attended(self, attempt: Attempt) -> bool:
        """Whether another process has left word for this attempt, which runs here."""

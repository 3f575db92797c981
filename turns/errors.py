"""What keeps a turn from being answered."""

from __future__ import annotations


class ChainError(Exception):
    """What keeps a chain from answering. The message is for the client; the cause, if any, is for the log."""


class InvalidInput(ChainError, ValueError):
    """The input is not what this chain takes."""


class ChainFailed(ChainError):
    """The chain, or the model behind it, raised: `__cause__` says what."""


class TurnTooLong(ChainError):
    """The turn took longer than it may."""


class MessageTooLong(ChainError):
    """The new message alone is more than the model can read at once."""


class WrongChain(ChainError):
    """A turn of the given turn_id was answered by another chain."""


class TurnStopped(ChainError):
    """Somebody stopped the turn before it had said anything that this caller could be given."""


class ShuttingDown(ChainError):
    """The server is stopping."""


class RecordedFailure(ChainError):
    """The turn had failed before it was asked about: with this status, as its own client was told."""

    def __init__(self, status_code: int, message: str) -> None:
        super().__init__(message)
        self.status_code = status_code


class BegunAnew(ChainError):
    """The turn that was followed has ended, and another try of the same name has taken its place."""

    def __init__(self) -> None:
        super().__init__("This turn was begun anew meanwhile: follow it from its beginning.")


class OwnerDied(ChainError):
    """The server that ran the turn died in the midst of it."""

"""Why a turn failed, in one word: what an operator looks for in the log, and what metrics count."""

from __future__ import annotations

import httpx2
import openai

from histories.base import (
    HistoryDamaged,
    HistoryMoved,
    InvalidId,
    SessionBusy,
    SessionNotFound,
    StoreFull,
    StoreUnavailable,
    TurnNotFound,
)
from turns.errors import ChainFailed, InvalidInput, ShuttingDown, TurnStopped, TurnTooLong, WrongChain
from turns.shares import LineFull, OverBudget

_OF_TURNS: dict[type[BaseException], str] = {
    TurnTooLong: "turn_too_long",
    WrongChain: "input",
    LineFull: "too_many",
    OverBudget: "over_budget",
    TurnStopped: "stopped",
    ShuttingDown: "shutdown",
    InvalidInput: "input",
    InvalidId: "input",
    SessionBusy: "session_busy",
    StoreFull: "disk_full",
    HistoryMoved: "history_moved",
    SessionNotFound: "input",
    TurnNotFound: "input",
    HistoryDamaged: "history_damaged",
    StoreUnavailable: "store_unavailable",
}
_OF_MODELS: dict[type[BaseException], str] = {
    openai.APITimeoutError: "model_silent",
    openai.RateLimitError: "model_quota",
    openai.AuthenticationError: "model_credentials",
    openai.PermissionDeniedError: "model_credentials",
    openai.NotFoundError: "model_unknown",
    openai.BadRequestError: "model_refused",
    openai.APIConnectionError: "model_unreachable",
    httpx2.TransportError: "model_unreachable",
    ConnectionError: "model_unreachable",
    openai.APIError: "model_failed",
}
REASONS = frozenset(_OF_TURNS.values()) | frozenset(_OF_MODELS.values()) | {"chain", "server"}


def reason_of(error: BaseException) -> str:
    """The reason of an error with which a turn ended."""
    if isinstance(error, ChainFailed):
        cause = error.__cause__
        return "chain" if cause is None else _first(_OF_MODELS, cause, "chain")
    return _first(_OF_TURNS, error, "server")


def _first(reasons: dict[type[BaseException], str], error: BaseException, otherwise: str) -> str:
    return next((reasons[kind] for kind in type(error).__mro__ if kind in reasons), otherwise)

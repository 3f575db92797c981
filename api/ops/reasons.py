"""Why a turn failed, in one word: what an operator looks for in the log, and what metrics count."""

from __future__ import annotations

from api.model_errors import names_of
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
from turns.shares import LineFull, OverBudget, OverQuota

_OF_TURNS: dict[type[BaseException], str] = {
    TurnTooLong: "turn_too_long",
    WrongChain: "input",
    LineFull: "too_many",
    OverBudget: "over_budget",
    OverQuota: "over_quota",
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
_OF_MODELS: dict[str, str] = {
    "openai.APITimeoutError": "model_silent",
    "openai.RateLimitError": "model_quota",
    "openai.AuthenticationError": "model_credentials",
    "openai.PermissionDeniedError": "model_credentials",
    "openai.NotFoundError": "model_unknown",
    "openai.BadRequestError": "model_refused",
    "openai.APIConnectionError": "model_unreachable",
    "httpx2.TransportError": "model_unreachable",
    "builtins.ConnectionError": "model_unreachable",
    "openai.APIError": "model_failed",
}
REASONS = frozenset(_OF_TURNS.values()) | frozenset(_OF_MODELS.values()) | {"chain", "server"}


def reason_of(error: BaseException) -> str:
    """The reason of an error with which a turn ended."""
    if isinstance(error, ChainFailed):
        cause = error.__cause__
        return next((_OF_MODELS[name] for name in names_of(cause) if name in _OF_MODELS), "chain")
    return next((_OF_TURNS[kind] for kind in type(error).__mro__ if kind in _OF_TURNS), "server")

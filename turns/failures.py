"""What an operator's log is told of a chain that failed: the cause and where, and no secrets."""

from __future__ import annotations

import hashlib
import json
import re
from traceback import walk_tb
from types import TracebackType
from typing import Any, Final

_SECRETS: Final = re.compile(
    r"(?i)\b(?:(?:sk|rk|pk|key|token|secret|bearer|basic|password|api[-_]?key)[-_ =:\"']{1,4}[\w*./+~-]{6,})|(?<=://)[^/\s@]+@"
)
"""What vendors repeat of a key in their answers, and passwords in URLs."""

_LONGEST: Final = 2000


def hashed(*parts: str) -> str:
    """A short name for a session or a user that the log may hold: always the same, and not to be read back."""
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:12]


def summary(error: BaseException) -> str:
    """An error in one line: its class, and what it says, without secrets."""
    try:
        said = " ".join(str(error).split())
        body = getattr(error, "body", None)  # what a model's server answered
        said += f" {body}" if isinstance(body, dict) and str(body) not in said else ""
    except Exception:  # noqa: BLE001 - an exception of others, whose text may be code
        said = ""
    return _SECRETS.sub("…", f"{type(error).__name__}: {said}" if said else type(error).__name__)[:_LONGEST]


_CLIENTS: Final = frozenset(
    {"anthropic", "chat_models", "cohere", "google", "groq", "httpx", "httpx2", "mistralai", "ollama", "openai"}
)
"""Top-level modules that talk to models' servers, beside LangChain's packages for a vendor each."""

_NO_CLIENTS: Final = frozenset({"langchain_core", "langchain_classic", "langchain_community"})


def is_of_a_model(error: BaseException) -> bool:
    """Whether a model's server failed, and not the chain: its client raised, when a chat model called it."""
    modules = {str(frame.f_globals.get("__name__", "")) for frame, _ in walk_tb(error.__traceback__)}
    if not any(name.startswith("langchain_core.language_models") for name in modules):
        return False
    packages = {name.partition(".")[0] for name in (*modules, *(kind.__module__ for kind in type(error).__mro__))}
    return bool(packages & _CLIENTS or {name for name in packages if name.startswith("langchain_")} - _NO_CLIENTS)


class Cause(Exception):
    """Stands for an error in a logged traceback, with its text as it may be logged."""


def without_secrets(error: BaseException) -> tuple[type[BaseException], BaseException, TracebackType | None]:
    """An error's traceback for a log, down to where it was raised; its text is `summary`'s."""
    return Cause, Cause(summary(error)), error.__traceback__


_TOO_LONG: Final = re.compile(
    r"context_length_exceeded|exceed_context_size|context (length|window|size)|maximum (context|model) length"
    r"|too many (input )?tokens|prompt is too long|input is too long"
)


def said_by(error: BaseException | None) -> str:
    """What a model's server said of its refusal, as text to search in."""
    body = getattr(error, "body", None)
    try:
        text = json.dumps(body) if isinstance(body, (dict, list)) else str(body or "")
    except (TypeError, ValueError):
        text = ""
    return f"{getattr(error, 'code', '')} {text} {error}".lower()[:20_000]


def is_too_long(error: Any) -> bool:
    """Whether a model's server refused a prompt because the model can't read so much at once."""
    status = getattr(error, "status_code", None)
    if not isinstance(status, int) or not hasattr(error, "response"):
        return False
    return status == 413 or (400 <= status < 500 and _TOO_LONG.search(said_by(error)) is not None)


def innermost(error: BaseException) -> BaseException:
    """The error itself, out of the groups that task groups put it in."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error

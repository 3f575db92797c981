"""What an operator's log is told of a chain that failed: the cause and where, and no secrets."""

from __future__ import annotations

import hashlib
import json
import re
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
    return without_secrets(f"{type(error).__name__}: {said}" if said else type(error).__name__)[:_LONGEST]


def without_secrets(text: str) -> str:
    """What an exception says, without what vendors repeat of a key, and without passwords."""
    return _SECRETS.sub("…", text)


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

"""What a client is told when a chain failed, or the model behind it.

Three kinds of exceptions come out of chains. The author's own, which say a status on purpose, keep it. Those of a
model's client (OpenAI's, Anthropic's, …) tell of a server that the caller knows nothing of: their meaning is said in
our words. All others are mistakes: 502, and the log has the rest.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import httpx2
from starlette.exceptions import HTTPException

from api.model_errors import is_one
from api.problems import Problem, with_retry
from histories.base import jsonable
from turns.errors import ChainFailed
from turns.failures import innermost, is_too_long, said_by, summary

_KEPT: Final = frozenset({429, 503, 529})
"""Statuses of a model's server that mean the same to the caller: come again later."""

_NO_CREDIT: Final = re.compile(
    r"insufficient_quota|insufficient.{0,20}(credit|balance|fund|quota)|billing|credit balance"
)
_FILTERED: Final = re.compile(
    r"content_filter|content management policy|content[ _]policy|responsible.?ai|safety (system|policy)"
)

_LONGEST_WAIT_S: Final = 86_400


def problem_of_chain(error: ChainFailed, *, debug: bool = False) -> Problem:
    """What to tell of a chain that failed. With `debug`, its cause too, for the author of the chain."""
    cause = None if error.__cause__ is None else innermost(error.__cause__)
    problem = _problem(cause, str(error))
    is_told = isinstance(cause, HTTPException) and cause.status_code == problem.status
    if debug and cause is not None and not is_told:
        return Problem(problem.status, f"{problem.message} ({summary(cause)})", problem.headers)
    return problem


def is_lost_connection(cause: BaseException | None) -> bool:
    """Whether the model's server could not be heard, or not to its end."""
    return isinstance(cause, (httpx2.TransportError, ConnectionError)) or is_one(cause, "openai.APIConnectionError")


def _problem(cause: BaseException | None, usual: str) -> Problem:
    if isinstance(cause, httpx2.ReadTimeout) or is_one(cause, "openai.APITimeoutError"):
        return with_retry(503, f"The model said nothing for {_silence(cause)}: try again.")
    if isinstance(cause, httpx2.RemoteProtocolError):
        return with_retry(503, "The model broke off before its reply was complete: try again.")
    if is_lost_connection(cause):
        return with_retry(503, "The model can't be reached: try again.")
    status = getattr(cause, "status_code", None)
    if not isinstance(status, int):
        return Problem(502, usual)
    if not hasattr(cause, "response"):
        return _authors(cause, status, usual)
    return _servers(cause, status, usual)


def _silence(cause: Any) -> str:
    """How long it was waited for."""
    try:
        seconds = cause.request.extensions["timeout"]["read"]
    except (LookupError, RuntimeError, AttributeError):
        return "too long"
    return f"{seconds:g} seconds" if isinstance(seconds, (int, float)) else "too long"


def _authors(cause: BaseException | None, status: int, usual: str) -> Problem:
    """An exception of the chain's author that has a status: it is kept, and so are a `detail` and its headers."""
    if not (400 <= status < 500 or status in _KEPT):
        return Problem(502, usual)  # a turn that failed is no success either: 2xx and 3xx are not passed on
    detail = getattr(cause, "detail", None)
    message = (
        jsonable(detail)
        if isinstance(detail, (str, dict, list))
        else _SENTENCES.get(status, "The chain refused this request.")
    )
    headers = getattr(cause, "headers", None) or {}
    problem = with_retry(int(status), message, retry_after(headers))
    return Problem(problem.status, problem.message, {**_headers_of(cause), **problem.headers})


def _headers_of(cause: BaseException | None) -> dict[str, str]:
    """Those that FastAPI's exception brings, as far as a response can have them."""
    told = cause.headers if isinstance(cause, HTTPException) else None
    if not isinstance(told, Mapping):
        return {}
    headers = {str(name).lower(): str(value) for name, value in told.items()}
    return {name: value for name, value in headers.items() if _HEADER.fullmatch(f"{name}: {value}")}


_HEADER: Final = re.compile(
    r"(?!(?:content-length|content-type|content-encoding|transfer-encoding|connection|retry-after):)"
    r"[!#$%&'*+.^_`|~0-9a-z-]+: [\t -~\xa0-\xff]*"
)
"""A header that is whole, and says nothing of the body, which is ours."""


_SENTENCES: Final = {
    404: "The chain found nothing of this name.",
    429: "The model has too much to do: try again later.",
    503: "The model can't be reached: try again.",
    529: "The model is overloaded: try again later.",
}


def _servers(cause: Any, status: int, usual: str) -> Problem:
    """What a model's server refused with."""
    said = said_by(cause)
    if status == 402 or (status in (400, 403, 429) and _NO_CREDIT.search(said)):
        return Problem(
            502, "The account that this server has with its model is out of credit: its operator has to act."
        )
    if _FILTERED.search(said) and 400 <= status < 500:
        return Problem(422, "The model's content filter refused this: put it in other words.")
    if is_too_long(cause):
        return Problem(422, "This is longer than the model can read at once: send less, or start a new session.")
    if status in _KEPT:
        return with_retry(status, _SENTENCES[status], retry_after(getattr(cause.response, "headers", {})))
    if status == 504:
        return with_retry(503, _SENTENCES[503])
    if status in (401, 403):
        return Problem(502, "The model does not accept this server's credentials: its operator has to mend that.")
    if status == 404:
        return Problem(502, "There is no such model where this server asks: its operator has to mend that.")
    if status in (400, 422):
        return Problem(502, "The model refused this request: it may be too long, or of a kind that it does not take.")
    return Problem(502, usual)


def retry_after(headers: Mapping[str, str]) -> str | None:
    """How long to wait, in whole seconds, from any form that servers say it in: seconds, a date, milliseconds."""
    try:
        if (milliseconds := headers.get("retry-after-ms")) is not None:
            return _whole(float(milliseconds) / 1000)
        told = headers.get("retry-after") or headers.get("Retry-After")
        if told is None:
            return None
        try:
            return _whole(float(told))
        except ValueError:
            return _whole((parsedate_to_datetime(told) - datetime.now(UTC)).total_seconds())
    except (AttributeError, TypeError, ValueError, OverflowError):
        return None


def _whole(seconds: float) -> str | None:
    return str(math.ceil(seconds)) if 0 <= seconds <= _LONGEST_WAIT_S else None

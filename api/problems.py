"""What a client is told of something that went wrong: a status, a sentence, and headers."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from starlette.responses import Response

from turns.shares import OverBudget

RETRY_AFTER_S = {429: "10", 503: "5", 507: "60", 529: "10"}


@dataclass(frozen=True, slots=True)
class Problem:
    """What a client is told."""

    status: int
    message: Any
    headers: dict[str, str] = field(default_factory=dict)

    def response(self) -> Response:
        return json_response({"detail": self.message}, self.status, self.headers)

    def event(self) -> bytes:
        data = json.dumps({"status_code": self.status, "message": self.message})
        return f"event: error\r\ndata: {data}\r\n\r\n".encode("ascii")


def json_response(content: Any, status: int, headers: dict[str, str] | None = None) -> Response:
    """JSON in ASCII: whatever a client sent, lone surrogates too, can be repeated to it."""
    return Response(json.dumps(content), status, headers, media_type="application/json")


def with_retry(status: int, message: Any, after: str | None = None) -> Problem:
    """A problem with its `Retry-After`: what the other side said, else what is usual for the status."""
    seconds = after or RETRY_AFTER_S.get(status)
    return Problem(status, message, {"Retry-After": seconds} if seconds else {})


def rate_limit(of: int, left: int, resets_in_s: int) -> dict[str, str]:
    """The headers that tell of a limit: how much there is of it, how much is left, and for how many seconds."""
    return {"RateLimit-Limit": str(of), "RateLimit-Remaining": str(left), "RateLimit-Reset": str(resets_in_s)}


def over_budget(error: OverBudget) -> Problem:
    """What is told to who has used up what there is for a time."""
    after = error.retry_after_s
    return Problem(429, str(error), {"Retry-After": str(after), **rate_limit(error.of, 0, after)})

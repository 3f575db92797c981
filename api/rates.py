"""How much a user may ask for, and how often an address may try to sign in: the same over all who share a storage."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NotRequired, cast

from limits import RateLimitItem, RateLimitItemPerDay, RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage, Storage
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from typing_extensions import TypedDict

from api.counters import Counting, FileCounters, StoreCounters
from api.problems import over_budget, rate_limit
from auth.refusals import Refusal
from turns.shares import OverBudget

log = logging.getLogger("recollect.rates")

_RESERVED_TOKENS: Final = 1000
"""What a turn is taken to cost, besides its question, until it is known: so turns at once can't all use the rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RateRules:
    """0: not limited."""

    requests_per_minute: int = 0
    tokens_per_day: int = 0
    copies_per_minute: int = 0
    copied_bytes_per_minute: int = 0
    sign_ins_per_minute: int = 0


class Left(TypedDict):
    """How much of a limit is left, and for how many seconds from now on it counts, if it is one of a rate."""

    limit: str
    of: int
    left: int
    resets_in_s: NotRequired[int]


def open_counters(history_url: str, data_dir: Path, store: object) -> Storage:
    """Where counts are: where histories are."""
    if history_url.startswith(("postgresql:", "redis:", "rediss:")):
        return StoreCounters(cast(Counting, store))
    return FileCounters(data_dir / "rates.sqlite") if history_url.startswith("file:") else MemoryStorage()


class Rates:
    """The limits of one server."""

    def __init__(self, rules: RateRules, storage: Storage) -> None:
        self._storage = storage
        self._requests = _item(RateLimitItemPerMinute, rules.requests_per_minute, "requests")
        self._tokens = _item(RateLimitItemPerDay, rules.tokens_per_day, "tokens")
        self._copies = _item(RateLimitItemPerMinute, rules.copies_per_minute, "copies")
        self._copied_bytes = _item(RateLimitItemPerMinute, rules.copied_bytes_per_minute, "copied-bytes")
        self._sign_ins = _item(RateLimitItemPerMinute, rules.sign_ins_per_minute, "sign-ins")

    @property
    def limits_requests(self) -> bool:
        return self._requests is not None

    def close(self) -> None:
        """Lets go of the storage's file, if it has one."""
        if isinstance(self._storage, FileCounters):
            self._storage.close()

    async def request(self, user: str) -> Left | None:
        """Counts a request. Raises `OverBudget`."""
        item = self._requests
        if item is None:
            return None
        spent = await self._spend(item, user, "You have sent too many requests: try again later.")
        left, resets_in_s = max(0, item.amount - spent), await self._resets_in_s(item, user)
        return Left(limit="requests a minute", of=item.amount, left=left, resets_in_s=resets_in_s)

    async def copy(self, user: str, size: int = 0) -> None:
        """Counts an import or a fork, of so many bytes. Raises `OverBudget`."""
        refusal = "You have made too many forks and imports: try again later."
        if self._copies is not None:
            await self._spend(self._copies, user, refusal)
        if self._copied_bytes is not None:
            await self._spend(self._copied_bytes, user, refusal, size)

    @property
    def limits_copied_bytes(self) -> bool:
        return self._copied_bytes is not None

    async def failed_sign_in(self, address: str) -> None:
        """Counts a credential that was wrong. Raises `Refusal` (429)."""
        if self._sign_ins is None:
            return
        try:
            await self._spend(self._sign_ins, address, "There were too many wrong credentials: try again later.")
        except OverBudget as refused:
            raise Refusal(429, str(refused), refused.retry_after_s) from None

    async def _spend(self, item: RateLimitItem, who: str, refusal: str, amount: int = 1) -> int:
        """How much is spent now. What begins within the limit may go beyond it, and is the last."""
        spent = await self._add(item, who, amount)
        if spent - amount >= item.amount:
            if amount > 1:
                await self._add(item, who, -amount)
            raise OverBudget(refusal, await self._resets_in_s(item, who), item.amount)
        return spent

    @property
    def _errors(self) -> tuple[type[Exception], ...]:
        errors = self._storage.base_exceptions
        return (OSError, *(errors if isinstance(errors, tuple) else (errors,)))

    @asynccontextmanager
    async def turn(self, user: str, tokens: int, used: Callable[[], int]) -> AsyncIterator[None]:
        """The tokens of a turn: some are reserved before it, and set right after it. Raises `OverBudget`."""
        item = self._tokens
        if item is None:
            yield
            return
        reserved = tokens + _RESERVED_TOKENS
        if await self._add(item, user, reserved) - reserved >= item.amount:
            await self._add(item, user, -reserved)
            raise OverBudget("Your tokens of today are used up.", await self._resets_in_s(item, user), item.amount)
        try:
            yield
        finally:
            await self._add(item, user, used() - reserved)

    async def _add(self, item: RateLimitItem, user: str, amount: int) -> int:
        try:
            return await self._storage.incr(item.key_for(user), item.get_expiry(), amount=amount)
        except self._errors as error:
            log.warning("rates can't be counted: %s", type(error).__name__)  # a limit is no reason to stop serving
            return 0

    async def left(self, user: str) -> list[Left]:
        """What is left of the user's limits."""
        named = {"requests a minute": self._requests, "tokens a day": self._tokens}
        return [await self._left(name, item, user) for name, item in named.items() if item is not None]

    async def _left(self, name: str, item: RateLimitItem, user: str) -> Left:
        left = max(0, item.amount - await self._storage.get(item.key_for(user)))
        return Left(limit=name, of=item.amount, left=left, resets_in_s=await self._resets_in_s(item, user))

    async def _resets_in_s(self, item: RateLimitItem, who: str) -> int:
        try:
            return max(1, math.ceil(await self._storage.get_expiry(item.key_for(who)) - time.time()))
        except self._errors:
            return item.get_expiry()


def _item(kind: type[RateLimitItem], amount: int, namespace: str) -> RateLimitItem | None:
    return kind(amount, namespace=namespace) if amount else None


class RequestRate:
    """The middleware behind the sign-in that counts each user's requests, and tells them of it in each answer."""

    def __init__(self, app: ASGIApp, rates: Rates) -> None:
        self.app, self._rates = app, rates

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        user = scope.get("state", {}).get("user_id") if scope["type"] == "http" else None
        if user is None:
            await self.app(scope, receive, send)
            return
        try:
            left = await self._rates.request(user)
        except OverBudget as refused:
            await over_budget(refused).response()(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start" and left is not None:
                headers = MutableHeaders(scope=message)
                if "RateLimit-Limit" not in headers:  # a limit that was reached is told of by who refuses
                    headers.update(rate_limit(left["of"], left["left"], left.get("resets_in_s", 0)))
            await send(message)

        await self.app(scope, receive, send_with_headers)

"""A fair share for everybody: how many turns run at once, of one user and in all, and how many may wait."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from typing_extensions import override

from turns.line import Line

working_for: ContextVar[str] = ContextVar("working_for", default="")
"""Whose work this is; nobody's is the server's own."""


class LineFull(Exception):
    """There is so much of this user's, or in all, that nothing more is taken. Asked again later, it may be."""


class OverQuota(Exception):
    """The user keeps as much as the user may: something has to be deleted before there is room."""


Admit = Callable[[str, str], Awaitable[None]]
"""Asked before a turn of a user and a session begins; raises `OverQuota`."""


class OverBudget(Exception):
    """The user has used up what there is for a time: `of` so many, until `retry_after_s` seconds from now."""

    def __init__(self, message: str, retry_after_s: int, of: int) -> None:
        super().__init__(message)
        self.retry_after_s, self.of = retry_after_s, of


Budget = Callable[[str, int, Callable[[], int]], AbstractAsyncContextManager[None]]
"""What a turn of a user may cost, around the turn: the tokens of the question, and a way to ask what it cost in all."""


@asynccontextmanager
async def no_budget(user: str, tokens: int, used: Callable[[], int]) -> AsyncIterator[None]:
    """Turns cost nothing."""
    yield


_SMALL = 64 * 1024
"""Bytes that are refused to nobody: a whole line of them takes 32 MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareRules:
    """How many run `at_once`, `each` of one user; how many may be there, running or not, of one user and in all."""

    at_once: int = 1000
    each: int = 16
    line: int = 512
    line_of_all: int = 8192
    line_bytes: int = 16 * 1024 * 1024
    """How much those of one user may hold in memory; one that is alone may hold more."""

    line_bytes_of_all: int = 256 * 1024 * 1024


class Shares:
    """What is under way in one process, and who waits. Safe from any task, thread and event loop."""

    def __init__(self, rules: ShareRules | None = None, what: str = "turns") -> None:
        self.rules, self._what = rules or ShareRules(), what
        self._guard = threading.Lock()
        self._line: Line[_Waiter] = Line(self.rules.at_once, self.rules.each)
        self._there: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()

    def __len__(self) -> int:
        """How many are there, running or not."""
        return self._there.total()

    @property
    def running(self) -> int:
        return self._line.under_way

    def admit(self, user: str, size: int = 0) -> Callable[[], None]:
        """Takes a place in the line for what holds so many bytes, and gives what gives it back. Raises `LineFull`."""
        with self._guard:
            self._check(user, size)
            self._there[user] += 1
            self._bytes[user] += size

        def leave() -> None:
            with self._guard:
                self._there[user] -= 1
                self._bytes[user] -= size
                if not self._there[user]:
                    del self._there[user], self._bytes[user]

        return leave

    def _check(self, user: str, size: int) -> None:
        rules = self.rules
        mine, all_ = (self._bytes[user], self._bytes.total()) if size > _SMALL else (0, 0)
        if self._there[user] >= rules.line or (mine and mine + size > rules.line_bytes):
            raise LineFull(f"You have too many {self._what} waiting here: try again when some have ended.")
        if self._there.total() >= rules.line_of_all or (all_ and all_ + size > rules.line_bytes_of_all):
            raise LineFull(f"Too many {self._what} are waiting here: try again later.")

    @contextmanager
    def place(self, user: str) -> Iterator[None]:
        """`admit`, for the time of a block."""
        leave = self.admit(user)
        try:
            yield
        finally:
            leave()

    @asynccontextmanager
    async def share(self, user: str) -> AsyncIterator[None]:
        """Waits until it is the user's turn, and holds one share for the time of the block."""
        await self._take(user)
        try:
            yield
        finally:
            with self._guard:
                self._line.done(user)
                self._call_next()

    async def _take(self, user: str) -> None:
        with self._guard:
            if self._line.takes_at_once(user):
                return
            waiter = _Waiter()
            self._line.enter(user, waiter)
            self._call_next()
        try:
            await waiter.called
        except BaseException:
            with self._guard:
                self._line.withdraw(user, waiter)
                if waiter.has_share:  # called in the same instant in which it gave up
                    self._line.done(user)
                    self._call_next()
            raise

    def _call_next(self) -> None:
        for waiter in self._line.next():
            waiter.call()


class _Waiter:
    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.called: asyncio.Future[None] = self._loop.create_future()
        self.has_share = False

    def call(self) -> None:
        self.has_share = True
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        if not self.called.done():
            self.called.set_result(None)


class FairThreads(ThreadPoolExecutor):
    """Threads for what blocks: `at_once` calls side by side, `each` of one user, who is `working_for` when it calls.

    Made to be an event loop's default executor, on which LangChain runs the blocking functions of chains.
    """

    def __init__(self, at_once: int, each: int, name: str) -> None:
        super().__init__(at_once, thread_name_prefix=name)
        self._guard = threading.Lock()
        self._line: Line[tuple[str, Future[Any], Callable[[], Any]]] = Line(at_once, each)

    @override
    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        user, future = working_for.get(), Future[Any]()
        with self._guard:
            self._line.enter(user, (user, future, lambda: fn(*args, **kwargs)))
            self._start_next()
        return future

    def _start_next(self) -> None:
        for user, future, call in self._line.next():
            super().submit(self._run, user, future, call)

    def _run(self, user: str, future: Future[Any], call: Callable[[], Any]) -> None:
        if future.set_running_or_notify_cancel():
            try:
                result = call()
            except BaseException as error:  # noqa: BLE001 - it is the caller's
                self._over(user)
                future.set_exception(error)
                return
            self._over(user)
            future.set_result(result)
        else:
            self._over(user)

    def _over(self, user: str) -> None:
        with self._guard:
            self._line.done(user)
            try:
                self._start_next()
            except RuntimeError:  # the pool is shut down: what still waits is not done any more
                return

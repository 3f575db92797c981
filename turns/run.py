"""Turns that run: begun, generated, ended, each in a task of its own that no client can cancel.

Whoever waits for a turn (an `invoke`, a stream) only watches it. So a client that leaves, a cancelled request or a
closed generator never tears the keeping of a turn: they ask for a stop, which reaches the model and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from contextvars import ContextVar
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Any, Final, Literal

from langchain_core.messages import AIMessageChunk, BaseMessage

from histories.base import (
    HistoryStore,
    NewTurn,
    OpenTurn,
    Reply,
    SessionHistory,
    StoreUnavailable,
    Turn,
    TurnStatus,
    Usage,
)
from turns.observer import TurnObserver, Watch, WatchedTurn

log = logging.getLogger("recollect.turns")

PULSE_S: Final = 15.0
"""Every so many seconds a stream shows that it is alive: sse-starlette's interval."""


class ChainError(Exception):
    """What keeps a chain from answering. The message is for the client; the cause, if any, is for the log."""


class InvalidInput(ChainError, ValueError):
    """The input is not what this chain takes."""


class ChainFailed(ChainError):
    """The chain, or the model behind it, raised: `__cause__` says what."""


class ModelSilent(ChainError):
    """The model said nothing for longer than it may."""


class TurnStopped(ChainError):
    """Somebody stopped the turn before it had said anything that this caller could be given."""


class ShuttingDown(ChainError):
    """The server is stopping."""


class Stop(StrEnum):
    """Why a turn is stopped."""

    ASKED = "asked"
    LEFT = "left"
    SHUTDOWN = "shutdown"


class Connection:
    """A client's connection, which may end before its turns do."""

    def __init__(self) -> None:
        self._watchers: set[Callable[[], None]] = set()
        self.lost = False

    def watch(self, left: Callable[[], None]) -> None:
        """`left` is called when the client is gone, at once if it is gone already."""
        if self.lost:
            left()
        else:
            self._watchers.add(left)

    def unwatch(self, left: Callable[[], None]) -> None:
        self._watchers.discard(left)

    def lose(self) -> None:
        """The client is gone, or has been answered."""
        self.lost = True
        while self._watchers:
            self._watchers.pop()()


connection: ContextVar[Connection | None] = ContextVar("connection", default=None)
"""The connection on behalf of which a chain is called; None outside of a server."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How turns are run. Times are in seconds; `wait_s` 0 refuses a busy session at once."""

    wait_s: float = 60.0
    silence_s: float = 120.0
    window_tokens: int = 3000
    on_disconnect: Literal["stop", "finish"] = "stop"
    show_prompts: bool = False
    """Whether `stream_log` and `stream_events` show clients the system prompt."""


class Said:
    """What a chain has said so far, and how it is put on the record."""

    def __init__(self) -> None:
        self.chunks: list[Any] = []

    def output(self) -> Any:
        """The chunks as one output: text joined, messages merged, else added up, else the last one."""
        if len(self.chunks) < 2:
            return self.chunks[0] if self.chunks else None
        first, *rest = self.chunks
        if all(isinstance(chunk, str) for chunk in self.chunks):
            return "".join(self.chunks)
        if all(isinstance(chunk, AIMessageChunk) for chunk in self.chunks):
            return first.__add__(rest)  # merges them all in one pass; adding one by one is quadratic
        total = first
        for chunk in rest:
            try:
                total = total + chunk
            except TypeError:
                total = chunk
        return total


class Turns:
    """Runs turns on a store, and knows all that run in this process."""

    def __init__(self, store: HistoryStore, rules: Rules | None = None, observers: Sequence[TurnObserver] = ()) -> None:
        self.store, self.rules, self._observers = store, rules or Rules(), observers
        self.running: set[TurnRun] = set()
        self._closing = False

    def start(
        self,
        user_id: str,
        session_id: str,
        new: NewTurn,
        generate: Callable[[Sequence[BaseMessage]], AsyncGenerator[Any, None]],
        replay: Callable[[Turn], AsyncGenerator[Any, None]],
        record: Callable[[Any], Recorded],
    ) -> TurnRun:
        """Starts a turn: `generate` gives the output's chunks from the window, `replay` those of a turn on record.

        `record` says how an output is put on the record.
        """
        if self._closing:
            raise ShuttingDown("The server is shutting down: try again.")
        history = self.store.history(user_id, session_id)
        seen = WatchedTurn(
            user_id=user_id, session_id=session_id, turn_id=new.turn_id, chain=new.chain, input=new.input
        )
        run = TurnRun(self.rules, history, new, generate, replay, record, Watch(self._observers, seen))
        self.running.add(run)
        run.task.add_done_callback(lambda _: self.running.discard(run))
        return run

    async def drain(self, limit_s: float) -> None:
        """Begins no more turns, gives the running ones `limit_s` to end, then stops them and keeps what they said."""
        self._closing = True
        tasks = {run.task for run in self.running}
        if tasks:
            await asyncio.wait(tasks, timeout=limit_s)
        for run in list(self.running):
            run.stop(Stop.SHUTDOWN)
        tasks = {run.task for run in self.running}
        if tasks:
            await asyncio.wait(tasks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """An output as messages for the record, the shape it had, and what the model says it cost."""

    messages: Sequence[BaseMessage]
    kind: str
    usage: Usage | None
    tokens: int


class _Phase(Enum):
    WAITING = 1
    GENERATING = 2
    SAVING = 3
    DONE = 4


class TurnRun:
    """One turn that runs in this process, and those who watch it."""

    def __init__(
        self,
        rules: Rules,
        history: SessionHistory,
        new: NewTurn,
        generate: Callable[[Sequence[BaseMessage]], AsyncGenerator[Any, None]],
        replay: Callable[[Turn], AsyncGenerator[Any, None]],
        record: Callable[[Any], Recorded],
        watch: Watch,
    ) -> None:
        self._watch = watch
        self._rules, self._history, self._new = rules, history, new
        self._generate, self._replay, self._record = generate, replay, record
        self._said, self._unread = Said(), list[Any]()
        self._phase = _Phase.WAITING
        self._stop: Stop | None = None
        self._error: BaseException | None = None
        self._loop = asyncio.get_running_loop()
        self._wake: asyncio.Future[None] | None = None
        self._pulse: asyncio.TimerHandle | None = None
        self.task = asyncio.create_task(self._run(), name="recollect-turn")
        self.task.add_done_callback(self._over)

    # For those who watch.

    async def chunks(self) -> AsyncGenerator[Any, None]:
        """What the chain says, as it says it; ends when the reply is durable, or raises why there is none.

        A consumer that goes away before the end has left.
        """
        async with aclosing(self.bursts()) as bursts:
            async for burst in bursts:
                for chunk in burst:
                    yield chunk

    async def bursts(self) -> AsyncGenerator[Sequence[Any], None]:
        """The same, with all chunks that came since the last look in one list: what is sent together costs less.

        An empty one comes every PULSE_S, for who has to show that the connection lives.
        """
        client = connection.get()
        if client is not None:
            client.watch(self.left)
        self._beat()
        try:
            while True:
                if self._unread:
                    burst, self._unread = self._unread, []
                    yield burst
                    continue
                if self._phase is _Phase.DONE:
                    break
                self._wake = self._loop.create_future()
                await self._wake
                if not self._unread and not self.task.done():
                    yield ()
            if self._error is not None:
                raise self._error
        finally:
            if self._pulse is not None:
                self._pulse.cancel()
            if client is not None:
                client.unwatch(self.left)
            if self._phase is not _Phase.DONE:
                self.left()

    async def output(self) -> Any:
        """The whole output, once it is durable."""
        async with aclosing(self.bursts()) as bursts:
            async for _ in bursts:
                pass
        return self._said.output()

    def left(self) -> None:
        """The client is gone."""
        if self._rules.on_disconnect == "stop":
            self.stop(Stop.LEFT)

    def stop(self, why: Stop) -> None:
        """Cancels the wait for the session, or the model; a turn that is being saved is saved."""
        if self._stop is None and self._phase in (_Phase.WAITING, _Phase.GENERATING):
            self._stop = why
            self.task.cancel()

    def _stop_from_any_thread(self) -> None:
        self._loop.call_soon_threadsafe(self.stop, Stop.ASKED)

    # The turn itself.

    async def _run(self) -> None:
        try:
            begun = await self._history.begin(
                self._new,
                wait_s=self._rules.wait_s,
                window_tokens=self._rules.window_tokens,
                on_stop=self._stop_from_any_thread,
            )
            self._watch.began(begun)
            if isinstance(begun, Turn):
                await self._say(self._replay(begun))
            else:
                await self._answer(begun)
        except asyncio.CancelledError:
            self._error = self._stopped()
        except Exception as error:  # noqa: BLE001 - whatever it is, those who watch are told
            self._error = error

    def _over(self, task: asyncio.Task[None]) -> None:
        """Called when the task has ended, also one that was cancelled before its first step."""
        if task.cancelled():
            self._error = self._stopped()
        self._watch.ended(self._error)
        self._phase = _Phase.DONE
        self._notify()

    async def _answer(self, turn: OpenTurn) -> None:
        status = TurnStatus.COMPLETE
        error: ChainError | None = None
        try:
            await self._say(self._generate(turn.past))
        except asyncio.CancelledError:
            status, error = TurnStatus.INTERRUPTED, self._stopped()
        except ChainError as refused:
            error = refused
        except Exception as cause:  # noqa: BLE001 - chains raise what they like
            error = ChainFailed("The model could not answer.")
            error.__cause__ = cause
        if status is TurnStatus.COMPLETE and error is not None:
            status = TurnStatus.INTERRUPTED if self._said.chunks else TurnStatus.FAILED
        self._phase = _Phase.SAVING
        reply = Reply(status=status)
        if self._said.chunks:
            try:
                done = self._record(self._said.output())
                reply = Reply(status=status, output=done.messages, usage=done.usage, tokens=done.tokens, kind=done.kind)
            except (KeyError, TypeError, ValueError) as cause:
                error = error or ChainFailed("The chain's output holds no message.")
                error.__cause__ = error.__cause__ or cause
                reply = Reply(status=TurnStatus.FAILED)
        try:
            await turn.end(reply)
            self._watch.kept(reply)
        except StoreUnavailable as lost:
            log.warning("turn %s: the reply could not be saved: %s", turn.turn_id, lost)
            raise
        if error is not None and not (self._stop is Stop.ASKED and reply.output):
            raise error  # a client whose turn was stopped on purpose gets what was said, and a proper end

    async def _say(self, chunks: AsyncGenerator[Any, None]) -> None:
        self._phase, heard = _Phase.GENERATING, self._loop.time()
        limit = self._rules.silence_s
        slack = limit / 100
        try:
            async with asyncio.timeout(limit) as silence, aclosing(chunks) as saying:
                async for chunk in saying:
                    now = self._loop.time()
                    if now > heard + slack:  # a timer is not set anew for each of many quick chunks
                        heard = now
                        silence.reschedule(now + limit + slack)
                    self._watch.spoke()
                    self._said.chunks.append(chunk)
                    self._unread.append(chunk)
                    self._notify()
        except TimeoutError:
            if not silence.expired():
                raise
            raise ModelSilent(f"The model said nothing for {limit:g} seconds: try again.") from None
        self._phase = _Phase.SAVING

    def _stopped(self) -> ChainError:
        if self._stop is Stop.SHUTDOWN:
            return ShuttingDown("The server is shutting down. What was said so far is kept: try again.")
        return TurnStopped("The turn was stopped. What was said so far is kept.")

    def _beat(self) -> None:
        self._notify()
        self._pulse = self._loop.call_later(PULSE_S, self._beat)

    def _notify(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

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
from dataclasses import dataclass, replace
from enum import Enum, StrEnum
from typing import Any, Final, Literal

from langchain_core.messages import BaseMessage
from typing_extensions import override

from histories.base import (
    Failure,
    HistoryStore,
    NewTurn,
    OpenTurn,
    Reply,
    SessionHistory,
    StoreUnavailable,
    Turn,
    TurnDetails,
    TurnStatus,
)
from turns.errors import ChainError as ChainError
from turns.errors import ChainFailed as ChainFailed
from turns.errors import InvalidInput as InvalidInput
from turns.errors import ShuttingDown as ShuttingDown
from turns.errors import TurnStopped as TurnStopped
from turns.errors import TurnTooLong as TurnTooLong
from turns.errors import WrongChain as WrongChain
from turns.failures import hashed, is_of_a_model, summary, without_secrets
from turns.merging import merged
from turns.outputs import Recorded, as_text

log = logging.getLogger("recollect.turns")

PULSE_S: Final = 15.0
"""Every so many seconds a stream shows that it is alive: sse-starlette's interval."""


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
    limit_s: float = 600.0
    """How long a whole turn may take, from the moment its session is free; 0: any time."""
    window_tokens: int = 3000
    on_disconnect: Literal["stop", "finish"] = "stop"
    hash_users: bool = False
    """Whether traces show users by a hash of their name."""

    show_prompts: bool = False
    """Whether `stream_log` and `stream_events` show clients the system prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a client is told of an error, and the word for it that stays on the record."""

    status_code: int
    message: str
    reason: str = "error"


Explain = Callable[[BaseException], Told]
"""Says what clients are told of an error that ended a turn."""


class Said:
    """What a chain has said so far."""

    def __init__(self) -> None:
        self.chunks: list[Any] = []

    def output(self) -> Any:
        """The chunks as one output; the only one as it is."""
        return self.chunks[0] if len(self.chunks) == 1 else merged(self.chunks)


class Turns:
    """Runs turns on a store, and knows all that run in this process."""

    def __init__(self, store: HistoryStore, rules: Rules | None = None, explain: Explain | None = None) -> None:
        self.store, self.rules, self.explain = store, rules or Rules(), explain or _plainly
        self.running: set[TurnRun] = set()
        self._closing = False

    def start(
        self,
        user_id: str,
        session_id: str | None,
        new: NewTurn,
        generate: Callable[[Sequence[BaseMessage]], AsyncGenerator[Any, None]],
        replay: Callable[[Turn], AsyncGenerator[Any, None]],
        record: Record,
        limit_s: float | None = None,
    ) -> TurnRun:
        """Starts a turn, which is kept if it is of a session.

        `generate` gives the output's chunks from the window, `replay` those of a turn on record.
        `record` says how an output is put on the record. The turn may take `limit_s` seconds (0: any time, None: as
        long as the rules say).
        """
        if self._closing:
            raise ShuttingDown("The server is shutting down: try again.")
        history = None if session_id is None else self.store.history(user_id, session_id)
        rules = self.rules if limit_s is None else replace(self.rules, limit_s=limit_s)
        run = TurnRun(rules, history, new, generate, replay, record, self.explain)
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


Record = Callable[[Any, bool], Recorded]
"""Says how an output is put on the record, and whether it was cut off."""


def _plainly(error: BaseException) -> Told:
    return Told(status_code=502, message=str(error))


class _UnrecordedTurn(OpenTurn):
    """A turn of a chain that does not remember."""

    def __init__(self, turn_id: str) -> None:
        self.turn_id, self.window = turn_id, []

    @override
    async def journal(self, events: Sequence[bytes]) -> None:
        return

    @override
    async def end(self, reply: Reply) -> None:
        return


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
        history: SessionHistory | None,
        new: NewTurn,
        generate: Callable[[Sequence[BaseMessage]], AsyncGenerator[Any, None]],
        replay: Callable[[Turn], AsyncGenerator[Any, None]],
        record: Record,
        explain: Explain,
    ) -> None:
        self._rules, self._history, self._new = rules, history, new
        self._generate, self._replay, self._record, self._explain = generate, replay, record, explain
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
            begun = await self._begin()
            if isinstance(begun, Turn):
                await self._say(self._replay(begun))
            else:
                await self._answer(begun)
        except asyncio.CancelledError:
            self._error = self._stopped()
        except Exception as error:  # noqa: BLE001 - whatever it is, those who watch are told
            self._error = error

    async def _begin(self) -> OpenTurn | Turn:
        if self._history is None:
            return _UnrecordedTurn(self._new.turn_id)
        return await self._history.begin(
            self._new,
            wait_s=self._rules.wait_s,
            window_tokens=self._rules.window_tokens,
            on_stop=self._stop_from_any_thread,
        )

    def _over(self, task: asyncio.Task[None]) -> None:
        """Called when the task has ended, also one that was cancelled before its first step."""
        if task.cancelled():
            self._error = self._stopped()
        self._phase = _Phase.DONE
        self._notify()

    async def _answer(self, turn: OpenTurn) -> None:
        """Generates the reply and ends the turn, whatever comes of it."""
        error = await self._generated(turn)
        self._phase = _Phase.SAVING
        reply = self._reply(error)
        try:
            await turn.end(reply)
        except StoreUnavailable as lost:
            log.warning("turn %s: the reply could not be saved: %s", turn.turn_id, lost)
            raise
        if error is not None and not (self._stop is Stop.ASKED and reply.output):
            raise error  # a client whose turn was stopped on purpose gets what was said, and a proper end

    async def _generated(self, turn: OpenTurn) -> ChainError | None:
        """Lets the chain speak; gives the reason why it did not come to its end, if it did not."""
        try:
            await self._say(self._generate(turn.past))
        except ChainError as refused:
            return refused
        except BaseException as cause:  # noqa: BLE001 - a chain may raise anything: its session is to be free again
            if isinstance(cause, asyncio.CancelledError) and (self._stop is not None or self.task.cancelling()):
                return self._stopped()
            error = ChainFailed("The model could not answer.")
            error.__cause__ = cause
            return error
        return None

    def _reply(self, error: ChainError | None) -> Reply:
        if not self._said.chunks:
            status = TurnStatus.COMPLETE if error is None else TurnStatus.FAILED
            if isinstance(error, (TurnStopped, ShuttingDown)):
                status = TurnStatus.INTERRUPTED
            return Reply(status=status, details=self._ending(error, TurnDetails()))
        done = self._kept(cut=error is not None)
        status = TurnStatus.COMPLETE if error is None else TurnStatus.INTERRUPTED
        details = self._ending(error, done.details)
        return Reply(
            status=status, output=done.messages, usage=done.usage, tokens=done.tokens, kind=done.kind, details=details
        )

    def _kept(self, *, cut: bool) -> Recorded:
        """What was said as it goes on the record; the bare text of it rather than nothing."""
        try:
            return self._record(merged(self._said.chunks), cut)
        except Exception:
            log.exception("turn %s on /%s: its output is kept as text", self._new.turn_id, self._new.chain)
            return as_text(self._said.chunks)

    def _ending(self, error: ChainError | None, details: TurnDetails) -> TurnDetails:
        """The details with the reason why the turn ended before its reply did."""
        if error is None:
            return details
        if isinstance(error, (TurnStopped, ShuttingDown)):
            reason = {Stop.ASKED: "stopped", Stop.LEFT: "left", Stop.SHUTDOWN: "shutdown", None: "shutdown"}[self._stop]
            return {**details, "finish_reason": reason}
        self._log(error)
        told = self._explain(error)
        reason = told.reason if told.reason != "cut" or self._said.chunks else "error"
        problem = Failure(status_code=told.status_code, message=told.message)
        return {**details, "finish_reason": reason, "error": problem}

    def _log(self, error: ChainError) -> None:
        """Says what went wrong, and where, for the author of the chain."""
        where = {
            "chain": self._new.chain,
            "session": "none" if (of := self._history) is None else hashed(of.user_id, of.session_id),
            "turn": self._new.turn_id,
        }
        cause = error.__cause__
        at = "/%(chain)s, session %(session)s, turn %(turn)s: "
        if cause is None:
            log.warning(at + "%(error)s", {**where, "error": error}, extra=where)
        elif is_of_a_model(cause):
            status = getattr(cause, "status_code", None)
            name = f"{type(cause).__name__} ({status})" if status else type(cause).__name__
            log.warning(at + "a chain failed: %(error)s", {**where, "error": name}, extra=where)
            # What a server says of a refusal may hold what the operator keeps from the usual log.
            log.info(at + "the model's server said: %(error)s", {**where, "error": summary(cause)}, extra=where)
        else:
            told, trace = summary(cause), without_secrets(cause)
            log.error(at + "a chain failed: %(error)s", {**where, "error": told}, extra=where, exc_info=trace)

    async def _say(self, chunks: AsyncGenerator[Any, None]) -> None:
        self._phase = _Phase.GENERATING
        limit = self._rules.limit_s
        try:
            async with asyncio.timeout(limit or None) as time_left, aclosing(chunks) as saying:
                async for chunk in saying:
                    self._said.chunks.append(chunk)
                    self._unread.append(chunk)
                    self._notify()
        except TimeoutError:
            if not time_left.expired():
                raise
            raise TurnTooLong(f"The turn took longer than {limit:g} seconds, and was ended.") from None
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

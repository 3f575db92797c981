"""Turns that run: begun, generated, ended, each in a task of its own that no client can cancel.

Whoever waits for a turn (an `invoke`, a stream) only watches it. So a client that leaves, a cancelled request or a
closed generator never tears the keeping of a turn: they ask for a stop, which reaches the model and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass, replace
from enum import Enum, StrEnum
from typing import Any, Final, Literal, get_args

from typing_extensions import override

from histories.base import (
    Event,
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
    see_through,
)
from turns.connection import Connection as Connection
from turns.connection import connection as connection
from turns.errors import ChainError as ChainError
from turns.errors import ChainFailed as ChainFailed
from turns.errors import InvalidInput as InvalidInput
from turns.errors import ShuttingDown as ShuttingDown
from turns.errors import TurnStopped as TurnStopped
from turns.errors import TurnTooLong as TurnTooLong
from turns.errors import WrongChain as WrongChain
from turns.exits import contain_exits, in_a_chain
from turns.failures import hashed, is_of_a_model, summary, without_secrets
from turns.fit import UNKNOWN, Fits
from turns.merging import merged
from turns.outputs import Recorded, as_text
from turns.recall import Recall
from turns.voice import Encode, Voice, encode, events_of

log = logging.getLogger("recollect.turns")

OnDisconnect = Literal["grace", "finish", "stop"]
ON_DISCONNECT: Final = get_args(OnDisconnect)
"""What becomes of a turn that nobody listens to any more: it goes on for a while, to its end, or not at all."""


class Stop(StrEnum):
    """Why a turn is stopped."""

    ASKED = "asked"
    LEFT = "left"
    SHUTDOWN = "shutdown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How turns are run. Times are in seconds; `wait_s` 0 refuses a busy session at once."""

    wait_s: float = 60.0
    limit_s: float = 600.0
    """How long a whole turn may take, from the moment its session is free; 0: any time."""
    window_tokens: int | None = None
    """How much of the past a model is shown; None: what fits it."""

    recall: Recall = "session"
    on_disconnect: OnDisconnect = "grace"
    grace_s: float = 30.0
    """How long a turn goes on when nobody listens to it, with `grace`."""

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


class Turns:
    """Runs turns on a store, and knows all that run in this process."""

    def __init__(
        self,
        store: HistoryStore,
        rules: Rules | None = None,
        explain: Explain | None = None,
        encode: Encode = encode,
    ) -> None:
        self.store, self.rules, self.explain, self.encode = store, rules or Rules(), explain or _plainly, encode
        self.fits = Fits(self.rules.window_tokens)
        self.running: set[TurnRun] = set()
        self._named: dict[tuple[str, str, str], TurnRun] = {}
        self.closing = asyncio.Event()
        """Set when this server is about to end: who watches a turn of another one is told to go there."""

    def start(
        self,
        user_id: str,
        session_id: str | None,
        new: NewTurn,
        generate: Callable[[OpenTurn], AsyncGenerator[Any, None]],
        replay: Callable[[Turn], AsyncGenerator[Any, None]],
        record: Record,
        limit_s: float | None = None,
        *,
        streaming: bool = False,
        on_disconnect: OnDisconnect | None = None,
        if_last: str | None = None,
        window_tokens: int = UNKNOWN,
    ) -> TurnRun:
        """Starts a turn, which is kept if it is of a session.

        `generate` gives the output's chunks from what was begun, `replay` those of a turn on record.
        `record` says how an output is put on the record. The turn may take `limit_s` seconds (0: any time, None: as
        long as the rules say). `streaming` tells that it says its output in pieces. It begins only if the last turn of
        the session is `if_last`. `window_tokens` is how much it is given of the past.
        """
        if self.closing.is_set():
            raise ShuttingDown("The server is shutting down: try again.")
        history = None if session_id is None else self.store.history(user_id, session_id)
        rules = self.rules if limit_s is None else replace(self.rules, limit_s=limit_s)
        rules = replace(rules, window_tokens=window_tokens)
        rules = rules if on_disconnect is None else replace(rules, on_disconnect=on_disconnect)
        voice = Voice(self.encode, journals=streaming)
        run = TurnRun(rules, history, new, generate, replay, record, self.explain, voice, if_last)
        self.running.add(run)
        run.task.add_done_callback(lambda _: self.running.discard(run))
        if session_id is not None:
            self._name((user_id, session_id, new.turn_id), run)
        return run

    def _name(self, name: tuple[str, str, str], run: TurnRun) -> None:
        """From when it owns its session until it ends, the run is found by its turn's name."""

        def begun(_: object) -> None:
            if not run.task.done() and run.owns_session:
                self._named[name] = run

        def over(_: object) -> None:
            if self._named.get(name) is run:
                del self._named[name]

        run.begun.add_done_callback(begun)
        run.task.add_done_callback(over)

    def find(self, user_id: str, session_id: str, turn_id: str) -> TurnRun | None:
        """The turn of that name, if it runs in this process."""
        return self._named.get((user_id, session_id, turn_id))

    async def drain(self, limit_s: float) -> None:
        """Begins no more turns, gives the running ones `limit_s` to end, then stops them and keeps what they said."""
        self.closing.set()
        self.fits.close()
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


def _failed(cause: BaseException) -> ChainFailed:
    error = ChainFailed("The model could not answer.")
    error.__cause__ = cause
    return error


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
        generate: Callable[[OpenTurn], AsyncGenerator[Any, None]],
        replay: Callable[[Turn], AsyncGenerator[Any, None]],
        record: Record,
        explain: Explain,
        voice: Voice,
        if_last: str | None = None,
    ) -> None:
        self._if_last = if_last
        self._rules, self._history, self._new = rules, history, new
        self._generate, self._replay, self._record, self._explain = generate, replay, record, explain
        self._voice, self.turn_id, self.chain = voice, new.turn_id, new.chain
        self._phase = _Phase.WAITING
        self._stop: Stop | None = None
        self._error: BaseException | None = None
        self._loop = asyncio.get_running_loop()
        self._listeners: set[object] = set()
        self._grace: asyncio.TimerHandle | None = None
        self.owns_session = False
        self.begun: asyncio.Future[None] = self._loop.create_future()
        """Done when the user's words are durable, or when they won't be: `refusal` says why."""
        self.task = asyncio.create_task(self._run(), name="recollect-turn")
        self.task.add_done_callback(self._over)

    # For those who listen.

    async def chunks(self) -> AsyncGenerator[Any, None]:
        """What the chain says, as it says it; ends when the reply is durable, or raises why there is none.

        A listener that goes away before the end has left.
        """
        async with aclosing(self._heard()) as heard:
            async for start, end in heard:
                for chunk in self._voice.chunks[start:end]:
                    yield chunk

    async def events(self, after: int = -1) -> AsyncGenerator[Sequence[Event], None]:
        """The same as events, those after that number, with all that are there in one list: what is sent together
        costs less. An empty list comes now and then, for who has to show that the connection lives.
        """
        async with aclosing(self._heard(after)) as heard:
            async for start, end in heard:
                yield events_of(self._voice, start, end)

    async def output(self) -> Any:
        """The whole output, once it is durable."""
        async with aclosing(self._heard()) as heard:
            async for _ in heard:
                pass
        return self._voice.output()

    async def _heard(self, after: int = -1) -> AsyncGenerator[tuple[int, int], None]:
        with self._listening():
            async with aclosing(self._voice.read(after)) as pieces:
                async for piece in pieces:
                    yield piece
            if self._error is not None:
                raise self._error

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """Somebody listens, as long as this lasts and their connection does."""
        client, listener = connection.get(), object()
        self._listeners.add(listener)
        if self._grace is not None:
            self._grace.cancel()

        def left() -> None:
            self._listeners.discard(listener)
            self._leave()

        if client is not None:
            client.watch(left)
        try:
            yield
        finally:
            if client is not None:
                client.unwatch(left)
            left()

    def _leave(self) -> None:
        """Somebody has left: if it was the last one, the turn goes on, for a while, or not, as the rules say."""
        if self._listeners or self._phase is _Phase.DONE:
            return
        if self._rules.on_disconnect == "stop":
            self.stop(Stop.LEFT)
        elif self._rules.on_disconnect == "grace":
            if self._grace is not None:
                self._grace.cancel()
            self._grace = self._loop.call_later(self._rules.grace_s, self.stop, Stop.LEFT)

    def stop(self, why: Stop) -> None:
        """Cancels the wait for the session, or the model; a turn that is being saved is saved."""
        if self._stop is None and self._phase in (_Phase.WAITING, _Phase.GENERATING):
            self._stop = why
            self.task.cancel()

    def _stop_from_any_thread(self) -> None:
        self._loop.call_soon_threadsafe(self.stop, Stop.ASKED)

    # The turn itself.

    async def _run(self) -> None:
        begun: OpenTurn | Turn | None = None
        try:
            begun = await self._begin()
            if isinstance(begun, Turn):
                self._set_begun()
                await self._say(self._replay(begun))
            else:
                self.owns_session = self._history is not None
                self._set_begun()
                if self.owns_session:
                    self._voice.journal_to(begun)
                await self._end(begun, await self._generated(begun))
        except asyncio.CancelledError:
            self._error = self._stopped()
        except Exception as error:  # noqa: BLE001 - whatever it is, those who watch are told
            self._error = error
        except BaseException as error:  # noqa: BLE001 - a chain's GeneratorExit, say
            self._error = _failed(error)
        if self._phase is _Phase.GENERATING and isinstance(begun, OpenTurn):
            await self._end_broken(begun)

    async def _end_broken(self, turn: OpenTurn) -> None:
        """Ends a turn whose coroutines a chain's exception has closed: asyncio does that for a GeneratorExit."""
        error = self._error if isinstance(self._error, ChainError) else _failed(self._error or RuntimeError())
        try:
            await self._end(turn, error)
        except Exception as told:  # noqa: BLE001 - see above
            self._error = told

    async def _begin(self) -> OpenTurn | Turn:
        if self._history is None:
            return _UnrecordedTurn(self._new.turn_id)
        return await self._history.begin(
            self._new,
            wait_s=self._rules.wait_s,
            window_tokens=self._rules.window_tokens or UNKNOWN,
            on_stop=self._stop_from_any_thread,
            if_last=self._if_last,
        )

    def _over(self, task: asyncio.Task[None]) -> None:
        """Called when the task has ended, also one that was cancelled before its first step."""
        if task.cancelled():
            self._error = self._stopped()
        self._phase = _Phase.DONE
        self._set_begun()
        if self._grace is not None:
            self._grace.cancel()
        # What a store could not keep is not said, beyond what it has.
        self._voice.finish(kept=not isinstance(self._error, StoreUnavailable))

    def _set_begun(self) -> None:
        if not self.begun.done():
            self.begun.set_result(None)

    @property
    def refusal(self) -> BaseException | None:
        """Why the turn did not begin, if it did not."""
        return None if self.owns_session else self._error

    async def _end(self, turn: OpenTurn, error: ChainError | None) -> None:
        """Ends the turn, whatever came of it."""
        self._phase = _Phase.SAVING
        with suppress(asyncio.CancelledError):  # whoever cancels this task: the turn is ended
            await see_through(self._voice.close())
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
        contain_exits(self._loop)
        in_a_chain.set(True)
        try:
            await self._say(self._generate(turn))
        except GeneratorExit:
            raise  # it closes this coroutine, too, which may not wait for anything any more
        except ChainError as refused:
            return refused
        except BaseException as cause:  # noqa: BLE001 - a chain may raise anything: its session is to be free again
            if isinstance(cause, asyncio.CancelledError) and (self._stop is not None or self.task.cancelling()):
                return self._stopped()
            return _failed(cause)
        return None

    def _reply(self, error: ChainError | None) -> Reply:
        if not self._voice.chunks:
            status = TurnStatus.COMPLETE if error is None else TurnStatus.FAILED
            if isinstance(error, (TurnStopped, ShuttingDown)):
                status = TurnStatus.INTERRUPTED
            return Reply(status=status, details=self._ending(error, TurnDetails()))
        done = self._kept(cut=error is not None)
        status = TurnStatus.COMPLETE if error is None else TurnStatus.INTERRUPTED
        details = self._ending(error, {**done.details, **self._voice.details()})
        return Reply(
            status=status, output=done.messages, usage=done.usage, tokens=done.tokens, kind=done.kind, details=details
        )

    def _kept(self, *, cut: bool) -> Recorded:
        """What was said as it goes on the record; the bare text of it rather than nothing."""
        try:
            return self._record(merged(self._voice.chunks), cut)
        except Exception:
            log.exception("turn %s on /%s: its output is kept as text", self._new.turn_id, self._new.chain)
            return as_text(self._voice.chunks)

    def _ending(self, error: ChainError | None, details: TurnDetails) -> TurnDetails:
        """The details with the reason why the turn ended before its reply did."""
        if error is None:
            return details
        if isinstance(error, (TurnStopped, ShuttingDown)):
            reason = {Stop.ASKED: "stopped", Stop.LEFT: "left", Stop.SHUTDOWN: "shutdown", None: "shutdown"}[self._stop]
            return {**details, "finish_reason": reason}
        self._log(error)
        told = self._explain(error)
        reason = told.reason if told.reason != "cut" or self._voice.chunks else "error"
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
                    self._voice.say(chunk)
        except TimeoutError:
            if not time_left.expired():
                raise
            raise TurnTooLong(f"The turn took longer than {limit:g} seconds, and was ended.") from None
        self._phase = _Phase.SAVING

    def _stopped(self) -> ChainError:
        if self._stop is Stop.SHUTDOWN:
            return ShuttingDown("The server is shutting down. What was said so far is kept: try again.")
        return TurnStopped("The turn was stopped. What was said so far is kept.")

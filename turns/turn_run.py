"""One turn that runs in this process: begun, generated, ended, in a task of its own that no client can cancel.

Whoever waits for a turn (an `invoke`, a stream) only listens to it. So a client that leaves, a cancelled request or a
closed generator never tears the keeping of a turn: they ask for a stop, which reaches the model and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing, contextmanager, suppress
from datetime import datetime
from enum import Enum
from typing import Any, Final, Protocol

from typing_extensions import override

from histories.base import (
    Event,
    NewTurn,
    OpenTurn,
    Reply,
    SessionHistory,
    SessionNotFound,
    StoreUnavailable,
    Turn,
    TurnNotFound,
    see_through,
)
from turns.connection import connection
from turns.ending import Ending
from turns.errors import ChainError, ChainFailed, ShuttingDown, TurnStopped, TurnTooLong
from turns.exits import contain_exits, in_a_chain
from turns.fit import UNKNOWN
from turns.observer import TurnObserver, Watch, WatchedTurn
from turns.rules import Explain, Rules, Speech, Stop
from turns.shares import Admit, Budget, Shares, working_for
from turns.voice import Voice, events_of

_LOOK_AGAIN_S: Final = 1.0
"""How soon the store is asked again, at the soonest, whether somebody listens elsewhere."""

BEGINS_WITHIN_S: Final = 0.5
"""What has not begun for so long stands in line, where nobody comes back to it; before, it may be about to begin."""


class RunsTurns(Protocol):
    """What all turns of a process share."""

    shares: Shares
    budget: Budget
    admit: Admit | None
    explain: Explain
    observers: Sequence[TurnObserver]


def failed(cause: BaseException) -> ChainFailed:
    """What a chain raised, as what keeps a turn from being answered."""
    error = ChainFailed("The model could not answer.")
    error.__cause__ = cause
    return error


class _UnrecordedTurn(OpenTurn):
    """A turn of a chain that does not remember."""

    def __init__(self, turn_id: str) -> None:
        self.turn_id, self.window = turn_id, []

    @override
    async def end(self, reply: Reply) -> None:
        return

    @override
    async def _journal(self, first: int, events: Sequence[bytes]) -> None:
        return

    @override
    async def _end(self, reply: Reply) -> None:
        return


class Phase(Enum):
    """How far a turn is. It is SAVING from when the chain has come to its end."""

    WAITING = 1
    GENERATING = 2
    SAVING = 3
    DONE = 4


class TurnRun:
    """One turn that runs in this process, and those who watch it."""

    def __init__(
        self,
        turns: RunsTurns,
        rules: Rules,
        user_id: str,
        history: SessionHistory | None,
        new: NewTurn,
        speech: Speech,
        voice: Voice,
        if_last: str | None,
    ) -> None:
        self._rules, self._user_id, self._history, self._new = rules, user_id, history, new
        self._speech, self._voice, self._if_last = speech, voice, if_last
        self._shares, self._budget, self._used_tokens = turns.shares, turns.budget, 0
        self._admit = turns.admit
        self._ending = Ending(new, voice, speech, turns.explain)
        self.turn_id = new.turn_id
        self._phase = Phase.WAITING
        self._stop: Stop | None = None
        self._error: BaseException | None = None
        self._loop = asyncio.get_running_loop()
        self._listeners: set[object] = set()
        self._grace: asyncio.TimerHandle | None = None
        self._asking: asyncio.Task[None] | None = None
        self.owns_session = False
        self.started_at: datetime | None = None
        self.begun: asyncio.Future[None] = self._loop.create_future()
        """Done when the user's words are durable, or when they won't be: `refusal` says why."""
        session_id = "" if history is None else history.session_id
        seen = WatchedTurn(
            user_id=user_id, session_id=session_id, turn_id=new.turn_id, chain=new.chain, input=new.input
        )
        self._watch = Watch(turns.observers, seen)
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
        await self.ended()
        return self._voice.output()

    async def ended(self) -> None:
        """Listens until the reply is durable, or raises why there is none."""
        async with aclosing(self._heard()) as heard:
            async for _ in heard:
                pass

    async def _heard(self, after: int = -1) -> AsyncGenerator[tuple[int, int], None]:
        with self.listening():
            async with aclosing(self._voice.read(after)) as pieces:
                async for piece in pieces:
                    yield piece
            if self._error is not None:
                raise self._error

    @contextmanager
    def listening(self) -> Iterator[None]:
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
        if self._listeners or self._phase is Phase.DONE or self._rules.on_disconnect == "finish":
            return
        if self._patience_s:
            self._give_up_in(self._patience_s)
        else:
            self._give_up()

    @property
    def _patience_s(self) -> float:
        if self._rules.on_disconnect != "grace":
            return 0
        return self._rules.grace_s if self.owns_session else min(BEGINS_WITHIN_S, self._rules.grace_s)

    def leave_line(self) -> None:
        """The server is about to end: what stands in line is refused. What has a place, or is to go on, goes on."""
        wanted = self.owns_session and self._rules.on_disconnect == "finish"
        if self._phase is Phase.WAITING and not wanted:
            self.stop(Stop.SHUTDOWN)

    def _give_up_in(self, seconds: float) -> None:
        """Stops the turn in so many seconds, unless somebody listens again: here, or, as the store tells, elsewhere."""
        if self._grace is not None:
            self._grace.cancel()
        self._grace = self._loop.call_later(seconds, self._give_up)

    def _give_up(self) -> None:
        if self._history is None or not self.owns_session:
            self.stop(Stop.LEFT)
        elif self._asking is None or self._asking.done():
            self._asking = self._loop.create_task(self._give_up_unless_attended(self._history), name="recollect-grace")

    async def _give_up_unless_attended(self, history: SessionHistory) -> None:
        attended = True  # as long as it can't be asked: to look again costs nothing, and a reply is lost for good
        with suppress(StoreUnavailable):
            attended = await history.is_attended(self.turn_id)
        if self._listeners or self._phase is Phase.DONE:
            return
        if attended:
            self._give_up_in(max(self._patience_s, _LOOK_AGAIN_S))
        else:
            self.stop(Stop.LEFT)

    def stop(self, why: Stop) -> None:
        """Cancels the wait for the session, or the model; a turn that is being saved is saved."""
        if self._stop is None and self._phase in (Phase.WAITING, Phase.GENERATING):
            self._stop = why
            self.task.cancel()

    def _stop_from_any_thread(self) -> None:
        self._loop.call_soon_threadsafe(self.stop, Stop.ASKED)

    # The turn itself.

    async def _run(self) -> None:
        working_for.set(self._user_id)
        begun: OpenTurn | Turn | None = None
        try:
            async with self._budget(self._user_id, self._new.tokens, lambda: self._used_tokens):
                begun = await self._begin()
                await (self._repeat(begun) if isinstance(begun, Turn) else self._answer(begun))
        except asyncio.CancelledError:
            self._error = self._stopped()
        except Exception as error:  # noqa: BLE001 - whatever it is, those who watch are told
            self._error = error
        except BaseException as error:  # noqa: BLE001 - a chain's GeneratorExit, say
            self._error = failed(error)
        if self._phase is Phase.GENERATING and isinstance(begun, OpenTurn):
            await self._end_broken(begun)

    async def _repeat(self, turn: Turn) -> None:
        """Answers from the record."""
        self._set_begun()
        await self._say(self._speech.replay(turn))

    async def _answer(self, turn: OpenTurn) -> None:
        self.owns_session = self._history is not None
        if self._grace is not None:
            self._leave()  # who left while it stood in line has, from now on, the time to come back
        self._set_begun()
        if self.owns_session:
            self._voice.journal_to(turn)
        await self._end(turn, await self._generated(turn))

    async def _end_broken(self, turn: OpenTurn) -> None:
        """Ends a turn whose coroutines a chain's exception has closed: asyncio does that for a GeneratorExit."""
        error = self._error if isinstance(self._error, ChainError) else failed(self._error or RuntimeError())
        try:
            await self._end(turn, error)
        except Exception as told:  # noqa: BLE001 - see above
            self._error = told

    async def _begin(self) -> OpenTurn | Turn:
        if self._history is None:
            unrecorded = _UnrecordedTurn(self._new.turn_id)
            self._watch.began(unrecorded)
            return unrecorded
        if self._admit is not None and not await self._is_on_record(self._history):
            await self._admit(self._user_id, self._history.session_id)
        begun = await self._history.begin(
            self._new,
            wait_s=self._rules.wait_s,
            window_tokens=self._rules.window_tokens or UNKNOWN,
            on_stop=self._stop_from_any_thread,
            if_last=self._if_last,
        )
        self.started_at = begun.started_at
        self._watch.began(begun)
        return begun

    async def _is_on_record(self, history: SessionHistory) -> bool:
        """Whether it is another try of a turn, which asks for no more room."""
        with suppress(SessionNotFound, TurnNotFound):
            return self._new.given and bool(await history.turn(self._new.turn_id))
        return False

    def _over(self, task: asyncio.Task[None]) -> None:
        """Called when the task has ended, also one that was cancelled before its first step."""
        if task.cancelled():
            self._error = self._stopped()
        self._watch.ended(self._error)
        self._phase = Phase.DONE
        self._set_begun()
        if self._grace is not None:
            self._grace.cancel()
        # What a store could not keep is not said, beyond what it has.
        self._voice.finish(kept=not isinstance(self._error, StoreUnavailable))

    def _set_begun(self) -> None:
        if not self.begun.done():
            self.begun.set_result(None)

    @property
    def phase(self) -> Phase:
        """How far it is."""
        return self._phase

    @property
    def refusal(self) -> BaseException | None:
        """Why the turn did not begin, if it did not."""
        return None if self.owns_session else self._error

    async def _end(self, turn: OpenTurn, error: ChainError | None) -> None:
        """Ends the turn, whatever came of it."""
        self._phase = Phase.SAVING
        if self._voice.is_writing:
            with suppress(asyncio.CancelledError):  # whoever cancels this task: the turn is ended
                await see_through(self._voice.close())
        reply = self._ending.reply(error, self._stop)
        self._used_tokens = reply.usage["total_tokens"] if reply.usage else self._new.tokens + reply.tokens
        await turn.end(reply)
        self._watch.kept(reply)
        if error is not None and not (self._stop is Stop.ASKED and reply.output):
            raise error  # a client whose turn was stopped on purpose gets what was said, and a proper end

    async def _generated(self, turn: OpenTurn) -> ChainError | None:
        """Lets the chain speak; gives the reason why it did not come to its end, if it did not."""
        contain_exits(self._loop)
        in_a_chain.set(True)
        try:
            async with self._shares.share(self._user_id):
                await self._say(self._speech.generate(turn))
        except GeneratorExit:
            raise  # it closes this coroutine, too, which may not wait for anything any more
        except ChainError as refused:
            return refused
        except BaseException as cause:  # noqa: BLE001 - a chain may raise anything: its session is to be free again
            if isinstance(cause, asyncio.CancelledError) and (self._stop is not None or self.task.cancelling()):
                return self._stopped()
            return failed(cause)
        return None

    async def _say(self, chunks: AsyncGenerator[Any, None]) -> None:
        self._phase = Phase.GENERATING
        limit = self._rules.limit_s
        try:
            async with asyncio.timeout(limit or None) as time_left, aclosing(chunks) as saying:
                async for chunk in saying:
                    self._watch.spoke()
                    self._voice.say(chunk)
        except TimeoutError:
            if not time_left.expired():
                raise
            raise TurnTooLong(f"The turn took longer than {limit:g} seconds, and was ended.") from None
        self._phase = Phase.SAVING

    def _stopped(self) -> ChainError:
        if self._stop is Stop.SHUTDOWN and self._history is not None and not self.owns_session:
            return ShuttingDown("The server is shutting down. The turn was not begun: try again.")
        if self._stop is Stop.SHUTDOWN:
            return ShuttingDown("The server is shutting down. What was said so far is kept: try again.")
        return TurnStopped("The turn was stopped. What was said so far is kept.")

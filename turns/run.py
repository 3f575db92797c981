"""All turns that run in this process."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from histories.base import HistoryStore, NewTurn
from turns.attendance import Attendance
from turns.errors import ShuttingDown
from turns.fit import UNKNOWN, Fits
from turns.observer import TurnObserver
from turns.rules import Explain, OnDisconnect, Rules, Speech, Stop, plainly
from turns.shares import Admit, Budget, ShareRules, Shares, no_budget
from turns.summary import Summaries
from turns.turn_run import BEGINS_WITHIN_S, TurnRun
from turns.voice import Encode, Voice, encode


class Turns:
    """Runs turns on a store, and knows all that run in this process."""

    def __init__(
        self,
        store: HistoryStore,
        rules: Rules | None = None,
        explain: Explain = plainly,
        encode: Encode = encode,
        budget: Budget = no_budget,
        observers: Sequence[TurnObserver] = (),
        admit: Admit | None = None,
    ) -> None:
        self.store, self.rules, self.explain, self.encode = store, rules or Rules(), explain, encode
        self.budget, self.observers, self.shares = budget, observers, Shares(self.rules.shares)
        self.admit = admit
        each = self.rules.shares.each
        self.batches = Shares(ShareRules(at_once=sys.maxsize, each=each), "batches")
        """How much of all batches of a user runs at once: what all of them start in one moment would hold others up."""
        self.fits, self.summaries = Fits(self.rules.window_tokens), Summaries(store, budget)
        self.running: set[TurnRun] = set()
        self.attendance = Attendance()
        self._named: dict[tuple[str, str, str], TurnRun] = {}
        self._last_rules: tuple[Rules, tuple[object, ...], Rules] | None = None
        self.closing = asyncio.Event()
        """Set when this server is about to end: who watches a turn of another one is told to go there."""

    def start(
        self,
        user_id: str,
        session_id: str | None,
        new: NewTurn,
        speech: Speech,
        *,
        limit_s: float | None = None,
        streaming: bool = False,
        hear: Callable[[Any], None] | None = None,
        on_disconnect: OnDisconnect | None = None,
        if_last: str | None = None,
        window_tokens: int | None = None,
        size: int = 0,
    ) -> TurnRun:
        """Starts a turn, which is kept if it is of a session.

        It may take `limit_s` seconds (0: any time, None: as long as the rules say). `streaming` tells that it says its
        output in pieces, which nobody hears before they are journaled, but `hear`, which must not raise. It begins only
        if the last turn of the session is `if_last`, and is given `window_tokens` of the past. Its input has `size`
        bytes. Raises `LineFull` for one too many, and `ShuttingDown`.
        """
        if self.closing.is_set():
            raise ShuttingDown("The server is shutting down: try again.")
        history = None if session_id is None else self.store.history(user_id, session_id)
        rules = self._rules_of(limit_s, on_disconnect, window_tokens)
        voice = Voice(self.encode, journals=streaming, hear=hear)
        leave_line = self.shares.admit(user_id, size)
        run = TurnRun(self, rules, user_id, history, new, speech, voice, if_last)
        self.running.add(run)

        def over(_: object) -> None:
            self.running.discard(run)
            leave_line()

        run.task.add_done_callback(over)
        if session_id is not None:
            self._name((user_id, session_id, new.turn_id), run)
        return run

    def _rules_of(self, limit_s: float | None, on_disconnect: OnDisconnect | None, window_tokens: int | None) -> Rules:
        """The rules of one turn; the same ones for all that ask for the same."""
        asked = (limit_s, on_disconnect, window_tokens)
        rules, last = self.rules, self._last_rules
        if last is None or last[0] is not rules or last[1] != asked:
            own = replace(
                rules,
                limit_s=rules.limit_s if limit_s is None else limit_s,
                window_tokens=window_tokens or rules.window_tokens or UNKNOWN,
                on_disconnect=rules.on_disconnect if on_disconnect is None else on_disconnect,
            )
            last = self._last_rules = rules, asked, own
        return last[2]

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
        """Begins no more turns, refuses those in line, gives the running ones `limit_s` seconds to end, then stops
        them and keeps what they said.
        """
        self.closing.set()
        self.fits.close()
        await self.summaries.close()
        about_to_begin = min(limit_s, BEGINS_WITHIN_S)
        await self._wait_for_all(about_to_begin)
        for run in list(self.running):
            run.leave_line()
        await self._wait_for_all(limit_s - about_to_begin)
        for run in list(self.running):
            run.stop(Stop.SHUTDOWN)
        await self._wait_for_all(None)

    async def _wait_for_all(self, limit_s: float | None) -> None:
        tasks = {run.task for run in self.running}
        if tasks:
            await asyncio.wait(tasks, timeout=limit_s)

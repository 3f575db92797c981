"""All that may be done to a session, two and three things at a time, in one instant: none of them may wait for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from io import StringIO
from itertools import combinations
from typing import Any, Final

from langchain_core.messages import AIMessage, HumanMessage

from histories.base import HistoryError, HistoryStore, NewTurn, OpenTurn, Reply, SessionHistory, TurnStatus, now
from histories.files.check import check_main
from histories.files.store import FileStore
from histories.memory import MemoryStore
from histories.migrate import migrate

_DONE: Final = Reply(status=TurnStatus.COMPLETE, output=[AIMessage("done")])
_LIMIT_S: Final = 30.0


class _Round:
    """One coincidence, in a session of its own that has two turns, and a third one if that is to end."""

    def __init__(self, store: HistoryStore, number: int) -> None:
        self.store, self.history = store, store.history(f"user {number % 7}", f"s{number}")
        self.ids: list[str] = []
        self.running: OpenTurn | None = None

    async def turn(self) -> OpenTurn | None:
        turn = await self.history.begin(NewTurn(input=[HumanMessage("hello")]), wait_s=10, window_tokens=100)
        return turn if isinstance(turn, OpenTurn) else None

    async def whole_turn(self) -> None:
        if (turn := await self.turn()) is not None:
            await turn.end(_DONE)

    async def prepare(self, *, runs: bool) -> None:
        await self.whole_turn()
        await self.whole_turn()
        self.ids = [turn.turn_id for turn in (await self.history.turns()).items]
        self.running = await self.turn() if runs else None

    async def end(self) -> None:
        if self.running is not None:
            await self.running.end(_DONE)

    async def import_it(self) -> None:
        await self.history.restore((await self.history.turns()).items[:2], title="imported", created_at=now())

    async def check(self) -> None:
        if isinstance(self.store, FileStore):
            await asyncio.to_thread(check_main, self.store.path, False, StringIO())
        else:
            await self.store.tidy()

    async def migrate(self) -> None:
        """This session alone: a store has many by then."""

        source: Any = _Only(self.store, self.history)
        await migrate(source, MemoryStore(), lambda line: None)


class _Only:
    """A store of which one session is seen."""

    def __init__(self, store: HistoryStore, history: SessionHistory) -> None:
        self._history = history
        self.notes, self.history = store.notes, store.history

    async def users(self) -> Any:
        yield self._history.user_id

    async def all_sessions(self, user: str) -> Any:
        yield await self._history.info()  # `SessionNotFound` if it was deleted


ACTS: Final[dict[str, Callable[[_Round], Awaitable[object]]]] = {
    "begin": _Round.whole_turn,
    "end": _Round.end,
    "rename": lambda r: r.history.rename("a title"),
    "delete": lambda r: r.history.delete(),
    "fork": lambda r: r.history.fork(f"{r.history.session_id} fork", r.ids[0]),
    "rewind": lambda r: r.history.rewind(r.ids[1]),
    "stop": lambda r: r.history.stop(),
    "import": _Round.import_it,
    "check": _Round.check,
    "migrate": _Round.migrate,
}
PAIRS: Final = list(combinations(ACTS, 2))
TRIPLES: Final = list(combinations(ACTS, 3))


async def coincide(store: HistoryStore, coincidences: Iterable[tuple[str, ...]], first: int = 0) -> int:
    """Lets each of them happen, and looks whether the session is of use afterwards; gives how many there were.

    Raises `TimeoutError` for one that hangs.
    """
    number = first
    for acts in coincidences:
        number += 1
        one = _Round(store, number)
        try:
            async with asyncio.timeout(_LIMIT_S):
                await one.prepare(runs="end" in acts or "stop" in acts)
                more = [one.end()] if one.running is not None and "end" not in acts else []
                told = await asyncio.gather(*(ACTS[act](one) for act in acts), *more, return_exceptions=True)
                await one.whole_turn()
        except TimeoutError as hang:
            hang.add_note(f"round {number}: {acts}")
            raise
        for act, outcome in zip(acts, told, strict=False):
            if isinstance(outcome, BaseException) and not isinstance(outcome, HistoryError):
                outcome.add_note(f"round {number}: {act} of {acts}")
                raise outcome
        await _check(one, acts)
        await _clear(one)
    return number - first


async def _check(one: _Round, acts: tuple[str, ...]) -> None:
    turns = (await one.history.turns()).items
    ids = [turn.turn_id for turn in turns]
    if len(set(ids)) < len(ids) or any(turn.status is not TurnStatus.COMPLETE for turn in turns):
        raise AssertionError(f"{acts} left {turns}")


async def _clear(one: _Round) -> None:
    """So that lists stay short."""
    for name in (one.history.session_id, f"{one.history.session_id} fork"):
        try:
            await one.store.history(one.history.user_id, name).delete()
        except HistoryError:
            continue

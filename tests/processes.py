"""Other processes on a store, which tests may kill. They are forked from one that has imported everything."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any, Final

from histories import open_store
from histories.base import HistoryStore
from tests.stores import begun, replied, said

_CONTEXT: Final = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.processes"])


class Other:
    """Another process, and what it tells."""

    def __init__(self, process: multiprocessing.process.BaseProcess, told: Connection) -> None:
        self.process, self._told = process, told

    async def tells(self) -> Any:
        """The next thing that it tells; `EOFError` when it has died and told all."""
        return await asyncio.to_thread(self._told.recv)

    def told(self) -> Iterator[Any]:
        """What it has told, up to its death."""
        while True:
            try:
                yield self._told.recv()
            except EOFError:
                return

    def kill(self) -> None:
        """`kill -9`."""
        self.process.kill()
        self.process.join()


@contextmanager
def other(url: str, what: str, *args: object) -> Iterator[Other]:
    """A process that does `what`, one of the functions below, on the store of that URL. Dead when the block ends."""
    ours, theirs = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=_main, args=(theirs, url, what, args), daemon=True)
    process.start()
    theirs.close()
    try:
        yield Other(process, ours)
    finally:
        process.kill()
        process.join()
        ours.close()


def _main(tell: Connection, url: str, what: str, args: tuple[Any, ...]) -> None:
    async def run() -> None:
        store = open_store(url)
        await store.open()
        await _WHAT[what](tell, store, *args)
        await store.close()

    asyncio.run(run())


async def hold(tell: Connection, store: HistoryStore, session: str = "s1", words: str = "held") -> None:
    """Begins a turn, and holds it until it is killed."""
    turn = await begun(store.history("alice", session), said(words, turn_id=f"{words}-1"))
    tell.send(turn.turn_id)
    await asyncio.sleep(600)


async def many(tell: Connection, store: HistoryStore, name: str, count: int, session: str = "s1") -> None:
    """So many turns at once; tells of each how many turns it was shown."""

    async def one(number: int) -> int:
        turn = await begun(store.history("alice", session), f"{name}-{number}", wait_s=60, window=1_000_000)
        await turn.end(replied(f"re: {name}-{number}"))
        return len(turn.past) // 2

    tell.send(os.getpid())
    tell.send(await asyncio.gather(*(one(number) for number in range(count))))


async def talk(tell: Connection, store: HistoryStore, name: str, session: str = "s1") -> None:
    """One turn after the other, until it is killed; tells what it was assured of."""
    number = 0
    while True:
        words = f"{name}-{number}"
        turn = await begun(store.history("alice", session), said(words, turn_id=words), wait_s=60)
        tell.send(("begun", words))
        await turn.end(replied(f"re: {words}" + " and so on" * (number % 50)))
        tell.send(("ended", words))
        number += 1


_WHAT: Final[dict[str, Callable[..., Awaitable[None]]]] = {"hold": hold, "many": many, "talk": talk}

"""Another server on the same store, for tests: `python -m tests.store_holder`, driven by lines on its input.

URL                                first line
begin SESSION WORDS                begins a turn, and answers "begun", or the name of the error
say WORDS                          journals each of them as an event of its turn, and answers "said"
end WORDS                          ends it, and answers "ended", or the name of the error
many SESSION COUNT NAME            that many whole turns at once; answers how many turns each of them was shown
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from langchain_core.messages import AIMessage, HumanMessage

from histories import open_store
from histories.base import HistoryError, HistoryStore, NewTurn, OpenTurn, Reply, TurnStatus

USER = "alice"
_ROOT = Path(__file__).parent.parent


async def whole_turn(store: HistoryStore, session: str, words: str) -> int:
    """One turn, from its begin to its end; gives how many turns it was shown."""
    new = NewTurn(input=[HumanMessage(words)], tokens=1)
    turn = await store.history(USER, session).begin(new, wait_s=60, window_tokens=100_000)
    assert isinstance(turn, OpenTurn)
    shown = len(turn.past) // 2
    await turn.end(Reply(status=TurnStatus.COMPLETE, output=[AIMessage(f"heard {words}")], tokens=1))
    return shown


class Holder:
    """Such a server, in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def send(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())
        await self.process.stdin.drain()

    async def answer(self) -> str:
        assert self.process.stdout is not None
        return (await asyncio.wait_for(self.process.stdout.readline(), 60)).decode().strip()

    async def ask(self, line: str) -> str:
        await self.send(line)
        return await self.answer()


@asynccontextmanager
async def holder(url: str) -> AsyncIterator[Holder]:
    """Starts one; it is killed at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.store_holder", cwd=_ROOT,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        other = Holder(process)
        assert await other.ask(url) == "ready"
        yield other
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def _answer(store: HistoryStore, running: list[OpenTurn], word: str, args: list[str]) -> str:
    if word == "begin":
        begun = await store.history(USER, args[0]).begin(NewTurn(input=[HumanMessage(args[1])]), wait_s=60)
        assert isinstance(begun, OpenTurn)
        running.append(begun)
        return "begun"
    if word == "say":
        await running[-1].journal([json.dumps(each).encode() for each in args])
        return "said"
    if word == "end":
        await running.pop().end(Reply(status=TurnStatus.COMPLETE, output=[AIMessage(args[0])]))
        return "ended"
    turns = (whole_turn(store, args[0], f"{args[2]}-{n}") for n in range(int(args[1])))
    return " ".join(map(str, await asyncio.gather(*turns)))


async def main() -> None:
    loop, running = asyncio.get_running_loop(), list[OpenTurn]()
    store = open_store((await loop.run_in_executor(None, sys.stdin.readline)).strip())
    await store.open()
    print("ready", flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        word, *args = line.split()
        try:
            answer = await _answer(store, running, word, args)
        except HistoryError as error:
            answer = type(error).__name__
        print(answer, flush=True)
    await store.close()


if __name__ == "__main__":
    asyncio.run(main())

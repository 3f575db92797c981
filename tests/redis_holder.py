"""Another server on the same Redis, for tests: `python -m tests.redis_holder`, driven by lines on its input.

URL NAMESPACE                      first line
begin SESSION WORDS                begins a turn, and answers "begun", or the name of the error
end WORDS                          ends it, and answers "ended", or the name of the error
many SESSION COUNT NAME            that many whole turns at once; answers how many turns each of them was shown
"""

from __future__ import annotations

import asyncio
import sys

from langchain_core.messages import AIMessage, HumanMessage

from histories.base import HistoryError, HistoryStore, NewTurn, OpenTurn, Reply, TurnStatus
from histories.redis.store import RedisStore

USER = "alice"


async def whole_turn(store: HistoryStore, session: str, words: str) -> int:
    """One turn, from its begin to its end; gives how many turns it was shown."""
    turn = await store.history(USER, session).begin(
        NewTurn(input=[HumanMessage(words)], tokens=1), wait_s=30, window_tokens=100_000
    )
    assert isinstance(turn, OpenTurn)
    shown = len(turn.past) // 2
    await turn.end(Reply(status=TurnStatus.COMPLETE, output=[AIMessage(f"heard {words}")], tokens=1))
    return shown


async def main() -> None:
    loop = asyncio.get_running_loop()
    store = RedisStore((await loop.run_in_executor(None, sys.stdin.readline)).strip())
    turn: OpenTurn | None = None
    print("ready", flush=True)
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        word, *args = line.split()
        try:
            if word == "begin":
                begun = await store.history(USER, args[0]).begin(NewTurn(input=[HumanMessage(args[1])]), wait_s=30)
                assert isinstance(begun, OpenTurn)
                turn, answer = begun, "begun"
            elif word == "end":
                assert turn is not None
                await turn.end(Reply(status=TurnStatus.COMPLETE, output=[AIMessage(args[0])]))
                answer = "ended"
            else:
                turns = (whole_turn(store, args[0], f"{args[2]}-{n}") for n in range(int(args[1])))
                answer = " ".join(map(str, await asyncio.gather(*turns)))
        except HistoryError as error:
            answer = type(error).__name__
        print(answer, flush=True)
    await store.close()


if __name__ == "__main__":
    asyncio.run(main())

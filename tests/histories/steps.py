"""What the tests of a store do in few words."""

from __future__ import annotations

from typing import Any

from langchain_core.messages import AIMessage, HumanMessage

from histories.base import HistoryStore, NewTurn, OpenTurn, Reply, TurnStatus
from tests.store_holder import USER
from tests.tcp_proxy import Proxy

REPLY = Reply(status=TurnStatus.COMPLETE, output=[AIMessage("an answer")], tokens=2)


async def begun(store: HistoryStore, session: str = "s", words: str = "a question", **options: Any) -> OpenTurn:
    turn = await store.history(USER, session).begin(NewTurn(input=[HumanMessage(words)], tokens=3), **options)
    assert isinstance(turn, OpenTurn)
    return turn


async def record(store: HistoryStore, session: str = "s") -> list[tuple[str, list[object], list[object]]]:
    """The session's turns: status, what was said, what was answered."""
    turns = (await store.history(USER, session).turns(limit=1000)).items
    return [(t.status.value, [m.content for m in t.input], [m.content for m in t.output]) for t in turns]


async def answer_each_once(store: HistoryStore, proxy: Proxy) -> None:
    """Turns whose writes' answers are lost on their way back are tried again, and are no second turns."""
    for cut in range(4):
        proxy.cut_replies = 1
        turn = await begun(store, words=str(cut), window_tokens=1000)
        assert len(turn.past) == 2 * cut
        proxy.cut_replies = 1
        await turn.end(REPLY)
        assert await record(store) == [("complete", [str(n)], ["an answer"]) for n in range(cut + 1)]
    assert proxy.cuts == 8
    assert (await store.history(USER, "s").info()).turns == 4

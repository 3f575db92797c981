"""What the file store remembers of a session, so that it need not parse it again."""

from __future__ import annotations

from pathlib import Path

from langchain_core.messages import AIMessage, HumanMessage

from histories.base import NewTurn, OpenTurn, Reply, Turn, TurnStatus, now
from histories.filesystem import FileStore


async def test_a_past_of_many_messages_is_read_from_the_file_each_time(tmp_path: Path) -> None:
    store, at = FileStore(tmp_path, fsync=False), now()
    turns = [
        Turn(
            turn_id=f"t{number}",
            status=TurnStatus.COMPLETE,
            chain="",
            started_at=at,
            input=[HumanMessage("q")],
            output=[AIMessage("a")],
            tokens=2,
        )
        for number in range(250)
    ]
    history = store.history("alice", "long")
    await history.restore(turns, title="Long", created_at=at)
    for seen in (500, 502):
        turn = await history.begin(NewTurn(input=[HumanMessage("q")], tokens=1), window_tokens=100_000)
        assert isinstance(turn, OpenTurn)
        assert len(turn.past) == seen
        await turn.end(Reply(status=TurnStatus.COMPLETE, output=[AIMessage("a")], tokens=1))
    await store.close()

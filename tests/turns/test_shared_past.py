"""The window's messages are the store's own: whoever changes what a chain was given changes no later turn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import Runnable, RunnableLambda

from histories.files.store import FileStore
from tests.turns.test_with_history import PROMPT, config, question
from turns.run import Turns
from turns.with_history import ChainWithHistory


@pytest.mark.parametrize("way", ["ainvoke", "astream"])
async def test_a_chain_that_changes_its_past_changes_no_later_turn(tmp_path: Path, way: str) -> None:
    seen: list[list[Any]] = []

    def change(prompt: Any) -> AIMessage:
        seen.append([message.content for message in prompt.messages if isinstance(message, (HumanMessage, AIMessage))])
        for message in prompt.messages:
            message.content = "changed"
            message.additional_kwargs["changed"] = True
        return AIMessage(f"reply {len(seen)}")

    changing: Runnable[Any, Any] = PROMPT | RunnableLambda(change) | StrOutputParser()
    store = FileStore(tmp_path)
    await store.open()
    try:
        keys: dict[str, Any] = {"input_messages_key": "question", "history_messages_key": "history"}
        chain = ChainWithHistory(changing, Turns(store), **keys)
        for number in range(1, 4):
            if way == "ainvoke":
                await chain.ainvoke(question(f"question {number}"), config())
            else:
                assert [one async for one in chain.astream(question(f"question {number}"), config())]
    finally:
        await store.close()
    assert seen[2] == ["question 1", "reply 1", "question 2", "reply 2", "question 3"]

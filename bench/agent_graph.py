"""The benchmark's chain as the graph that servers of agents run: the same prompt, and the model of `BENCH_MODEL`."""

from __future__ import annotations

import os
from typing import Any

from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langgraph.graph import END, START, MessagesState, StateGraph

from bench.models import open_model

_SYSTEM = ("system", "You're an assistant who's good at math. Respond in 20 words or fewer.")
_CHAIN = ChatPromptTemplate.from_messages([_SYSTEM, MessagesPlaceholder("messages")]) | open_model(
    os.environ.get("BENCH_MODEL", "instant")
)


async def _answer(state: MessagesState) -> dict[str, Any]:
    return {"messages": [await _CHAIN.ainvoke({"messages": state["messages"]})]}


_builder = StateGraph(MessagesState)
_builder.add_node("answer", _answer)
_builder.add_edge(START, "answer")
_builder.add_edge("answer", END)
graph = _builder.compile()
"""Without a checkpointer: the server brings its own."""

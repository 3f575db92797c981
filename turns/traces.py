"""What tracers group runs by."""

from __future__ import annotations

from langchain_core.runnables import RunnableConfig


def traceable(
    config: RunnableConfig, user: str, session_id: str | None, thread: str | None, *, graph: bool
) -> RunnableConfig:
    """The config with user, session and thread in its metadata, in the words of LangSmith and of Langfuse.

    A graph gets the thread as `thread_id`, too, as LangGraph's own tools look for it.
    """
    marks = {"user_id": user, "langfuse_user_id": user}
    if session_id is not None and thread is not None:
        marks |= {"session_id": session_id, "thread_id": thread, "langfuse_session_id": thread}
        if graph:
            config = {**config, "configurable": {"thread_id": thread, **config.get("configurable", {})}}
    return {**config, "metadata": {**(config.get("metadata") or {}), **marks}}

"""What tracers group runs by, and what ties a turn to the run by which LangSmith knows it."""

from __future__ import annotations

from dataclasses import replace

from langchain_core.runnables import RunnableConfig
from langsmith.utils import tracing_is_enabled

from turns.outputs import Recorded


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


def with_run(done: Recorded, config: RunnableConfig) -> Recorded:
    """What is recorded of an output, with the id of its run: feedback on the turn is passed on by it."""
    run_id = config.get("run_id") or getattr(config.get("callbacks"), "parent_run_id", None)  # of a run around it
    if run_id is None or not tracing_is_enabled():
        return done
    return replace(done, details={**done.details, "run_id": str(run_id)})

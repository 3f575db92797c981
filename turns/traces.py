"""What ties a turn to the run by which LangSmith knows it, if runs are traced."""

from __future__ import annotations

from dataclasses import replace

from langchain_core.runnables import RunnableConfig
from langsmith.utils import tracing_is_enabled

from turns.outputs import Recorded


def with_run(done: Recorded, config: RunnableConfig) -> Recorded:
    """What is recorded of an output, with the id of its run: feedback on the turn is passed on by it."""
    run_id = config.get("run_id")
    if run_id is None or not tracing_is_enabled():
        return done
    return replace(done, details={**done.details, "run_id": str(run_id)})

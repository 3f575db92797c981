"""What users think of replies, passed on to LangSmith, by its own variables and beside the event loop."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from threading import BoundedSemaphore
from typing import Final
from uuid import NAMESPACE_OID, UUID, uuid5

from langsmith.utils import LangSmithNotFoundError, tracing_is_enabled

from histories.base import Feedback, SessionHistory

log = logging.getLogger("recollect.feedback")

KEY: Final = "user_score"
_WAITING: Final = 1000
"""More are not kept for a LangSmith that does not answer: each is on its turn's record all the same."""


class TracedFeedback:
    """Passes on what belongs to turns that were traced."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="recollect-langsmith")
        self._room = BoundedSemaphore(_WAITING)

    async def pass_on(self, history: SessionHistory, turn_id: str, feedback: Feedback) -> None:
        """Sends it soon. Without LangSmith's variables, or if the turn was not traced, nothing happens."""
        if not tracing_is_enabled():
            return
        run_id = (await history.turn(turn_id)).details.get("run_id")
        if run_id is not None and self._room.acquire(blocking=False):
            self._thread.submit(self._send, UUID(run_id), feedback)

    def _send(self, run_id: UUID, feedback: Feedback) -> None:
        try:
            _put(run_id, feedback)
        except Exception as error:  # noqa: BLE001 - whatever it is, the feedback is on the record
            log.warning("feedback could not be passed on to LangSmith: %s", type(error).__name__)
        finally:
            self._room.release()


def _put(run_id: UUID, feedback: Feedback) -> None:
    """One opinion a run: a later one takes the place of the one before."""
    from langsmith.run_trees import get_cached_client  # it takes long to import, and few servers need it

    client, feedback_id = get_cached_client(), uuid5(NAMESPACE_OID, f"recollect:{run_id}")
    score, comment = feedback["score"], feedback["comment"]
    try:
        client.update_feedback(feedback_id, score=score, comment=comment)
    except LangSmithNotFoundError:
        client.create_feedback(run_id, KEY, trace_id=run_id, feedback_id=feedback_id, score=score, comment=comment)

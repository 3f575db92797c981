"""The inputs of a batch: how many there may be, and which of them wait for each other."""

from __future__ import annotations

from collections.abc import Sequence

from langchain_core.runnables import RunnableConfig

from turns.errors import InvalidInput


def check_batch(size: int, most: int) -> None:
    """Raises `InvalidInput` for a batch that is too large."""
    if size > most:
        raise InvalidInput(f"A batch has at most {most} inputs (RECOLLECT_MAX_BATCH): send several of them.")


def by_session(configs: Sequence[RunnableConfig]) -> list[list[int]]:
    """The places of the configs, those of one session together; refuses a turn_id that is given twice."""
    sessions: dict[str, list[int]] = {}
    named: set[tuple[str, str]] = set()
    for place, config in enumerate(configs):
        configurable = config.get("configurable", {})
        session_id, turn_id = str(configurable.get("session_id")), configurable.get("turn_id")
        if turn_id and (session_id, turn_id) in named:
            raise InvalidInput("Give each input of a batch a turn_id of its own: a list of configs, one for each.")
        named.add((session_id, str(turn_id)))
        sessions.setdefault(session_id, []).append(place)
    return list(sessions.values())

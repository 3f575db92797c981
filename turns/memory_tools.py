"""Memory as tools, for agents: what they reach is the user's whose turn runs, which no argument can change."""

from __future__ import annotations

from typing import Any, Final

from langchain_core.tools import BaseTool, StructuredTool

from turns.notes import add_note
from turns.recall import chosen_aside, recalled
from turns.showing import Caller, caller

_BUDGET: Final = 1_500


def recall_tool(*, all_sessions: bool = False) -> BaseTool:
    """A tool that looks up what was said earlier in the session, or in all sessions of the user.

    For a chain that has it, say `recall="off"`: the model looks itself.
    """

    async def recall(query: str) -> str:
        """Looks up what was said earlier and is not shown any more. Give a few telling words."""
        who = _who()
        session_id = None if all_sessions else who.session_id
        found = await recalled(who.store, who.user_id, query, session_id=session_id, exclude=who.shown)
        texts = [text for _, text in await chosen_aside(found, query, _BUDGET)]
        return "\n\n".join(texts) or "Nothing was found."

    return _tool(recall)


def remember_tool() -> BaseTool:
    """A tool that notes something about the user, for all sessions to come: see `Chain.notes`."""

    async def remember(note: str) -> str:
        """Notes something about the user that is worth knowing in later conversations, in one sentence."""
        who = _who()
        if not note.strip():
            return "There is nothing in this note."
        kept = await add_note(who.store, who.user_id, note)
        return "Noted." if kept else "There are too many notes: the user may delete some."

    return _tool(remember)


def _tool(function: Any) -> BaseTool:
    return StructuredTool.from_function(coroutine=function)


def _who() -> Caller:
    who = caller.get()
    if who is None:
        raise RuntimeError("This tool works within a turn of a session.")
    return who

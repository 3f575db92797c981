"""What a client may say of the session and the turn that it means, as LangChain's schemas show it."""

from __future__ import annotations

from typing import Annotated, Any

from langchain_core.runnables import ConfigurableFieldSpec
from pydantic import WithJsonSchema

from histories.base import check_id
from turns.rules import ON_DISCONNECT

# A string, as the schemas say. But whatever is sent is let through to `check_id`, which says best what is wrong.
_Id = Annotated[Any, WithJsonSchema({"type": "string"})]

SESSION_SPECS = [
    ConfigurableFieldSpec(
        id="session_id",
        annotation=_Id,
        name="Session",
        description="The conversation: a name of your choice, of 1 to 128 characters.",
        default="",
        is_shared=True,
    ),
    ConfigurableFieldSpec(
        id="turn_id",
        annotation=_Id,
        name="Turn",
        description="Makes a retry safe: a turn of this name that is complete is answered from the record.",
        default="",
        is_shared=True,
    ),
    ConfigurableFieldSpec(
        id="version_of",
        annotation=_Id,
        name="Version of",
        description="The turn in whose place this one is to stand, as another version of it; the old one is kept.",
        default="",
        is_shared=True,
    ),
    ConfigurableFieldSpec(
        id="on_disconnect",
        annotation=Annotated[Any, WithJsonSchema({"type": "string", "enum": ["", *ON_DISCONNECT]})],
        name="On disconnect",
        description="What becomes of the turn when nobody listens any more; the server's own setting if it is empty.",
        default="",
        is_shared=True,
    ),
]


def id_or_none(configurable: dict[str, Any], name: str) -> str | None:
    """The id of that name, if the client has sent one. Raises `InvalidId`."""
    return check_id(configurable[name], name) if configurable.get(name) else None

"""How /chat shows itself: as LangServe's chat playground, which wants one text and one list of messages."""

from typing import Any

from pydantic import BaseModel, Field


class ChatInput(BaseModel):
    """What /chat takes."""

    input: str = Field(title="Message", description="What you say next.", examples=["Hi, I'm Ada. Who are you?"])
    history: list[Any] = Field(
        default=[],
        title="History",
        description="Ignored: the server keeps the history. The chat playground shows itself only if this is here.",
    )

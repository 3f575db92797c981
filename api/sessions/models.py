"""What /sessions takes and gives: the types of its bodies, as OpenAPI shows them."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, NotRequired, cast

from fastapi import Path
from langchain_core.messages import BaseMessage
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema
from typing_extensions import TypedDict

from histories.base import (
    Failure,
    Feedback,
    InvalidId,
    RecalledTurn,
    Session,
    Turn,
    Usage,
    check_id,
    message_to_json,
)
from turns.parts import parts_of

_ID_CHARACTERS = r"[^/\\\u0000-\u001f\u007f-\u009f]"
ID_PATTERN = f"^{_ID_CHARACTERS}*[^.\\s/\\\\\\u0000-\\u001f\\u007f-\\u009f]{_ID_CHARACTERS}*$"
"""`check_id`'s rule, for schemas."""

TITLE_PATTERN = r"[^\s\u0000-\u001f\u007f-\u009f]"

_WHEN = "2026-03-01T09:30:00.250000Z"
_TURN_ID = "0f8fad5bd9cb469fa16570867728950e"


def _proper_id(value: str) -> str:
    try:
        return check_id(value)
    except InvalidId:
        raise ValueError(
            "an id has 1 to 128 characters, without control characters, / or \\, and not only dots or spaces"
        ) from None


def _proper_title(value: str) -> str:
    title = " ".join("".join(" " if unicodedata.category(c) == "Cc" else c for c in value).split())
    if not title:
        raise ValueError("a title has 1 to 200 characters, and not only spaces")
    return title


def _id_schema(example: str) -> WithJsonSchema:
    schema = {"type": "string", "minLength": 1, "maxLength": 128, "pattern": ID_PATTERN, "examples": [example]}
    return WithJsonSchema(schema)


Id = Annotated[str, AfterValidator(_proper_id), _id_schema("physics")]
TurnId = Annotated[str, AfterValidator(_proper_id), _id_schema(_TURN_ID)]
SessionPath = Annotated[Id, Path(alias="session_id", description="The session's name, percent-encoded.")]
TurnPath = Annotated[TurnId, Path(alias="turn_id", description="The turn, percent-encoded.")]
Title = Annotated[str, Field(min_length=1, max_length=200, pattern=TITLE_PATTERN), AfterValidator(_proper_title)]


# Requests.


class Body(BaseModel):
    """A body has the fields that are named here and no others: a misspelt one is not passed over."""

    model_config = ConfigDict(extra="forbid")


class Rename(Body):
    """A new title. Control characters and runs of spaces become one space."""

    title: Title = Field(examples=["Physics homework"])


class NewSummary(Body):
    """A summary in the user's own words. The one there is replaced, and goes as far as it did."""

    text: str = Field(min_length=1, max_length=8_000, pattern=TITLE_PATTERN, examples=["The dogs are Rex and Lou."])


class Fork(Body):
    """Where to branch off, and what the new session is called."""

    session_id: Id = Field(description="The name of the new session.", examples=["physics-2"])
    turn_id: TurnId = Field(description="The last turn that the new session shares.", examples=[_TURN_ID])


class Rewind(Body):
    """Where the history is to end. With `keep`, what followed can be chosen again; without, it is forgotten."""

    turn_id: TurnId = Field(description="The first turn that is not shown any more.", examples=[_TURN_ID])
    keep: bool = False


class Choose(Body):
    """Which version is to be shown, with all that followed it."""

    turn_id: TurnId = Field(description="One of a turn's `versions`.", examples=[_TURN_ID])


class Opinion(Body):
    """What the user thinks of a reply: -1, 0 or 1, and why."""

    score: Literal[-1, 0, 1] = Field(examples=[1])
    comment: str = Field("", max_length=2000, examples=["Short and right."])


# Responses are dictionaries, written as JSON in ASCII: pydantic's own JSON can't hold the lone surrogates that
# messages may.

Time = Annotated[str, Field(json_schema_extra={"format": "date-time", "examples": [_WHEN]})]
Status = Literal["running", "complete", "interrupted", "failed"]


class Message(TypedDict):
    """One message, in the form of LangChain's `message_to_dict`."""

    type: Annotated[str, Field(examples=["human"])]
    data: Annotated[dict[str, Any], Field(examples=[{"content": "What does cosine mean?", "type": "human"}])]


class HitInfo(TypedDict):
    """A turn in which the words stand, and some of its text around them."""

    turn_id: Annotated[str, Field(examples=[_TURN_ID])]
    snippet: Annotated[str, Field(examples=["… the side next to the angle …"])]


class SessionInfo(TypedDict):
    """One conversation."""

    session_id: Annotated[str, Field(examples=["physics"])]
    title: Annotated[str, Field(examples=["What does cosine mean?"])]
    chain: Annotated[str, Field(description="The chain that answered last.", examples=["tutor"])]
    created_at: Time
    updated_at: Time
    turns: Annotated[int, Field(ge=0, examples=[1])]
    hits: NotRequired[Annotated[list[HitInfo], Field(description="Of a search: where its words stand.")]]
    running: NotRequired[Annotated[str | None, Field(description="The turn_id of the turn that runs, if one does.")]]


class SummaryInfo(TypedDict):
    """What was said in a session up to and with the turn `up_to`, in few words."""

    text: Annotated[str, Field(examples=["The dogs are Rex and Lou."])]
    up_to: Annotated[str, Field(examples=[_TURN_ID])]
    made_at: Time
    made_by: Annotated[str, Field(description='The name of a model, or "user".', examples=["user"])]


class SessionList(TypedDict):
    """A page of conversations, newest first. `next` is the `cursor` of the following page."""

    sessions: list[SessionInfo]
    next: str | None


_PARTS = "The reply in order, if it is more than text: `reasoning`, `text`, `tool_call`, `tool_result`, `source`."


class TurnInfo(TypedDict):
    """One exchange. `usage` is what the model counted, if it told. What is not always there comes last."""

    turn_id: Annotated[str, Field(examples=[_TURN_ID])]
    status: Status
    chain: Annotated[str, Field(examples=["tutor"])]
    started_at: Time
    ended_at: Time | None
    input: list[Message]
    output: list[Message]
    usage: Usage | None
    finish_reason: NotRequired[Annotated[str, Field(description="Why the reply ended.", examples=["stop", "length"])]]
    error: NotRequired[Annotated[Failure, Field(description="What the client was told of a failure.")]]
    parts: NotRequired[Annotated[list[dict[str, Any]], Field(description=_PARTS)]]
    recalled: NotRequired[Annotated[list[RecalledTurn], Field(description="Earlier turns that the model was shown.")]]
    feedback: NotRequired[Annotated[Feedback, Field(description="What the user thinks of the reply.")]]
    versions: NotRequired[Annotated[list[str], Field(description="The turn_ids of all versions at this place.")]]


class TurnList(TypedDict):
    """A page of turns, oldest first. `next` is the `before` of the page of older ones."""

    turns: list[TurnInfo]
    next: str | None


class Stopped(TypedDict):
    """Whether there was a turn to stop."""

    stopped: bool


class Problem(BaseModel):
    """What was wrong, and what to do about it: a sentence, or one for each field."""

    detail: str | list[dict[str, Any]]


def time_of(at: datetime) -> str:
    """ISO 8601 in UTC, to the microsecond."""
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")


def session_info(session: Session) -> SessionInfo:
    """The session as a list shows it."""
    info = SessionInfo(
        session_id=session.session_id,
        title=session.title,
        chain=session.chain,
        created_at=time_of(session.created_at),
        updated_at=time_of(session.updated_at),
        turns=session.turns,
    )
    if session.hits:
        info["hits"] = [HitInfo(turn_id=hit.turn_id, snippet=hit.snippet) for hit in session.hits]
    return info


def one_session_info(session: Session) -> SessionInfo:
    """The session by itself: with the turn that runs."""
    return SessionInfo(**session_info(session), running=session.running)


def turn_info(turn: Turn) -> TurnInfo:
    info = TurnInfo(
        turn_id=turn.turn_id,
        status=turn.status.value,
        chain=turn.chain,
        started_at=time_of(turn.started_at),
        ended_at=None if turn.ended_at is None else time_of(turn.ended_at),
        input=messages(turn.input),
        output=messages(turn.output),
        usage=turn.usage,
    )
    found = {
        "finish_reason": turn.details.get("finish_reason"),
        "error": turn.details.get("error"),
        "parts": parts_of(turn),
        "recalled": turn.details.get("recalled"),
        "feedback": turn.feedback,
        "versions": list(turn.versions),
    }
    return cast(TurnInfo, {**info, **{name: value for name, value in found.items() if value}})


def messages(said: Sequence[BaseMessage]) -> list[Message]:
    return [cast(Message, message_to_json(message)) for message in said]

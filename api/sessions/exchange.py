"""Conversations that leave and come back, as JSON that loses nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self, cast

from langchain_core.messages import BaseMessage, ChatMessage
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    PlainValidator,
    WithJsonSchema,
    model_validator,
)

from api.sessions.models import Body, Id, Opinion, Title, TurnId, time_of
from histories.base import (
    MOST_TOKENS,
    Feedback,
    InvalidId,
    Session,
    Summary,
    Turn,
    TurnDetails,
    TurnStatus,
    UnknownMessage,
    Usage,
    dump,
    estimate_tokens,
    message_from_json,
    message_to_json,
    undump,
)

MAX_TURNS = 20_000
_MAX_MESSAGES = 1_000
_MAX_DEPTH = 100
"""What is nested deeper could be read by no JSON parser here once it is wrapped in a record."""

_REFUSED = ("system", "remove")
_ROLES = ("user", "human", "assistant", "ai")


def _message(value: object) -> BaseMessage:
    """A message of an import. Raises ValueError."""
    if _is_too_deep(value):
        raise ValueError("this message is nested too deeply")
    try:
        message = message_from_json(undump(value))
    except UnknownMessage:
        raise
    except Exception as error:
        raise UnknownMessage("this is not one of LangChain's messages") from error
    role = message.role if isinstance(message, ChatMessage) else "user"
    if message.type in _REFUSED or role not in _ROLES:
        raise UnknownMessage("what speaks with the voice of the system can't be imported")
    return message


def _is_too_deep(value: object) -> bool:
    level = [value]
    for _ in range(_MAX_DEPTH):
        inner = [v.values() if isinstance(v, dict) else v for v in level if isinstance(v, (dict, list))]
        level = [part for parts in inner for part in parts]
    return bool(level)


def _plain(message: BaseMessage) -> Any:
    """`message_to_json`, or, where two lone surrogates would read back as one character, its packed form."""
    return json.loads(dump(message_to_json(message)))


def _text(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError("a time is ISO 8601, with its offset from UTC")
    return value


def _utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError("this time does not exist in UTC") from None


_MESSAGE_SCHEMA = {
    "type": "object",
    "description": "LangChain's `message_to_dict` form. System messages are refused.",
    "required": ["type", "data"],
    "properties": {
        "type": {"enum": ["human", "ai", "tool", "function", "chat"]},
        "data": {
            "type": "object",
            "required": ["content"],
            "properties": {
                "content": {
                    "anyOf": [
                        {"type": "string"},
                        {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "object"}]}},
                    ]
                }
            },
        },
    },
    "examples": [{"type": "human", "data": {"content": "What does cosine mean?"}}],
}

ExchangedMessage = Annotated[
    BaseMessage, PlainValidator(_message), PlainSerializer(_plain), WithJsonSchema(_MESSAGE_SCHEMA)
]
Messages = Annotated[list[ExchangedMessage], Field(max_length=_MAX_MESSAGES)]
ExchangedTime = Annotated[
    AwareDatetime, BeforeValidator(_text), AfterValidator(_utc), PlainSerializer(time_of, return_type=str)
]
Count = Annotated[int, Field(strict=True, ge=0, lt=2**53)]


class ExchangedUsage(Body):
    """What the model counted."""

    input_tokens: Count
    output_tokens: Count
    total_tokens: Count


Ended = Literal["complete", "interrupted", "failed"]
_ENDED: dict[TurnStatus, Ended] = {TurnStatus.COMPLETE: "complete", TurnStatus.FAILED: "failed"}


def _details(value: dict[str, Any]) -> dict[str, Any]:
    """What came beside the text. The parts that are looked into have to be what they are taken for."""
    if _is_too_deep(value):
        raise ValueError("the details are nested too deeply")
    kinds: dict[str, type] = {"finish_reason": str, "reasoning": str, "key": str, "error": dict, "sources": list}
    for name, kind in kinds.items():
        if name in value and not isinstance(value[name], kind):
            raise ValueError(f"details.{name} is a {kind.__name__}")
    if not all(isinstance(source, dict) for source in value.get("sources", ())):
        raise ValueError("details.sources are objects")
    return {name: part for name, part in value.items() if name != "run_id"}  # a run is this server's own


Details = Annotated[dict[str, Any], AfterValidator(_details)]


class ExchangedTurn(Body):
    """One turn that has ended. `kind` is the shape that the chain's output had."""

    turn_id: TurnId
    status: Ended
    chain: str = Field(pattern="^[a-z0-9_-]*$", max_length=64, examples=["tutor"])
    started_at: ExchangedTime
    ended_at: ExchangedTime | None = None
    input: Messages
    output: Messages
    usage: ExchangedUsage | None = None
    kind: str = Field("", pattern="^[a-z:]*$", max_length=64, examples=["message"])
    details: Details = Field(default_factory=dict)
    feedback: Opinion | None = None

    @staticmethod
    def of(turn: Turn) -> ExchangedTurn:
        """A turn as it leaves: one that still runs, as a crash at this moment would leave it."""
        return ExchangedTurn.model_construct(
            turn_id=turn.turn_id,
            status=_ENDED.get(turn.status, "interrupted"),
            chain=turn.chain,
            started_at=turn.started_at,
            ended_at=turn.ended_at,
            input=list(turn.input),
            output=list(turn.output),
            usage=None if turn.usage is None else ExchangedUsage.model_construct(**turn.usage),
            kind=turn.kind,
            details={name: value for name, value in turn.details.items() if name != "run_id"},
            feedback=None if turn.feedback is None else Opinion.model_construct(**cast(Any, turn.feedback)),
        )

    def turn(self) -> Turn:
        usage = None if self.usage is None else cast(Usage, self.usage.model_dump())
        turn = Turn(
            turn_id=self.turn_id,
            status=TurnStatus(self.status),
            chain=self.chain,
            started_at=self.started_at,
            ended_at=self.ended_at,
            input=self.input,
            output=self.output,
            usage=usage,
            kind=self.kind,
            details=cast(TurnDetails, self.details),
            feedback=None if self.feedback is None else cast(Feedback, self.feedback.model_dump()),
        )
        tokens = min(estimate_tokens([*self.input, *self.output]), MOST_TOKENS)
        return replace(turn, tokens=tokens) if turn.shown else turn


class ExchangedSummary(Body):
    """What was said up to and with the turn `up_to`, in few words. `made_by` is a model's name, or "user"."""

    text: str = Field(min_length=1, max_length=20_000)
    up_to: TurnId
    made_at: ExchangedTime
    made_by: str = Field(min_length=1, max_length=200, examples=["user"])

    @staticmethod
    def of(summary: Summary) -> ExchangedSummary:
        """A summary as it leaves."""
        return ExchangedSummary.model_construct(
            text=summary.text, up_to=summary.up_to, made_at=summary.made_at, made_by=summary.made_by
        )

    def among(self, turns: Sequence[Turn]) -> Summary:
        """The summary of a session of these turns. Raises `InvalidId` if it names none of them."""
        turn = next((one for one in turns if one.turn_id == self.up_to), None)
        if turn is None:
            raise InvalidId("summary.up_to: send the turn_id of one of the turns.")
        return Summary(self.text, self.up_to, turn.started_at, self.made_at, self.made_by)


class Conversation(Body):
    """A whole session: what `export` gives, and `import` takes. It belongs to whoever imports it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "version": 1,
                    "session_id": "physics",
                    "title": "What does cosine mean?",
                    "created_at": "2026-03-01T09:30:00.250000Z",
                    "turns": [
                        {
                            "turn_id": "0f8fad5bd9cb469fa16570867728950e",
                            "status": "complete",
                            "chain": "tutor",
                            "started_at": "2026-03-01T09:30:00.250000Z",
                            "ended_at": "2026-03-01T09:30:01.500000Z",
                            "input": [{"type": "human", "data": {"content": "What does cosine mean?"}}],
                            "output": [{"type": "ai", "data": {"content": "Adjacent over hypotenuse."}}],
                            "usage": {"input_tokens": 31, "output_tokens": 6, "total_tokens": 37},
                            "kind": "message",
                        }
                    ],
                }
            ]
        }
    )

    version: Literal[1]
    session_id: Id
    title: Title
    created_at: ExchangedTime
    summary: ExchangedSummary | None = None
    turns: list[ExchangedTurn] = Field(max_length=MAX_TURNS)

    @model_validator(mode="after")
    def _each_turn_once(self) -> Self:
        if len({turn.turn_id for turn in self.turns}) < len(self.turns):
            raise ValueError("turns: each turn_id may be there only once")
        return self


class Unread:
    """A body that is shown as a `Conversation`, and is left as it came: `read_conversation` reads it."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> Any:
        return handler(Any)

    def __get_pydantic_json_schema__(self, schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return handler(Conversation.__pydantic_core_schema__)


def read_conversation(body: object) -> tuple[Conversation, list[Turn]]:
    """An import, with its turns. Raises `ValidationError`, and `UnknownMessage`."""
    conversation = Conversation.model_validate(body)
    return conversation, [turn.turn() for turn in conversation.turns]


def conversation_of(session: Session, summary: Summary | None = None) -> dict[str, Any]:
    """What `Conversation` takes back, without a turn; without a summary, if there is none."""
    told = Conversation.model_construct(
        version=1,
        session_id=session.session_id,
        title=session.title,
        created_at=session.created_at,
        summary=None if summary is None else ExchangedSummary.of(summary),
        turns=[],
    )
    return told.model_dump(exclude={"summary"} if summary is None else None)

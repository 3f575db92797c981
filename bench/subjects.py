"""What is measured: four servers of one chain, `prompt | model`, under `/tutor`. Only Recollect's imports Recollect."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

from fastapi import FastAPI, Request
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from pydantic import BaseModel
from starlette.types import ASGIApp

from bench.models import TOKENS, open_model

USER = "bench"

_SYSTEM = ("system", "You're an assistant who's good at {ability}. Respond in 20 words or fewer.")
_HUMAN = ("human", "{input}")
FORGETFUL = ChatPromptTemplate.from_messages([_SYSTEM, _HUMAN])
REMEMBERING = ChatPromptTemplate.from_messages([_SYSTEM, MessagesPlaceholder("history"), _HUMAN])


class TutorInput(BaseModel):
    ability: str
    input: str


class FrameBody(BaseModel):
    input: TutorInput
    config: dict[str, Any] = {}


def recollect(model: str, folder: Path, store: str = "file:") -> tuple[ASGIApp, dict[str, str]]:
    """This project as it is served, fsync on, histories at the URL `store`; and the header that signs the client in."""
    from auth.middleware import Auth
    from server import create_app
    from settings import Settings

    _, key = Auth(folder).keys.create(USER)
    served = model.startswith("http")
    settings = Settings(
        data_dir=folder,
        history_url=store,
        openai_base_url=model if served else None,
        model="stub",
        turns_per_user=10_000,  # all its clients are one user
        turns_in_line=10_000,
    )
    app = create_app(settings, model=None if served else open_model(model))
    return app, {"Authorization": f"Bearer {key}"}


def langserve(model: str, folder: Path) -> tuple[ASGIApp, dict[str, str]]:
    """LangServe as its README mounts a chain. It remembers nothing."""
    from langserve import add_routes

    app = FastAPI()
    add_routes(app, FORGETFUL | open_model(model), path="/tutor")
    return app, {}


def example(model: str, folder: Path) -> tuple[ASGIApp, dict[str, str]]:
    """LangServe's way to a history for each user and each session, in files: what its example does, in fewer lines."""
    from langchain_community.chat_message_histories import FileChatMessageHistory
    from langchain_core.runnables import ConfigurableFieldSpec
    from langchain_core.runnables.history import RunnableWithMessageHistory
    from langserve import add_routes

    def history(user_id: str, session_id: str) -> Any:
        place = folder / user_id / f"{session_id}.json"
        place.parent.mkdir(parents=True, exist_ok=True)
        return FileChatMessageHistory(str(place))

    def with_user(config: dict[str, Any], request: Request) -> dict[str, Any]:
        config["configurable"]["user_id"] = request.headers["x-user"]
        return config

    remembering = RunnableWithMessageHistory(
        REMEMBERING | open_model(model),
        history,
        input_messages_key="input",
        history_messages_key="history",
        history_factory_config=[
            ConfigurableFieldSpec(id=name, annotation=str, default="", is_shared=True)
            for name in ("user_id", "session_id")
        ],
    ).with_types(input_type=TutorInput)
    app = FastAPI()
    add_routes(app, remembering, path="/tutor", per_req_config_modifier=with_user)
    return app, {"x-user": USER}


def frame(model: str, folder: Path) -> tuple[ASGIApp, dict[str, str]]:
    """FastAPI and sse-starlette alone, with answers of the same shape: what no server built on them can beat."""
    from sse_starlette import EventSourceResponse

    app = FastAPI()

    def message(content: str, kind: str) -> dict[str, Any]:
        data: dict[str, Any] = {
            "content": content,
            "additional_kwargs": {},
            "response_metadata": {},
            "type": kind,
            "name": None,
        }
        return {**data, "id": str(uuid4()), "tool_calls": [], "invalid_tool_calls": [], "usage_metadata": None}

    async def events() -> AsyncIterator[dict[str, str]]:
        yield {"event": "metadata", "data": json.dumps({"run_id": str(uuid4())})}
        for token in TOKENS:
            yield {"event": "data", "data": json.dumps(message(token, "AIMessageChunk"))}
        yield {"event": "end"}

    @app.post("/tutor/invoke")
    async def invoke(body: FrameBody) -> dict[str, Any]:
        return {"output": message("".join(TOKENS), "ai"), "metadata": {"run_id": str(uuid4())}}

    @app.post("/tutor/stream")
    async def stream(body: FrameBody) -> EventSourceResponse:
        return EventSourceResponse(events())

    return app, {}


SUBJECTS: dict[str, Callable[[str, Path], tuple[ASGIApp, dict[str, str]]]] = {
    "recollect": recollect,
    "langserve": langserve,
    "example": example,
    "frame": frame,
}
LABELS = {
    "recollect": "Recollect",
    "langserve": "LangServe, no history",
    "example": "LangServe's example, file histories",
    "frame": "the bare frame",
    "model": "the model itself, asked by the clients",
    "aegra": "Aegra, PostgreSQL",
    "langgraph": "langgraph dev, in memory",
    "file": "files",
    "redis": "Redis",
    "postgres": "PostgreSQL",
    "one": "one server",
    "two": "two servers",
}

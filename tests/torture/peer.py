"""The same torture for LangServe's example with `FileChatMessageHistory`: `python -m tests.torture --peer`.

The example's server is run by the benchmark's environment for peers (`make bench` makes it). It has no turn_ids: a
turn is found on the record by what was said.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

PYTHON = Path(__file__).parent.parent.parent / "bench" / ".venv-peers" / "bin" / "python"


def serve(port: int, folder: Path) -> None:
    """Serves `/chat` as LangServe's documentation says; the bearer is taken for the user."""
    import uvicorn
    from fastapi import FastAPI, Request
    from langchain_community.chat_message_histories import FileChatMessageHistory
    from langchain_core.output_parsers import StrOutputParser
    from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
    from langchain_core.runnables import ConfigurableFieldSpec
    from langchain_core.runnables.history import RunnableWithMessageHistory
    from langchain_openai import ChatOpenAI
    from langserve import add_routes

    def history(user_id: str, session_id: str) -> Any:
        (folder / user_id).mkdir(parents=True, exist_ok=True)
        return FileChatMessageHistory(str(folder / user_id / f"{session_id}.json"))

    def with_user(config: dict[str, Any], request: Request) -> dict[str, Any]:
        config["configurable"]["user_id"] = request.headers["authorization"].removeprefix("Bearer ")
        return config

    prompt = ChatPromptTemplate.from_messages([MessagesPlaceholder("history"), ("human", "{input}")])
    specs = [
        ConfigurableFieldSpec(id=name, annotation=str, default="", is_shared=True) for name in ("user_id", "session_id")
    ]
    chain = RunnableWithMessageHistory(
        prompt | ChatOpenAI(model_name="stub", max_retries=0) | StrOutputParser(),
        history,
        input_messages_key="input",
        history_messages_key="history",
        history_factory_config=specs,
    ).with_types(output_type=str)
    app = FastAPI()
    add_routes(app, chain, path="/chat", per_req_config_modifier=with_user)

    @app.get("/healthz")
    def healthz() -> dict[str, str]:
        return {}

    uvicorn.run(app, port=port, log_level="critical")


def record(folder: Path, user: str, session: str) -> list[tuple[str, str]]:
    """What each turn of a session said, and was answered; nothing if the file can't be read any more."""
    try:
        messages = json.loads((folder / user / f"{session}.json").read_text())
    except (OSError, ValueError):
        return []
    said = [(message["type"], str(message["data"]["content"])) for message in messages]
    return [
        (text, following[1] if following[0] != "human" else "")
        for (kind, text), following in zip(said, [*said[1:], ("human", "")], strict=True)
        if kind == "human"
    ]


if __name__ == "__main__":
    serve(int(os.environ["RECOLLECT_PORT"]), Path(sys.argv[1]))

"""/sessions does what the OpenAPI document says: schemathesis asks, alone and in sequences of calls.

How often it asks of each route is `RECOLLECT_TEST_EXAMPLES`; without bounds: `make contract`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hypothesis
import schemathesis
from fastapi import FastAPI
from schemathesis import Case
from schemathesis.config import SchemathesisConfig

from auth.middleware import Auth
from histories.memory import MemoryStore
from server import create_app
from settings import Settings
from tests.echo_model import EchoModel
from tests.examples import tries
from tests.live_server import langserve_warns

pytestmark = langserve_warns
BRIEFLY = hypothesis.settings(
    max_examples=tries(10),
    stateful_step_count=6,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)


SELDOM = hypothesis.settings(BRIEFLY, max_examples=tries(3))
"""For whole sessions, of which one takes up to seconds to draw, and milliseconds to ask."""


def document(folder: Path) -> Any:
    """The schema of /sessions, bound to a server of which Alice is a user."""
    _, key = Auth(folder).keys.create("alice")
    bearer = {"Authorization": f"Bearer {key}"}
    settings = Settings(data_dir=folder, copies_per_minute=0, sign_ins_per_minute=0)
    app: FastAPI = create_app(settings, model=EchoModel(), store=MemoryStore(), chains=[])
    # No schema can say which cursors there are, nor all of what LangChain's messages hold: such a 422 is no breach.
    lenient = {"positive_data_acceptance": {"enabled": False}}
    config = SchemathesisConfig.from_dict({"headers": bearer, "checks": lenient})
    everything = schemathesis.openapi.from_asgi("/openapi.json", app, config=config, headers=bearer)
    return everything.include(path_regex="^/sessions")


def test_each_route_keeps_its_word(tmp_path: Path) -> None:
    for result in document(tmp_path).get_all_operations():
        operation = result.ok()

        @(SELDOM if operation.label == "POST /sessions/import" else BRIEFLY)
        @hypothesis.given(case=operation.as_strategy())
        def ask(case: Case[Any]) -> None:
            case.call_and_validate()

        ask()


def test_sequences_of_calls_keep_their_word(tmp_path: Path) -> None:
    document(tmp_path).as_state_machine().run(settings=BRIEFLY)

"""What tests keep from one app to the next changes nothing about the apps."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Query

from tests.built_once import built_once
from tests.live_server import ROOT

PROGRAM = """
import json, sys
from contextlib import nullcontext
from pathlib import Path
from server import create_app
from settings import Settings
from tests.built_once import built_once
from tests.echo_model import EchoModel
with built_once() if sys.argv[2] == "once" else nullcontext():
    for _ in range(2 if sys.argv[2] == "once" else 1):
        app = create_app(Settings(data_dir=Path(sys.argv[1])), model=EchoModel())
        print(json.dumps(app.openapi(), sort_keys=True))
"""


def test_an_app_of_kept_parts_says_of_itself_what_one_says_that_is_built_alone(tmp_path: Path) -> None:
    """In processes of their own: LangServe counts the models of a process that have one name."""

    def described(how: str) -> list[str]:
        command = [sys.executable, "-W", "ignore", "-c", PROGRAM, str(tmp_path), how]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()

    (alone,) = described("alone")
    assert described("once") == [alone, alone]


@pytest.mark.parametrize("default", [0, False, 0.0, "0"])
async def test_functions_of_one_code_keep_their_own_defaults_bounds_and_state(default: Any) -> None:
    def app_of(default: Any, most: int, name: str) -> FastAPI:
        app = FastAPI()

        @app.get("/")
        async def route(kept: Any = default) -> dict[str, Any]:
            return {"kept": kept, "name": name}

        @app.get("/bounded")
        async def bounded(n: int = Query(le=most)) -> int:
            return n

        return app

    async def ask(app: FastAPI, path: str) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://recollect.test") as client:
            return await client.get(path)

    with built_once():
        few, many = app_of(0, 5, "few"), app_of(default, 50, "many")
        assert (await ask(few, "/")).json() == {"kept": 0, "name": "few"}
        assert (await ask(many, "/")).text == json.dumps({"kept": default, "name": "many"}, separators=(",", ":"))
        assert [(await ask(app, "/bounded?n=50")).status_code for app in (few, many)] == [422, 200]

"""What a start costs: what it imports, and what it leaves for later."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

SERVES = """
import asyncio, json, sys, tempfile
from pathlib import Path
from langchain_core.language_models import FakeListChatModel
from server import create_app
from settings import Settings

async def main():
    app = create_app(Settings(data_dir=Path(tempfile.mkdtemp())), model=FakeListChatModel(responses=["6"]))
    async with app.router.lifespan_context(app):
        print(json.dumps(sorted(sys.modules)))

asyncio.run(main())
"""

NOT_AT_A_START = {
    "cryptography": "JSON Web Tokens: 9 MB",
    "jwt": "cookies and JSON Web Tokens",
    "langgraph": "the agent that ships: 12 MB and a quarter of a second",
    "langchain": "the same",
    "openai": "the model's client: where it is another model, there is none",
    "langchain_openai": "the same",
    "rich": "httpx's command line",
    "pygments": "the same",
    "xllamacpp": "the embedded model",
    "psycopg": "histories in PostgreSQL",
    "redis": "histories in Redis",
    "fastapi_offline": "the pages of /docs, of which the files alone are used",
    "opentelemetry.exporter": "traces",
}
"""What a server in files does without until it is asked for it, and what it is for."""


@pytest.fixture(scope="module")
def imported() -> set[str]:
    """What a server has imported that waits for its first request."""
    done = subprocess.run([sys.executable, "-c", SERVES], cwd=ROOT, capture_output=True, text=True, check=True)
    names: list[str] = json.loads(done.stdout)
    return set(names)


@pytest.mark.parametrize("name", NOT_AT_A_START)
def test_a_server_that_waits_has_not_imported(imported: set[str], name: str) -> None:
    assert name not in imported, NOT_AT_A_START[name]

"""Environments of their own for the peers: Recollect's lock does not name what only they need."""

from __future__ import annotations

import subprocess
import sys
import venv
from importlib.metadata import version
from pathlib import Path
from typing import Final

_SAME = (
    "fastapi", "httptools", "langchain-core", "langchain-openai", "langserve", "orjson", "pydantic", "sse-starlette",
    "starlette", "uvicorn", "uvloop",
)  # fmt: skip
"""What peers share with Recollect, in the same versions: the server is what differs, not what it stands on."""


_OF_AGENTS: Final = {
    # greenlet: SQLAlchemy's asyncio needs it, and Aegra does not name it.
    "aegra": ["aegra-api==0.6.0", "greenlet", "httptools", "langchain-core", "langchain-openai", "uvloop"],
    "langgraph": ["langgraph-cli[inmem]==0.4.40", "langchain-core", "langchain-openai"],
}
"""Servers of agents: they need other versions of Starlette and sse-starlette than LangServe, so each has its own."""


def python_of_peers() -> str | None:
    """The Python that has the peers' packages, installed at the first call; None if that can't be done."""
    return _python_of("peers", [*map(_same, _SAME), "langchain-community>=0.4,<0.5"])


def python_of_agents(subject: str) -> str | None:
    """The same for `aegra` or `langgraph`."""
    return _python_of(subject, [_same(name) if name in _SAME else name for name in _OF_AGENTS[subject]])


def _same(name: str) -> str:
    return f"{name}=={version(name)}"


def _python_of(name: str, wanted: list[str]) -> str | None:
    folder = Path(__file__).parent / f".venv-{name}"
    python, stamp = folder / "bin" / "python", folder / "made"
    if not stamp.exists() or stamp.read_text() != "\n".join(wanted):
        print(f"Installing {name} into {folder.name} (once, about half a minute)", file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted]
        if subprocess.run(install, check=False, stdout=sys.stderr).returncode != 0:
            return None
        stamp.write_text("\n".join(wanted))
    return str(python)

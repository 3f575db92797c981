"""An environment of their own for the peers: Recollect's lock does not name what only they need."""

from __future__ import annotations

import subprocess
import sys
import venv
from importlib.metadata import version
from pathlib import Path

_FOLDER = Path(__file__).parent / ".venv-peers"
_SAME = (
    "fastapi", "httptools", "langchain-core", "langchain-openai", "langserve", "orjson", "pydantic", "sse-starlette",
    "starlette", "uvicorn", "uvloop",
)  # fmt: skip
"""What peers share with Recollect, in the same versions: the server is what differs, not what it stands on."""


def python_of_peers() -> str | None:
    """The Python that has the peers' packages, installed at the first call; None if that can't be done."""
    python, stamp = _FOLDER / "bin" / "python", _FOLDER / "made"
    wanted = [f"{name}=={version(name)}" for name in _SAME] + ["langchain-community>=0.4,<0.5"]
    if not stamp.exists() or stamp.read_text() != "\n".join(wanted):
        print(f"Installing the peers into {_FOLDER.name} (once, about half a minute)", file=sys.stderr)
        venv.create(_FOLDER, with_pip=True, clear=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted]
        if subprocess.run(install, check=False, stdout=sys.stderr).returncode != 0:
            return None
        stamp.write_text("\n".join(wanted))
    return str(python)

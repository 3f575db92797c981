"""python -m tests.contract [SECONDS]: schemathesis, all checks. Its exit status is whether it found nothing."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from auth.keys import ApiKeys
from tests.contract.rules import CONFIG
from tests.live_server import ROOT, serve_here
from tests.openai_stub import OpenAIStub


def main(seconds: str = "300") -> int:
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder, "schemathesis.toml")
        config.write_text(CONFIG)
        options: dict[str, Any] = {"copies_per_minute": 0, "sign_ins_per_minute": 0, "history_url": "memory:"}
        with OpenAIStub() as model, serve_here(Path(folder), openai_base_url=model.base_url, **options) as server:
            _, key = ApiKeys(server.data_dir).create("alice", scopes=("chat", "metrics"))
            program = [
                Path(sys.executable).parent / "schemathesis",
                "--config-file",
                config,
                "run",
            ]  # without --checks: all of them
            program += [f"{server.url}/openapi.json", "--header", f"Authorization: Bearer {key}"]
            program += ["--max-time", seconds, "--continue-on-failure", "--suppress-health-check", "all"]
            return subprocess.run([*map(str, program)], cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

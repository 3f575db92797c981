"""web/client.js on Node, as JavaScript users have it, against a server that runs."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.live_server import ROOT, langserve_warns, serve_here
from tests.openai_stub import OpenAIStub

pytestmark = langserve_warns


def test_the_client_does_on_node_what_it_says(tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None and os.environ.get("CI") != "true":
        pytest.skip("Node is not installed (Debian: apt install nodejs)")
    with OpenAIStub() as stub, serve_here(tmp_path, openai_base_url=stub.base_url) as server:
        client = tmp_path / "client.mjs"
        with server.client() as alice:
            client.write_bytes(alice.get("/web/client.js").content)
        keys = {"ALICE": server.key("alice"), "BOB": server.key("bob")}
        done = subprocess.run(
            [node or "node", "--test", "--test-reporter=tap", str(ROOT / "tests/js/client.test.mjs")],
            env={"PATH": os.environ["PATH"], "CLIENT": str(client), "URL": server.url, **keys},
            capture_output=True,
            text=True,
            timeout=280,
        )
    assert done.returncode == 0, done.stdout + done.stderr

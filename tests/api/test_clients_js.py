"""JavaScript's `RemoteRunnable` (of @langchain/core 0.3, the last that has one) on Node, against a server that runs."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.live_server import ROOT, langserve_warns, serve_here
from tests.openai_stub import OpenAIStub

pytestmark = langserve_warns
JS = ROOT / "tests" / "js"


@pytest.fixture(scope="module")
def packages() -> None:
    """What package-lock.json names, installed. Where that can't be had the test is skipped; in CI it fails."""
    installed = JS / "node_modules" / ".package-lock.json"
    if installed.exists() and installed.stat().st_mtime > (JS / "package-lock.json").stat().st_mtime:
        return
    try:
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        subprocess.run(command, cwd=JS, check=True, capture_output=True, text=True, timeout=90)
    except (OSError, subprocess.SubprocessError) as error:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(f"npm can't install @langchain/core here: {getattr(error, 'stderr', None) or error}")


@pytest.mark.usefixtures("packages")
def test_remote_runnable_on_node_does_all_that_it_can(tmp_path: Path) -> None:
    with OpenAIStub() as stub, serve_here(tmp_path, openai_base_url=stub.base_url, on_disconnect="stop") as server:
        keys = {"ALICE": server.key("alice"), "BOB": server.key("bob")}
        done = subprocess.run(
            ["node", "--test", "--test-reporter=tap", "remote_runnable.test.mjs"],
            cwd=JS,
            env={"PATH": os.environ["PATH"], "URL": server.url, **keys},
            capture_output=True,
            text=True,
            timeout=100,
        )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_lock_names_no_address_and_no_other_major_version() -> None:
    lock = json.loads((JS / "package-lock.json").read_text())
    assert lock["packages"]["node_modules/@langchain/core"]["version"].startswith("0.3.")
    assert all("resolved" not in package for package in lock["packages"].values())
    assert all("integrity" in package for name, package in lock["packages"].items() if name)

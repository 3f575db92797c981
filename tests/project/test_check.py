"""What `make check` asks of the tree, but for the types: those alone take longer than a test may."""

from __future__ import annotations

import subprocess

import pytest

from tests.live_server import ROOT


def commands() -> list[str]:
    """The commands of `make check`, as make would run them."""
    made = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", "--old-file", ".venv/dev.ok", "check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [line for line in made.stdout.splitlines() if " -m mypy" not in line]


@pytest.mark.parametrize("command", commands())
def test_the_tree_is_as_the_check_wants_it(command: str) -> None:
    done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr

"""The short form of the fuzz: see the package."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.world import throw
from tests.live_server import langserve_warns
from tests.proofs import proves

pytestmark = [*langserve_warns, pytest.mark.filterwarnings("ignore")]  # LangChain warns of much that is said here


@proves("G10")
def test_no_output_keeps_a_session_or_fails_without_a_reason_in_the_log(tmp_path: Path) -> None:
    found = throw(60, tmp_path)
    assert found.faults == []
    assert found.failed > 3

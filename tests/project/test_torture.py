"""A few seconds of the torture run, on files or, in the long form, on each store; `make torture` goes on for minutes.

What kills and pauses do to Redis and PostgreSQL is in tests/histories/test_several_servers.py, too.
"""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.examples import LONG
from tests.live_server import ROOT
from tests.proofs import proves

_NOTHING = re.compile(
    r"(\d+) acknowledged turns in \d+ sessions: 0 lost, 0 torn, 0 out of order, 0 crossed, 0 misheard, 0 hung"
)


@proves("G1", "G6", "G12")
@pytest.mark.parametrize("store", ["file:", "redis", "postgres"] if LONG else ["file:"])
def test_what_clients_were_told_is_on_the_record_whatever_is_killed_meanwhile(store: str) -> None:
    words = "--minutes 0.05 --turns 12 --every 2 --servers 2 --workers 1 --clients 4"
    words += " --watchers 4 --changers 3 --sessions 2"
    command = [sys.executable, "-m", "tests.torture", "--store", store, *words.split()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    found = _NOTHING.search(done.stdout)
    assert found is not None, done.stdout + done.stderr[-2000:]
    assert done.returncode == 0
    assert not re.search(r"^0 kills, 0 pauses, 0 faults", done.stdout, re.MULTILINE)
    assert int(found[1]) > 5

"""Names that nothing else has."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from histories.base import check_id, new_id, new_name, new_uuid
from tests.live_server import ROOT

MAKERS = [new_id, new_name, new_uuid]


@pytest.fixture
def seed() -> Iterator[Callable[[], None]]:
    """Seeds Python's generator, which is as it was again afterwards."""
    state = random.getstate()
    yield lambda: random.seed(42)
    random.setstate(state)


@pytest.mark.parametrize("make", MAKERS)
def test_whoever_seeds_pythons_generator_changes_nothing(make: Callable[[], Any], seed: Callable[[], None]) -> None:
    made = set[Any]()
    for _ in range(3):
        seed()
        made.add(make())
    assert len(made) == 3


FORK = """
import os
from histories.unique import new_id, new_name, new_uuid
os.fork() and os.wait()
print(new_id(), new_name(), new_uuid(), flush=True)
"""


def test_a_process_that_is_forked_makes_others() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORK], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    assert len({*done.stdout.split()}) == 2 * len(MAKERS)


def test_they_are_as_long_as_they_say() -> None:
    assert len(check_id(new_id())) == 32
    assert len(new_name()) == 16
    assert new_uuid().version == 4

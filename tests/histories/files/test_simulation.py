"""Some schedules of the simulation (`make simulate` plays as many as one likes)."""

from __future__ import annotations

import time

from tests.proofs import proves
from tests.simulate.story import simulate


@proves("G3", "G6")
def test_no_interleaving_of_some_hundred_breaks_anything() -> None:
    until, seed = time.monotonic() + 10, 0
    while seed < 300 and (seed < 20 or time.monotonic() < until):
        try:
            simulate(seed)
        except BaseException as error:
            error.add_note(f"python -m tests.simulate --seed {seed}")
            raise
        seed += 1


def test_a_seed_is_played_the_same_way_each_time() -> None:
    assert simulate(7) == simulate(7)

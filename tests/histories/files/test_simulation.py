"""Some schedules of the simulation (`make simulate` plays as many as one likes)."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from histories.files import services
from histories.files.services import Lanes, Services
from tests.proofs import proves
from tests.simulate.process import SimDisk
from tests.simulate.story import simulate
from tests.simulate.world import Hang


def _play(schedules: int) -> None:
    for seed in range(schedules):
        simulate(seed)


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


def test_a_write_that_waits_in_a_thread_for_a_lock_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it once was: a title that was changed in the instant in which a turn ended was a deadlock for ever.

    What turns wait for had no threads of its own then.
    """

    class OneLane(Lanes):
        def __init__(self) -> None:
            super().__init__()
            self.turns = self.behind = self.others

    @contextmanager
    def waiting(disk: SimDisk, descriptor: int) -> Iterator[None]:
        disk.step()
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
        fcntl.flock(descriptor, fcntl.LOCK_UN)

    async def at_once(store: Services, key: str, work: Callable[[], Any]) -> Any:
        return await store.call(work, key.partition("/")[0])

    monkeypatch.setattr(services, "Lanes", OneLane)
    monkeypatch.setattr(SimDisk, "alone", waiting)
    monkeypatch.setattr(Services, "write", at_once)
    with pytest.raises(Hang):
        _play(40)

"""A short form of the abuse suite; `make abuse` is the long one, and holds the bars."""

from __future__ import annotations

from pathlib import Path

from tests.abuse.attacks import ATTACKS
from tests.abuse.world import bystander, world
from tests.proofs import proves

_PATIENCE_S = 5.0
"""Far above the bar, for a machine that is busy with other tests; what this suite was made for took 8 to 36."""

_TOLD: dict[str, set[str]] = {
    "nothing": set(),
    "headers_without_end": {"431", "hung up"},
    "connections_that_dawdle": {"408", "hung up", "still open"},
    "batches": {"200", "422"},
    "imports": {"201", "200"},
    "texts_to_render": {"200"},
    "forks": {"201"},
    "streams": {"200"},
    "turns_in_one_session": {"200"},
    "wrong_keys": {"401"},
    "large_bodies": {"200", "422"},
}


@proves("G13")
async def test_others_go_on_whatever_one_caller_does(tmp_path: Path) -> None:
    with world(tmp_path) as server:
        with bystander(server) as seen:
            for name, attack in ATTACKS.items():
                told = await attack(server, 0.01)
                assert set(told) <= _TOLD[name], name
        assert not seen.wrong
        assert seen.healthz
        assert max(seen.healthz + seen.invoke) < _PATIENCE_S

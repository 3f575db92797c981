"""A short form of the abuse suite; `make abuse` is the long one, and holds the bars."""

from __future__ import annotations

from pathlib import Path

from tests.abuse import attacks, kin  # noqa: F401 - these fill it
from tests.abuse.attack import ATTACKS
from tests.abuse.world import bystander, lost, world
from tests.live_server import Process
from tests.proofs import proves

_PATIENCE_S = 5.0
"""Far above the bar, for a machine that is busy with other tests; what this suite was made for took 8 to 36."""

_SCALE = 0.01


async def _attacked(server: Process, names: list[str]) -> None:
    for name in names:
        await ATTACKS[name].prepare(server, _SCALE)
        told = await ATTACKS[name].act(server, _SCALE)
        assert set(told) <= ATTACKS[name].told, name


@proves("G13")
async def test_others_go_on_whatever_one_caller_does(tmp_path: Path) -> None:
    plain = [name for name, attack in ATTACKS.items() if attack.is_plain]
    with world(tmp_path, ATTACKS["nothing"]) as server:
        with bystander(server) as seen:
            await _attacked(server, plain)
        assert not seen.wrong
        assert seen.healthz
        assert seen.acknowledged
        assert max(end - begun for begun, end in seen.healthz + seen.invoke) < _PATIENCE_S
        server.kill()
        assert not await lost("file:", server.data_dir / "histories", seen)

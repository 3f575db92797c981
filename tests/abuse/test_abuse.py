"""A short form of the abuse suite; `make abuse` is the long one, and holds the bars."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from tests.abuse import attacks, hoards, kin  # noqa: F401 - these fill it
from tests.abuse.attack import ATTACKS, Attack
from tests.abuse.bystander import Seen
from tests.abuse.world import Outcome, Spent, bystander, lost, world
from tests.live_server import Process
from tests.proofs import proves
from tests.quick import tries

_PATIENCE_S = 5.0
"""Far above the bar, for a machine that is busy with other tests; what this suite was made for took 8 to 36."""

_SCALE = 0.01


async def _attacked(server: Process, names: list[str]) -> None:
    for name in names:
        await ATTACKS[name].prepare(server, _SCALE)
        told = await ATTACKS[name].act(server, _SCALE)
        assert set(told) <= ATTACKS[name].told, name


@pytest.mark.timeout(400)
@proves("G13")
async def test_others_go_on_whatever_one_caller_does(tmp_path: Path) -> None:
    plain = [name for name, attack in ATTACKS.items() if attack.is_plain]
    for number, one in enumerate(tries(_PATIENCE_S)):
        with world(tmp_path / str(number), ATTACKS["nothing"]) as server:
            with bystander(server) as seen:
                await _attacked(server, plain)
            assert not seen.wrong
            assert seen.healthz
            assert seen.acknowledged
            one.took = max(end - begun for begun, end in seen.healthz + seen.invoke)
            server.kill()
            assert not await lost("file:", server.data_dir / "histories", seen)


@proves("G13")
async def test_blocking_functions_of_one_user_leave_another_chain_its_threads(tmp_path: Path) -> None:
    attack = ATTACKS["blocking_functions"]
    for number, one in enumerate(tries(3.0)):  # the others block for five seconds each
        with world(tmp_path / str(number), attack) as server:
            with bystander(server, attack.beside) as seen:
                told = await attack.act(server, 0.14)
            assert set(told) == {"200"}
            assert not seen.wrong
            assert len(seen.acknowledged) > 10
            one.took = seen.p99("invoke")


async def test_a_turn_that_was_acknowledged_and_is_gone_is_noticed(tmp_path: Path) -> None:
    with world(tmp_path, ATTACKS["nothing"]) as server:
        with bystander(server) as seen:
            await asyncio.sleep(2.0)
        session, turn, *_ = seen.acknowledged[0]
        with server.client("alice") as client:
            assert client.delete(f"/sessions/{session}/turns/{turn}").status_code == 204
        seen.acknowledged[1] = (*seen.acknowledged[1][:3], "something else")
        server.kill()
        missing = await lost("file:", server.data_dir / "histories", seen)
        assert missing == [f"{turn} of {session}", "turn-2 of mine-2"]


def test_a_verdict_names_what_was_noticed() -> None:
    attack = Attack(ATTACKS["nothing"].act, frozenset({"200"}))
    fine = Seen(healthz=[(0.5, 0.6), (2.1, 2.2)], invoke=[(0.5, 0.6), (2.1, 2.2)])
    slow = Seen(healthz=[(0.5, 0.9)], invoke=[(0.5, 4.5)], wrong=["invoke: 500"])

    def faults(seen: Seen, told: str = "200", memory: float = 200.0, lost: str = "") -> list[str]:
        return Outcome(
            attack, Counter([told]), seen, memory, 0.0, Spent(), (0.0, 2.0), [], [lost] if lost else []
        ).faults

    assert faults(fine) == []
    assert faults(slow) == ["invoke: 500", "healthz", "invoke", "recovery"]
    assert faults(fine, "500", 401.0, "t of s") == ["lost: t of s", "the offender was told 500", "memory"]


def test_who_waits_in_line_is_behind_two_turns_of_others_at_most() -> None:
    attack = Attack(ATTACKS["nothing"].act, frozenset(), listens=True)
    seen = Seen(healthz=[(0.1, 0.2)], stream=[(1.0, 2.0)])
    ends = [0.5, 1.2, 1.4, 1.9]
    outcomes = [Outcome(attack, Counter(), seen, 1.0, 0.0, Spent(), (0.0, 3.0), ends[:n], []) for n in (3, 4)]
    assert [one.faults for one in outcomes] == [[], ["others went first"]]

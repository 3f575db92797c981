"""The benchmark runs, and its check compares ratios alone."""

from __future__ import annotations

import socket
import subprocess
import sys
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from bench import deployed, shares, stores, throughput
from bench.check import check
from bench.parts import Bench
from bench.processes import serving, url_of
from tests import postgres_server
from tests.live_server import ROOT, wait_for


def test_the_benchmark_measures_recollect_beside_langserve(tmp_path: Path) -> None:
    with Bench(tmp_path, quick=True, peers=False) as bench:
        bench.seconds, bench.rounds = 0.1, 1
        with bench.servers("recollect", "langserve", "example") as servers:
            result = throughput.compare(bench, servers, [("stream", 2)])
    assert set(result["stream-2"]) == {"recollect", "langserve"}  # the example needs an environment of its own
    assert result["stream-2"]["recollect"]["per_s"] > 0
    assert result["stream-2"]["langserve"]["ratios"] == {"langserve": 1.0}


def test_what_is_added_to_a_model_is_measured_beside_the_model_itself(tmp_path: Path) -> None:
    """Clients and model have a share of the same processors: what they see without a server is told, too."""
    with Bench(tmp_path, quick=True, peers=False) as bench:
        bench.rounds = 1
        with deployed.waiting_model() as model, bench.servers("recollect", model=url_of(model)) as servers:
            result = deployed.latency(bench, model, servers, crowd=2)
    assert set(result) == {"model", "recollect"}
    assert 0 < result["model"]["added_p50_ms"] < result["recollect"]["added_p50_ms"]


def test_stores_are_measured_beside_files_and_one_that_cannot_be_had_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent() -> AbstractContextManager[str]:
        raise postgres_server.NoServer("there is none")

    with Bench(tmp_path, quick=True, peers=False) as bench:
        bench.seconds, bench.rounds = 0.1, 1
        result = stores.measure(bench, {**stores.STORES, "postgres": absent}, nth=30, samples=2)
    assert "PostgreSQL is left out: there is none" in capsys.readouterr().out
    for endpoint in ("invoke", "stream"):
        assert set(result["lengths"][endpoint]) == {"file", "redis"}
        assert result["lengths"][endpoint]["file"]["30"]["ms_ratio"] == 1.0
        assert result["lengths"][endpoint]["redis"]["30"]["ms_ratio"] > 0
        assert result["rates"][f"{endpoint}-8"]["redis"]["ratios"]["file"] > 0


_HOLDS = """
import time
from bench.stores import STORES
with STORES[{!r}]() as url:
    print(url, flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("store", ["redis", "postgres"])
def test_the_server_of_a_store_ends_with_a_benchmark_that_is_killed(store: str) -> None:
    command = [sys.executable, "-c", _HOLDS.format(store)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as bench:
        assert bench.stdout is not None
        port = urlsplit(bench.stdout.readline().strip()).port
        bench.kill()

    def is_gone() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) != 0

    wait_for(is_gone, "the end of the server")


def test_clients_go_to_the_server_with_fewer_turns_under_way(tmp_path: Path) -> None:
    with (
        Bench(tmp_path, quick=True, peers=False) as bench,
        serving("langserve", tmp_path) as first,
        serving("langserve", tmp_path) as second,
    ):
        both = replace(first, also=(second,))
        outcome = bench.clients.do(both, "invoke", clients=2, turns=20)
        before = first.processor_s(), second.processor_s()
        # By time, so that neither client is done before the other, and has both servers to itself.
        bench.clients.do(both, "invoke", clients=2, seconds=2.0)
        spent = first.processor_s() - before[0], second.processor_s() - before[1]
    assert outcome.turns == 40
    assert min(spent) > max(spent) / 4


def test_a_share_of_a_core_is_gone_afterwards() -> None:
    try:
        with shares.share(0.25) as held, subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
            held.hold(process.pid)
            assert held.folder.name in Path(f"/proc/{process.pid}/cgroup").read_text()
    except shares.NoShares as reason:
        pytest.skip(str(reason))
    assert not held.folder.exists()


def test_the_check_fails_for_a_worse_ratio_and_never_for_a_slower_machine(capsys: pytest.CaptureFixture[str]) -> None:
    def results(rate: float, ratio: float, growth: float) -> dict[str, object]:
        return {
            "throughput": {"invoke-8": {"recollect": {"per_s": rate, "ratios": {"langserve": ratio}}}},
            "lengths": {"invoke": {"1000": {"ms": 1000 / rate, "ms_ratio": growth}}},
        }

    assert check(results(10, 1.0, 1.0), results(500, 1.05, 1.1)) == 0
    assert check(results(500, 0.8, 1.0), results(500, 1.0, 1.0)) == 1
    assert check(results(500, 1.0, 1.3), results(500, 1.0, 1.0)) == 1
    assert "throughput.invoke-8.recollect.ratios.langserve was 1.00, is 0.80" in capsys.readouterr().out

"""The benchmark runs, and its check compares ratios alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import throughput
from bench.check import check
from bench.parts import Bench


def test_the_benchmark_measures_recollect_beside_langserve(tmp_path: Path) -> None:
    with Bench(tmp_path, quick=True, peers=False) as bench:
        bench.seconds, bench.rounds = 0.1, 1
        with bench.servers("recollect", "langserve", "example") as servers:
            result = throughput.compare(bench, servers, [("stream", 2)])
    assert set(result["stream-2"]) == {"recollect", "langserve"}  # the example needs an environment of its own
    assert result["stream-2"]["recollect"]["per_s"] > 0
    assert result["stream-2"]["langserve"]["ratios"] == {"langserve": 1.0}


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

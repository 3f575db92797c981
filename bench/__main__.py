"""`python -m bench`: runs the benchmark, prints its tables, and writes JSON and, with matplotlib, plots."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from bench import agents, deployed, lengths, listing, many, recall, servers, startup, stores, throughput, window
from bench.check import check
from bench.parts import Bench, Parts
from bench.plots import plot

PARTS: Parts = {
    "openai": deployed.measure,
    "agents": agents.measure,
    "startup": startup.measure,
    "throughput": throughput.in_process,
    "debug": throughput.debugging,
    "lag": throughput.lag,
    "lengths": lengths.measure,
    "listing": listing.measure,
    "many": many.measure,
    "recall": recall.measure,
    "stores": stores.part,
    "servers": servers.measure,
    "window": window.measure,
}


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmark; gives 1 if `--check` finds a ratio that has got worse."""
    options = _options(arguments)
    started, results = time.perf_counter(), {}
    out = options.out
    out.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=out, prefix=".data-") as folder,
        Bench(Path(folder), quick=options.quick, rounds=options.rounds) as bench,
    ):
        for name in options.only or PARTS:
            print(f"\n## {name}", flush=True)
            results[name] = PARTS[name](bench)
    print(f"\n{time.perf_counter() - started:.0f} s in all")
    (out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    for path in plot(results, out):
        print(path)
    return check(results, json.loads(options.check.read_text())) if options.check else 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Recollect beside its peers.")
    parser.add_argument("--quick", action="store_true", help="about a minute: fewer and shorter rounds")
    parser.add_argument("--rounds", type=int, help="how often each subject takes its turn: 5, or 2 with --quick")
    parser.add_argument("--only", action="append", choices=PARTS, metavar="PART", help=f"one of {', '.join(PARTS)}")
    parser.add_argument("--check", type=Path, metavar="FILE", help="an earlier results.json: fail if a ratio is worse")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results", help="where the results go")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())

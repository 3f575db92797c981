"""`python -m tests.abuse --help`."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from tests.abuse.attacks import ATTACKS
from tests.abuse.world import suffer, world

HEALTHZ_S, INVOKE_S, MEMORY_MB = 0.25, 1.0, 400
"""What a bystander may wait, at the 99th percentile, and what the server may need."""


def main() -> int:
    """Runs the attacks, each on a server of its own; the exit status is 1 if a bystander noticed one."""
    parser = argparse.ArgumentParser(prog="python -m tests.abuse", description=__doc__)
    parser.add_argument("attacks", nargs="*", choices=[[], *ATTACKS], help="all of them unless some are named")
    parser.add_argument("--scale", type=float, default=1.0)
    args = parser.parse_args()
    noticed = 0
    for name in args.attacks or ATTACKS:
        with tempfile.TemporaryDirectory(prefix="recollect-abuse-") as folder, world(Path(folder)) as server:
            outcome = asyncio.run(suffer(server, ATTACKS[name], args.scale))
            held = [line for line in server.output.splitlines() if "the event loop was held" in line]
        fine = (
            not outcome.seen.wrong
            and outcome.seen.p99("healthz") < HEALTHZ_S
            and outcome.seen.p99("invoke") < INVOKE_S
            and outcome.memory_mb < MEMORY_MB
        )
        noticed += not fine
        print(f"{'ok ' if fine else 'BAD'} {name}: {outcome}, loop held {len(held)} times", flush=True)
    return 1 if noticed else 0


if __name__ == "__main__":
    sys.exit(main())

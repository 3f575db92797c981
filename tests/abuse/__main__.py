"""`python -m tests.abuse --help`."""

from __future__ import annotations

import argparse
import asyncio
import re
import sys
import tempfile
from pathlib import Path

from tests.abuse.attacks import ATTACKS
from tests.abuse.world import suffer, world

HEALTHZ_S, INVOKE_S, MEMORY_MB = 0.25, 1.0, 400
"""What a bystander may wait, at the 99th percentile, and what the server may need."""

_AHEAD = """the server, its model and the bystander go before all else on this machine, as if attackers had machines of
their own, and nobody else were there: takes the right to lower one's nice value"""


def main() -> int:
    """Runs the attacks, each on a server of its own; the exit status is 1 if a bystander noticed one."""
    parser = argparse.ArgumentParser(prog="python -m tests.abuse", description=__doc__)
    parser.add_argument("attacks", nargs="*", choices=[[], *ATTACKS], help="all of them unless some are named")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--log", action="store_true", help="what the server said of an event loop that was held")
    parser.add_argument("--ahead", action="store_true", help=_AHEAD)
    args = parser.parse_args()
    noticed = 0
    for name in args.attacks or ATTACKS:
        with (
            tempfile.TemporaryDirectory(prefix="recollect-abuse-") as folder,
            world(Path(folder), ahead=args.ahead) as server,
        ):
            outcome = asyncio.run(suffer(server, ATTACKS[name], args.scale))
            output = server.output
            held = [float(said) for said in re.findall(r"the event loop was held for ([\d.]+) s", output)]
        fine = (
            not outcome.seen.wrong
            and outcome.seen.p99("healthz") < HEALTHZ_S
            and outcome.seen.p99("invoke") < INVOKE_S
            and outcome.memory_mb < MEMORY_MB
        )
        noticed += not fine
        longest = f"loop held {len(held)} times, at most {max(held, default=0):.2f} s"
        print(f"{'ok ' if fine else 'BAD'} {name}: {outcome}, {longest}", flush=True)
        if args.log:
            print(*re.findall(r"the event loop was held .*", output), sep="\n", flush=True)
    return 1 if noticed else 0


if __name__ == "__main__":
    sys.exit(main())

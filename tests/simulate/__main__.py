"""`python -m tests.simulate --help`."""

from __future__ import annotations

import argparse
import sys
import time
import traceback

from tests.simulate.story import simulate


def main() -> int:
    """Plays schedules until the time is over, or one of them breaks something."""
    parser = argparse.ArgumentParser(description="Plays schedules of the file store, one for each seed.")
    parser.add_argument("--seconds", type=float, default=60, help="how long (60)")
    parser.add_argument("--seed", type=int, default=0, help="the first seed (0); each schedule has the next one")
    parser.add_argument("--schedules", type=int, default=0, help="how many at most (0: as many as fit)")
    arguments = parser.parse_args()
    until, seed = time.monotonic() + arguments.seconds, arguments.seed
    while time.monotonic() < until and not (arguments.schedules and seed - arguments.seed >= arguments.schedules):
        try:
            simulate(seed)
        except BaseException:  # noqa: BLE001 - whatever it is, its seed is told
            traceback.print_exc()
            print(f"Broken by seed {seed}, schedule {seed - arguments.seed + 1}: replay it with --seed {seed}.")
            return 1
        seed += 1
    print(f"{seed - arguments.seed} schedules, nothing broken.")
    return 0


if __name__ == "__main__":
    sys.exit(main())

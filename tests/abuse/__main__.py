"""`python -m tests.abuse --help`."""

from __future__ import annotations

import argparse
import asyncio
import re
import resource
import sys
import tempfile
from pathlib import Path

from tests import postgres_server, redis_server
from tests.abuse import attacks, hoards, kin  # noqa: F401 - these fill it
from tests.abuse.attack import ATTACKS, Attack
from tests.abuse.world import Outcome, suffer, world
from tests.torture.world import store_server

_AHEAD = """the server, its model and the bystander go before all else on this machine, as if attackers had machines of
their own, and nobody else were there: takes the right to lower one's nice value"""


def main() -> int:
    """Runs the attacks, each on a server of its own; the exit status is 1 if a bystander noticed one."""
    parser = argparse.ArgumentParser(prog="python -m tests.abuse", description=__doc__)
    parser.add_argument("attacks", nargs="*", choices=[[], *ATTACKS], help="all of them unless some are named")
    parser.add_argument("--store", choices=["file", "redis", "postgres"], default="file", help="a real server's")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--log", action="store_true", help="what the server said of an event loop that was held")
    parser.add_argument("--ahead", action="store_true", help=_AHEAD)
    args = parser.parse_args()
    _allow_many_files()
    noticed = 0
    with store_server(args.store) as (store, own):
        for name in args.attacks or ATTACKS:
            url = "file:" if own is None else _fresh_url(args.store, store)
            outcome, output = _run(ATTACKS[name], url, args)
            noticed += bool(outcome.faults)
            held = [float(said) for said in re.findall(r"the event loop was held for ([\d.]+) s", output)]
            longest = f"loop held {len(held)} times, at most {max(held, default=0):.2f} s"
            verdict = f"BAD ({', '.join(outcome.faults)})" if outcome.faults else "ok"
            print(f"{verdict} {name}: {outcome}, {longest}", flush=True)
            if args.log:
                print(*re.findall(r"the event loop was held .*", output), sep="\n", flush=True)
    return 1 if noticed else 0


def _run(attack: Attack, url: str, args: argparse.Namespace) -> tuple[Outcome, str]:
    with (
        tempfile.TemporaryDirectory(prefix="recollect-abuse-") as folder,
        world(Path(folder), attack, store_url=url, ahead=args.ahead) as server,
    ):
        return asyncio.run(suffer(server, attack, args.scale, url)), server.output


def _fresh_url(store: str, url: str) -> str:
    return redis_server.fresh_url(url) if store == "redis" else postgres_server.fresh_url(url)


def _allow_many_files() -> None:
    """Attackers have some thousand connections."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    sys.exit(main())

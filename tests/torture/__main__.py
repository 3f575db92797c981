"""`python -m tests.torture --help`."""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random

from auth.keys import ApiKeys
from histories import open_store
from tests.torture import peer
from tests.torture.bystander import watch_a_bystander
from tests.torture.changers import LOOSE, Changer, Changes, check_forks, is_loose
from tests.torture.checker import Verdict, check, check_loose, check_peer
from tests.torture.clients import Client, hung_sessions
from tests.torture.coincidences import PAIRS, TRIPLES, coincide
from tests.torture.watchers import Watcher
from tests.torture.world import ROOT, Hand, Server, StoreServer, serve_model, store_server


def environment_of(model_url: str, folder: Path) -> dict[str, str]:
    """What each server is told, on files."""
    return {"OPENAI_BASE_URL": model_url, "OPENAI_API_KEY": "none", "RECOLLECT_DATA_DIR": str(folder)}


async def torture(
    args: argparse.Namespace, folder: Path, model_url: str, store_url: str, own: StoreServer | None
) -> tuple[Verdict, Hand, Counter[str]]:
    """One run: its verdict, what was done, and what clients were told how often."""
    random = Random(args.seed)
    users = ("alice", "bob", "carol")
    keys = {user: user if args.peer else ApiKeys(folder).create(user)[1] for user in users}
    command = (
        [str(peer.PYTHON), "-m", "tests.torture.peer", str(folder)] if args.peer else [sys.executable, "server.py"]
    )
    environment = environment_of(model_url, folder) | {
        "RECOLLECT_HISTORY_URL": store_url,
        "RECOLLECT_WORKERS": "1" if args.peer else str(args.workers),
        "RECOLLECT_WINDOW_TOKENS": "600",
        "RECOLLECT_TURN_WAIT_S": "10",
    }
    servers = [Server(environment, folder / f"server-{n}.log", command) for n in range(args.servers)]
    try:
        await asyncio.gather(*(server.ready() for server in servers))
        until = time.monotonic() + args.minutes * 60
        loose = 0 if args.peer else LOOSE
        clients = [Client(f"c{n}", Random(random.random()), keys, args.sessions + loose) for n in range(args.clients)]
        count = 0 if args.peer else args.watchers
        watchers = [Watcher(Random(random.random()), keys, clients) for _ in range(count)]
        hand = Hand(Random(random.random()), servers, own)
        urls = [server.url for server in servers]
        changes, count = Changes(), 0 if args.peer else args.changers
        changers = [Changer(Random(random.random()), keys, clients, args.sessions, changes) for _ in range(count)]
        people: list[Client | Watcher | Changer] = [*clients, *watchers, *changers]
        await asyncio.gather(hand.run(until, args.every), *(one.run(urls, until) for one in people))
        await asyncio.gather(*(server.ready() for server in servers))
        await _talk_on(clients, urls, args.turns)
        hung = [] if args.peer else await hung_sessions(urls, keys, args.sessions + loose)
    finally:
        for server in servers:
            server.kill()
    all_told = [told for client in clients for told in client.told]
    if args.peer:
        verdict = check_peer(folder, all_told)
    else:
        store = open_store(store_url, default_dir=str(folder / "histories"))
        try:
            kept = [told for told in all_told if not is_loose(told.session, args.sessions)]
            watched = [one for watcher in watchers for one in watcher.watched]
            verdict = await check(store, kept, [one for one in watched if not is_loose(one.session, args.sessions)])
            await check_loose(verdict, store, [told for told in all_told if told not in kept])
            for kind, note in [*changes.faults, *(("torn", note) for note in await check_forks(store, changes))]:
                verdict.blame(kind, note)
            for session in hung:
                verdict.blame("hung", f"in {session} no turn could be taken afterwards")
            print(f"changes: {dict(changes.done.most_common())}, {len(changes.forks)} forks held against the record")
        finally:
            await store.close()
    return verdict, hand, Counter(outcome for told in all_told for outcome in told.outcomes)


async def _talk_on(clients: list[Client], urls: list[str], turns: int) -> None:
    """Until so many turns were acknowledged, for a minute at most: on a slow machine a short run has but a few."""
    latest = time.monotonic() + 60
    while sum(told.acknowledged is not None for one in clients for told in one.told) < turns:
        if (now := time.monotonic()) > latest:
            return
        await asyncio.gather(*(one.run(urls, now + 0.5) for one in clients))


async def _coincidences(store_url: str, times: int) -> int:
    """Hangs are raised."""
    with tempfile.TemporaryDirectory(prefix="recollect-torture-") as folder, store_server(store_url) as (url, _):
        store = open_store(url, default_dir=f"{folder}/histories")
        await store.open()
        try:
            done, start = 0, time.monotonic()
            for _ in range(times):
                done += await coincide(store, [*PAIRS, *TRIPLES], done)
                each = (time.monotonic() - start) / done * 1000
                print(f"{done} coincidences, none hung, {each:.1f} ms each", flush=True)
        finally:
            await store.close()
    return 0


def main() -> int:
    """Runs, prints the verdict, and gives the exit status: 0 when nothing was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=None, help="replays the choices of a run")
    parser.add_argument("--servers", type=int, default=2)
    parser.add_argument("--turns", type=int, default=0, help="that are acknowledged at least, within a minute more")
    parser.add_argument("--workers", type=int, default=2, help="of each server")
    parser.add_argument("--clients", type=int, default=12)
    parser.add_argument("--watchers", type=int, default=24, help="who follow turns of others, from any server")
    parser.add_argument("--changers", type=int, default=6, help="who rename, fork, search, rewind and delete")
    parser.add_argument("--sessions", type=int, default=8, help="of each of three users")
    parser.add_argument("--every", type=float, default=2.5, help="seconds between two strikes, about")
    parser.add_argument(
        "--store",
        default="file:",
        help="RECOLLECT_HISTORY_URL; redis or postgres alone: one of its own, that is killed and paused too",
    )
    parser.add_argument("--peer", action="store_true", help="LangServe's example with FileChatMessageHistory instead")
    parser.add_argument("--coincidences", type=int, metavar="TIMES", help="instead: all pairs and triples of acts")
    parser.add_argument("--bystander", type=float, metavar="SECONDS", help="instead: how long others' turns take")
    parser.add_argument("--model", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.model:
        serve_model()
        return 0
    if args.coincidences:
        return asyncio.run(_coincidences(args.store, args.coincidences))
    if args.seed is None:
        args.seed = Random().randrange(10**6)
    print(f"seed {args.seed}: {args.servers} servers of {args.workers} workers, {args.clients} clients", flush=True)
    model = subprocess.Popen(
        [sys.executable, "-m", "tests.torture", "--model"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert model.stdout is not None
    with tempfile.TemporaryDirectory(prefix="recollect-torture-") as folder:
        try:
            url = model.stdout.readline().decode().strip()
            if args.bystander:
                environment = environment_of(url, Path(folder))
                seen = asyncio.run(watch_a_bystander(environment, Path(folder), args.bystander))
                print(seen)
                return 0 if seen.is_well else 1
            with store_server(args.store) as (store_url, own):
                verdict, hand, outcomes = asyncio.run(torture(args, Path(folder), url, store_url, own))
        finally:
            model.kill()
            model.wait()
    done = f"{hand.kills} kills, {hand.pauses} pauses, {hand.store_faults} faults of the store"
    print(f"{done}; clients were told: {dict(outcomes.most_common())}")
    print(verdict, *verdict.notes, sep="\n")
    return 1 if verdict.found else 0


if __name__ == "__main__":
    sys.exit(main())

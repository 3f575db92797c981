"""The operator's command line. `admin.py --help` lists the commands, which are in `api/ops/commands/`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from api.ops.commands import credentials, people, stores
from api.ops.commands.terminal import CommandFailed, add_command, fail
from auth.files import KeyFileError
from auth.keys import UnknownKey
from auth.users import InvalidUserId
from settings import Settings, SettingsError, load_settings


def list_chains(args: argparse.Namespace, settings: Settings) -> int:
    """Builds all chains as a server would, and prints a line for each: its path, its memory, where it is defined.

    The status is 2 after one line that says what is wrong with the first that can't be served. No model is asked.
    """
    import asyncio  # here, as below

    from chains import BadChain
    from server import look_at_chains

    try:
        lines = asyncio.run(look_at_chains(settings))
    except BadChain as fault:
        return fail(str(fault))
    print(*lines, sep="\n")
    return 0


def rebuild_recall(args: argparse.Namespace, settings: Settings) -> int:
    """Makes the vectors of recall by meaning anew, from the histories. Servers may run: they follow meanwhile.

    It needs RECOLLECT_RECALL_URL and RECOLLECT_EMBEDDINGS. The status is 2 after one line if it can't be done.
    """
    from histories.base import HistoryStore
    from histories.meaning.vectors import MeaningUnavailable
    from wiring import meaning_of

    if settings.recall_url is None:
        return fail("RECOLLECT_RECALL_URL: there is no recall by meaning to rebuild")

    async def rebuild(store: HistoryStore) -> tuple[int, int]:
        meaning = meaning_of(settings, store)
        assert meaning is not None  # noqa: S101 - there is a URL
        try:
            return await meaning.rebuild()
        finally:
            await meaning.close()

    try:
        sessions, turns = stores.with_store(settings, rebuild)
    except MeaningUnavailable as error:
        return fail(str(error))
    print(f"{turns} turns of {sessions} sessions")
    return 0


def serve(args: argparse.Namespace, settings: Settings) -> int:
    """Serves until it is stopped, by settings alone."""
    import server  # here, so that the other commands start in a moment

    return server.main([])


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. Returns its status, or 2 after one line that says what is wrong."""
    args = _parser().parse_args(argv)
    try:
        status: int = args.run(args, load_settings())
    except (SettingsError, InvalidUserId, UnknownKey, KeyFileError, CommandFailed) as error:
        return fail(str(error))
    except OSError as error:
        return fail(f"RECOLLECT_DATA_DIR: {error.strerror}")
    except KeyboardInterrupt:
        return fail("broken off")
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="admin.py", description="Recollect's command line for its operator.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for group in (credentials, people, stores):
        group.add_to(commands)
    add_command(commands, "chains", list_chains, "check and list the chains")
    recall = commands.add_parser("recall", help="recall by meaning").add_subparsers(required=True, metavar="COMMAND")
    add_command(recall, "rebuild", rebuild_recall, "make its vectors anew")
    add_command(commands, "serve", serve, "run the server")
    return parser


if __name__ == "__main__":
    sys.exit(main())

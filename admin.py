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
    add_command(commands, "serve", serve, "run the server")
    return parser


if __name__ == "__main__":
    sys.exit(main())

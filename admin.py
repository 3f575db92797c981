"""The operator's command line. `admin.py --help` lists the commands.

A command is a function from its arguments and the settings to an exit status, with its parser in `_parser`. What
another program may want to read is the last line on standard output; hints go to standard error.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from urllib.parse import urlsplit

from auth.files import KeyFileError
from auth.keys import ApiKeys, UnknownKey
from auth.links import Links, login_url, server_url
from auth.users import InvalidUserId
from settings import Settings, SettingsError, load_settings

MISUSE = 2


def create_key(args: argparse.Namespace, settings: Settings) -> int:
    """Makes an API key, and prints the key alone on the last line: it is kept nowhere."""
    record, key = ApiKeys(settings.data_dir).create(args.user, args.label)
    _hint(f"key {record.id} of {record.user}: it is shown only now, and `keys revoke {record.id}` ends it")
    print(key)
    return 0


def list_keys(args: argparse.Namespace, settings: Settings) -> int:
    """Prints a line for each key: its id, its user, when it was made, its label; with tabs between them."""
    for key in ApiKeys(settings.data_dir).all():
        print(key.id, key.user, key.created_at, key.label, sep="\t")
    return 0


def revoke_key(args: argparse.Namespace, settings: Settings) -> int:
    """Ends a key at once, and the sign-in of each browser that came by it."""
    ApiKeys(settings.data_dir).revoke(args.id)
    return 0


def sign_out(args: argparse.Namespace, settings: Settings) -> int:
    """Ends the sign-in of each browser of a user. Their keys and tokens stay good."""
    ApiKeys(settings.data_dir).sign_out(args.user)
    return 0


def make_link(args: argparse.Namespace, settings: Settings) -> int:
    """Prints a link that signs a browser in once, within ten minutes. Revoking the user's newest key ends that."""
    key = ApiKeys(settings.data_dir).newest(args.user)
    token = Links(settings.data_dir).create(args.user, key.id if key is not None else None)
    if key is None:
        _hint(f"{args.user} has no API key: only `signout --user` will end this sign-in early")
    print(login_url(args.base_url or server_url(settings.host, settings.port), token))
    return 0


def check(args: argparse.Namespace, settings: Settings) -> int:
    """Says what is damaged in the files of histories, and what a repair would cost; `--repair` does it.

    The status is 1 when something is damaged, and was not repaired. It may run beside a server.
    """
    from histories import file_folder  # here, so that the other commands start in a moment
    from histories.files.check import check_main

    if not settings.history_url.startswith("file:"):
        return _fail("RECOLLECT_HISTORY_URL: there are no files to check, a database has tools of its own")
    folder = file_folder(settings.history_url, str(settings.data_dir / "histories"))
    return check_main(folder, args.repair, sys.stdout)


def migrate(args: argparse.Namespace, settings: Settings) -> int:
    """Copies all histories from one store to another, and compares each turn with what is read back.

    A store is named as RECOLLECT_HISTORY_URL names it. It may be broken off at any instant, and run again: what is in
    the target and the same is not copied twice, and what has changed in the target since is left alone, and told of.
    Servers may go on writing to FROM: what they write meanwhile, a second run brings along. So: run it while they
    serve, stop them, run it again, and start them on TO. The status is 1 while anything is missing in TO.
    """
    import asyncio  # here, as above
    from contextlib import AsyncExitStack

    from histories import open_store
    from histories.base import StoreUnavailable
    from histories.migrate import Migrated
    from histories.migrate import migrate as bring

    target_url = args.target or settings.history_url
    if "memory:" in (args.source, target_url):
        return _fail("a history in memory: is gone with its server")

    async def run() -> Migrated:
        folder, fsync = str(settings.data_dir / "histories"), settings.history_fsync
        async with AsyncExitStack() as stack:
            stores = [open_store(url, default_dir=folder, fsync=fsync) for url in (args.source, target_url)]
            for store in stores:
                stack.push_async_callback(store.close)
                await store.open()
            return await bring(stores[0], stores[1], lambda line: print(line, flush=True))

    try:
        migrated = asyncio.run(run())
    except (StoreUnavailable, ValueError) as error:
        return _fail(f"{error} What has been copied stays: run it again.")
    print(migrated)
    if not migrated.sessions:
        _hint("admin.py: FROM has no histories: is that its place?")
    return 0 if migrated.sessions and migrated.complete else 1


def migrate_schema(args: argparse.Namespace, settings: Settings) -> int:
    """Makes the tables in the PostgreSQL that RECOLLECT_HISTORY_URL names, or brings them up to date.

    Servers do the same when they start. This is for a database whose tables another user has to make.
    """
    import asyncio

    from histories.base import StoreUnavailable

    if not settings.history_url.startswith("postgresql:"):
        return _fail("RECOLLECT_HISTORY_URL: only postgresql:// has a schema")
    from histories.postgres.store import migrate_schema as apply

    try:
        applied = asyncio.run(apply(settings.history_url))
    except (StoreUnavailable, ValueError) as error:
        return _fail(f"RECOLLECT_HISTORY_URL: {error}")
    print("applied " + ", ".join(map(str, applied)) if applied else "up to date")
    return 0


def list_chains(args: argparse.Namespace, settings: Settings) -> int:
    """Builds all chains as a server would, and prints a line for each: its path, its memory, where it is defined.

    The status is 2 after one line that says what is wrong with the first that can't be served. No model is asked.
    """
    import asyncio

    from chains import BadChain
    from server import look_at_chains

    try:
        lines = asyncio.run(look_at_chains(settings))
    except BadChain as fault:
        return _fail(str(fault))
    print(*lines, sep="\n")
    return 0


def serve(args: argparse.Namespace, settings: Settings) -> int:
    """Serves until it is stopped, by settings alone."""
    import server  # here, so that the other commands start in a moment

    return server.main()


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. Returns its status, or 2 after one line that says what is wrong."""
    args = _parser().parse_args(argv)
    try:
        status: int = args.run(args, load_settings())
    except (SettingsError, InvalidUserId, UnknownKey, KeyFileError) as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(f"RECOLLECT_DATA_DIR: {error.strerror}")
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="admin.py", description="Recollect's command line for its operator.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_keys(commands.add_parser("keys", help="make, list and revoke API keys"))

    link = commands.add_parser("link", help="make a link that signs a browser in once", description=make_link.__doc__)
    link.add_argument("--user", required=True, metavar="NAME")
    link.add_argument("--base-url", type=_web_url, metavar="URL", help="where browsers find the server")
    link.set_defaults(run=make_link)

    signout = commands.add_parser("signout", help="sign a user's browsers out", description=sign_out.__doc__)
    signout.add_argument("--user", required=True, metavar="NAME")
    signout.set_defaults(run=sign_out)

    look = commands.add_parser("check", help="look for damaged histories", description=check.__doc__)
    look.add_argument("--repair", action="store_true", help="save what can be saved; the damaged original is kept")
    look.set_defaults(run=check)

    move = commands.add_parser("migrate", help="copy all histories to another store", description=migrate.__doc__)
    move.add_argument("source", metavar="FROM", help="file:, file:/some/dir, redis://…, rediss://… or postgresql://…")
    move.add_argument("target", metavar="TO", nargs="?", help="the same; RECOLLECT_HISTORY_URL if it is left out")
    move.set_defaults(run=migrate)

    schema = commands.add_parser("migrate-schema", help="make PostgreSQL's tables", description=migrate_schema.__doc__)
    schema.set_defaults(run=migrate_schema)

    known = commands.add_parser("chains", help="check and list the chains", description=list_chains.__doc__)
    known.set_defaults(run=list_chains)

    commands.add_parser("serve", help="run the server", description=serve.__doc__).set_defaults(run=serve)
    return parser


def _add_keys(keys: argparse.ArgumentParser) -> None:
    commands = keys.add_subparsers(required=True, metavar="COMMAND")
    create = commands.add_parser("create", help="make a key for a user", description=create_key.__doc__)
    create.add_argument("--user", required=True, metavar="NAME")
    create.add_argument("--label", default="", type=_line, metavar="TEXT", help="what the key is for")
    create.set_defaults(run=create_key)
    commands.add_parser("list", help="show all keys", description=list_keys.__doc__).set_defaults(run=list_keys)
    revoke = commands.add_parser("revoke", help="end a key", description=revoke_key.__doc__)
    revoke.add_argument("id", metavar="ID", help="as `keys list` shows it")
    revoke.set_defaults(run=revoke_key)


def _web_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise argparse.ArgumentTypeError("it must start with http:// or https://")
    return text


def _line(text: str) -> str:
    if not text.isprintable():
        raise argparse.ArgumentTypeError("it must be one line")
    return text


def _hint(text: str) -> None:
    print(text, file=sys.stderr)


def _fail(text: str) -> int:
    print(f"admin.py: {text}", file=sys.stderr)
    return MISUSE


if __name__ == "__main__":
    sys.exit(main())

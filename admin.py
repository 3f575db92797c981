"""The operator's command line. `admin.py --help` lists the commands.

A command is a function from its arguments and the settings to an exit status, with its parser in `_parser`. What
another program may want to read is the last line on standard output; hints go to standard error.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from api.ops.logs import Names
from auth.audit import Audit, verify
from auth.files import KeyFileError, SigningSecret, kept_secret
from auth.holds import Holds
from auth.keys import ApiKeys, UnknownKey
from auth.links import Links, login_url, server_url
from auth.users import InvalidUserId
from settings import Settings, SettingsError, load_settings, parts_of

if TYPE_CHECKING:  # the store's drivers and LangChain are imported by the commands that need them
    from histories.base import HistoryStore

MISUSE = 2
T = TypeVar("T")


class CommandFailed(Exception):
    """A command can't do what it is for. The text is one line for the operator."""


def create_key(args: argparse.Namespace, settings: Settings) -> int:
    """Makes an API key, and prints the key alone on the last line: it is kept nowhere."""
    expires = datetime.now(UTC) + timedelta(days=args.expires) if args.expires else None
    scopes = tuple(args.scope or ["chat"])
    record, key = ApiKeys(settings.data_dir).create(args.user, args.label, scopes=scopes, expires=expires)
    _audit(settings, "key.create", user=record.user, key=record.id, scopes=list(scopes), expires=record.expires_at)
    _hint(f"key {record.id} of {record.user}: it is shown only now, and `keys revoke {record.id}` ends it")
    print(key)
    return 0


def list_keys(args: argparse.Namespace, settings: Settings) -> int:
    """Prints a line for each key, with tabs between its id, its user, when it was made, its name, what it opens,

    when it expires, and when it was last used, to the minute (- for never).
    """
    keys = ApiKeys(settings.data_dir)
    for key in keys.all():
        used = keys.used.at(key.id)
        last = "-" if used is None else datetime.fromtimestamp(used, UTC).isoformat(timespec="minutes")
        fields = (key.id, key.user, key.created_at, key.label, ",".join(key.scopes), key.expires_at or "-", last)
        print(*fields, sep="\t")
    return 0


def revoke_key(args: argparse.Namespace, settings: Settings) -> int:
    """Ends a key at once, and the sign-in of each browser that came by it."""
    ApiKeys(settings.data_dir).revoke(args.id)
    _audit(settings, "key.revoke", key=args.id)
    _hint(f"key {args.id} is refused from now on, and so are the browsers that came by it")
    return 0


def sign_out(args: argparse.Namespace, settings: Settings) -> int:
    """Ends the sign-in of each browser of a user. Their keys and tokens stay good."""
    keys = ApiKeys(settings.data_dir)
    keys.sign_out(args.user)
    _audit(settings, "user.signout", user=args.user)
    _hint(f"each browser of {args.user} has to sign in again")
    if keys.newest(args.user) is None:
        _hint(f"{args.user} has no API key: is the name right?")
    return 0


def make_link(args: argparse.Namespace, settings: Settings) -> int:
    """Prints a link that signs a browser in once, within ten minutes. Revoking the user's newest key ends that."""
    key = ApiKeys(settings.data_dir).newest(args.user)
    token = Links(settings.data_dir).create(args.user, key.id if key is not None else None)
    _audit(settings, "link.create", user=args.user)
    if key is None:
        _hint(f"{args.user} has no API key: only `signout --user` will end this sign-in early")
    here = server_url(settings.host, settings.port) + settings.root_path
    print(login_url(args.base_url or here, token))
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
    Servers may go on writing to FROM: what they write, or delete, meanwhile, a second run brings along. So: run it
    while they serve, stop them, run it again, and start them on TO. The status is 1 while anything is missing in TO,
    or if FROM was written to while this ran. What was brought, the next run knows from DATA_DIR/migrations/.
    """
    import asyncio  # here, as above
    from contextlib import AsyncExitStack

    from histories import open_store
    from histories.base import StoreUnavailable
    from histories.ledger import Ledger
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
            ledger = Ledger.between(args.source, target_url, settings.data_dir / "migrations")
            return await bring(stores[0], stores[1], lambda line: print(line, flush=True), ledger)

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


def rotate_secret(args: argparse.Namespace, settings: Settings) -> int:
    """Signs browsers' cookies with a new secret from now on. Nobody is signed out, unless it is done twice."""
    SigningSecret(settings.data_dir).rotate()
    _audit(settings, "secret.rotate")
    _hint("cookies of the last secret stay good for their 30 days, those of the one before it are refused")
    return 0


def verify_audit(args: argparse.Namespace, settings: Settings) -> int:
    """Says whether the audit log is whole, and where its chain breaks; the status is 1 when it does."""
    count, trouble = verify(settings.data_dir)
    print(f"{count} lines are as they were written" + (f"; {trouble}" if trouble else ""))
    return 1 if trouble else 0


def change_hold(args: argparse.Namespace, settings: Settings) -> int:
    """Holds all that is kept of a user against retention and `erase`, or lifts that; alone, lists who is held."""
    holds = Holds(settings.data_dir)
    if args.user is None:
        print(*holds.all(), sep="\n", end="\n" if holds.all() else "")
        return 0
    (holds.lift if args.lift else holds.add)(args.user)
    _audit(settings, "hold.lift" if args.lift else "hold.add", user=args.user)
    _hint(f"{args.user} is {'held no more' if args.lift else 'held: retention and erase leave all of theirs alone'}")
    return 0


def list_users(args: argparse.Namespace, settings: Settings) -> int:
    """Prints a line for each user who has sessions or keys: the name, how many of each, and how the log names them."""
    from api.ops import keeping

    names = Names(kept_secret(settings.data_dir, "names.key"))
    for user, (sessions, keys) in _with_store(
        settings, lambda store: keeping.count_by_user(store, settings.data_dir)
    ).items():
        print(user, sessions, keys, names(user), sep="\t")
    return 0


def erase_user(args: argparse.Namespace, settings: Settings) -> int:
    """Deletes all that is kept of a user: sessions, notes, keys, sign-ins. The audit log keeps that it was done."""
    if args.user in Holds(settings.data_dir):
        return _fail(f"{args.user} is held (`hold --user {args.user} --lift` ends that): nothing was deleted")
    if not args.yes and not _agreed(f"Delete all that is kept of {args.user}, for good?"):
        return _fail("nothing was deleted")
    from api.ops import keeping

    sessions, keys = _with_store(settings, lambda store: keeping.erase(store, settings.data_dir, args.user))
    _audit(settings, "user.erase", user=args.user, sessions=sessions, keys=keys)
    print(f"deleted {sessions} sessions and {keys} keys of {args.user}, whose browsers are signed out")
    return 0


def export_user(args: argparse.Namespace, settings: Settings) -> int:
    """Writes all that is kept of a user to standard output, as JSON: each session as `/sessions/import` takes it."""
    from api.ops import keeping

    work = partial(keeping.export, data_dir=settings.data_dir, user=args.user, to=sys.stdout)
    count = _with_store(settings, work)
    _audit(settings, "user.export", user=args.user, sessions=count)
    _hint(f"{count} sessions")
    return 0 if count else 1


def expire_sessions(args: argparse.Namespace, settings: Settings) -> int:
    """Deletes what RECOLLECT_RETENTION_DAYS says is old, as servers do every hour. `--dry-run` only counts it."""
    if not settings.retention_days:
        return _fail("RECOLLECT_RETENTION_DAYS is not set: everything is kept")
    from histories import retention

    rules, holds = retention.Rules.parse(parts_of(settings.retention_days)), Holds(settings.data_dir)
    gone = _with_store(settings, lambda store: retention.expire(store, rules, holds.__contains__, dry=args.dry_run))
    if not args.dry_run:
        _audit(settings, "retention", deleted=gone.deleted, held=gone.held)
    print(f"{gone.deleted} sessions {'would be ' if args.dry_run else ''}deleted, {gone.held} held, {gone.busy} busy")
    return 0


def _with_store(settings: Settings, work: Callable[[HistoryStore], Awaitable[T]]) -> T:
    """What work on the store that the settings name gives. Raises CommandFailed."""
    import asyncio

    from histories import open_store
    from histories.base import HistoryError

    async def run() -> T:
        folder = str(settings.data_dir / "histories")
        store = open_store(settings.history_url, default_dir=folder, fsync=settings.history_fsync)
        await store.open()
        try:
            return await work(store)
        finally:
            await store.close()

    if settings.history_url == "memory:":
        raise CommandFailed("RECOLLECT_HISTORY_URL: a history in memory: is its server's alone")
    try:
        return asyncio.run(run())
    except HistoryError as error:
        raise CommandFailed(str(error)) from error


def _audit(settings: Settings, act: str, **what: Any) -> None:
    """Writes a command down. Who ran it is the account on this machine."""
    Audit(settings.data_dir, durable=True).note(act, who=f"uid {os.getuid()}", source="admin.py", **what)


def _agreed(question: str) -> bool:
    return sys.stdin.isatty() and input(f"{question} [y/N] ").strip().lower() in ("y", "yes")


def serve(args: argparse.Namespace, settings: Settings) -> int:
    """Serves until it is stopped, by settings alone."""
    import server  # here, so that the other commands start in a moment

    return server.main()


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command. Returns its status, or 2 after one line that says what is wrong."""
    args = _parser().parse_args(argv)
    try:
        status: int = args.run(args, load_settings())
    except (SettingsError, InvalidUserId, UnknownKey, KeyFileError, CommandFailed) as error:
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

    _add_keeping(commands)
    commands.add_parser("serve", help="run the server", description=serve.__doc__).set_defaults(run=serve)
    return parser


def _add_keys(keys: argparse.ArgumentParser) -> None:
    commands = keys.add_subparsers(required=True, metavar="COMMAND")
    create = commands.add_parser("create", help="make a key for a user", description=create_key.__doc__)
    create.add_argument("--user", required=True, metavar="NAME")
    create.add_argument(
        "--name", "--label", dest="label", default="", type=_line, metavar="TEXT", help="what it is for"
    )
    create.add_argument("--expires", type=_days, metavar="DAYS", help="after so many days it is refused")
    scopes = ("chat", "read", "metrics")
    create.add_argument("--scope", action="append", choices=scopes, help="what it opens; may be repeated (chat)")
    create.set_defaults(run=create_key)
    commands.add_parser("list", help="show all keys", description=list_keys.__doc__).set_defaults(run=list_keys)
    revoke = commands.add_parser("revoke", help="end a key", description=revoke_key.__doc__)
    revoke.add_argument("id", metavar="ID", help="as `keys list` shows it")
    revoke.set_defaults(run=revoke_key)


def _add_keeping(commands: Any) -> None:
    def add(name: str, run: Callable[[argparse.Namespace, Settings], int], short: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = commands.add_parser(name, help=short, description=run.__doc__)
        parser.set_defaults(run=run)
        return parser

    add("users", list_users, "list who has sessions or keys")
    erase = add("erase", erase_user, "delete all that is kept of a user")
    erase.add_argument("--user", required=True, metavar="NAME")
    erase.add_argument("--yes", action="store_true", help="without asking")
    add("export", export_user, "write out all that is kept of a user").add_argument("--user", required=True)
    hold = add("hold", change_hold, "keep all of a user's against retention and erase")
    hold.add_argument("--user", metavar="NAME")
    hold.add_argument("--lift", action="store_true", help="end the hold")
    add("expire", expire_sessions, "delete what is old").add_argument("--dry-run", action="store_true")
    add("rotate-secret", rotate_secret, "sign cookies with a new secret")
    audit = commands.add_parser("audit", help="look into the audit log").add_subparsers(
        required=True, metavar="COMMAND"
    )
    check = audit.add_parser("verify", help="is it whole?", description=verify_audit.__doc__)
    check.set_defaults(run=verify_audit)


def _days(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 36500:
        raise argparse.ArgumentTypeError("it must be a number of days, 1 or more")
    return int(text)


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

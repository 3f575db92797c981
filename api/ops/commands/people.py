"""What is kept of people: listed, given out, held, deleted; and the audit log of what was done to it."""

from __future__ import annotations

import argparse
import sys
from functools import partial
from typing import Any

from api.ops.commands.stores import with_store
from api.ops.commands.terminal import CommandFailed, Progress, add_command, agreed, audit, fail, hint
from api.ops.logs import Names
from auth.audit import verify
from auth.files import kept_secret
from auth.holds import Holds
from auth.sign_ins import SignIns
from settings import Settings, parts_of


def add_to(commands: Any) -> None:
    """Adds the parsers of these commands."""
    add_command(commands, "users", list_users, "list who has sessions or keys")
    erase = add_command(commands, "erase", erase_user, "delete all that is kept of a user")
    erase.add_argument("--user", required=True, metavar="NAME")
    erase.add_argument("--yes", action="store_true", help="without asking")
    export = add_command(commands, "export", export_user, "write out all that is kept of a user")
    export.add_argument("--user", required=True, metavar="NAME")
    hold = add_command(commands, "hold", change_hold, "keep all of a user's against retention and erase")
    hold.add_argument("--user", metavar="NAME")
    hold.add_argument("--lift", action="store_true", help="end the hold")
    expire = add_command(commands, "expire", expire_sessions, "delete what is old")
    expire.add_argument("--dry-run", action="store_true")
    log = commands.add_parser("audit", help="look into the audit log")
    look = log.add_subparsers(required=True, metavar="COMMAND")
    add_command(look, "verify", verify_audit, "is it whole?")


def list_users(args: argparse.Namespace, settings: Settings) -> int:
    """Prints a line for each user who has sessions or keys: the name, how many of each, and how the log names them."""
    from api.ops import keeping

    names = Names(kept_secret(settings.data_dir, "names.key"))
    found = with_store(settings, lambda store: keeping.count_by_user(store, settings.data_dir))
    for user, (sessions, keys) in found.items():
        print(user, sessions, keys, names(user), sep="\t")
    return 0


def erase_user(args: argparse.Namespace, settings: Settings) -> int:
    """Deletes all that is kept of a user: sessions, notes, keys, sign-ins. The audit log keeps that it was done."""
    if args.user in Holds(settings.data_dir):
        return fail(f"{args.user} is held (`hold --user {args.user} --lift` ends that): nothing was deleted")
    if not args.yes and not agreed(f"Delete all that is kept of {args.user}, for good?"):
        return fail("nothing was deleted")
    from api.ops import keeping

    progress = Progress()
    work = partial(keeping.erase, data_dir=settings.data_dir, user=args.user, tell=progress)
    sessions, keys = with_store(settings, work)
    ended = SignIns(settings.data_dir, idle_s=settings.sign_in_idle_s).end_all(user=args.user)
    progress.clear()
    audit(settings, "user.erase", user=args.user, sessions=sessions, keys=keys, sign_ins=ended)
    print(f"deleted {sessions} sessions and {keys} keys of {args.user}, and signed {ended} browsers out")
    if not sessions + keys + ended:
        hint(f"nothing was kept of {args.user}: is the name right?")
    return 0


def export_user(args: argparse.Namespace, settings: Settings) -> int:
    """Writes all that is kept of a user to standard output, as JSON: each session as `/sessions/import` takes it."""
    from api.ops import keeping

    progress = Progress()
    work = partial(keeping.export, data_dir=settings.data_dir, user=args.user, to=sys.stdout, tell=progress)
    count = with_store(settings, work)
    progress.clear()
    audit(settings, "user.export", user=args.user, sessions=count)
    hint(f"{count} sessions" if count else f"{args.user} has no sessions: is the name right?")
    return 0 if count else 1


def change_hold(args: argparse.Namespace, settings: Settings) -> int:
    """Holds all that is kept of a user against retention and `erase`, or lifts that; alone, lists who is held."""
    holds = Holds(settings.data_dir)
    if args.user is None:
        print(*holds.all(), sep="\n", end="\n" if holds.all() else "")
        return 0
    was_held = args.user in holds
    (holds.lift if args.lift else holds.add)(args.user)
    audit(settings, "hold.lift" if args.lift else "hold.add", user=args.user)
    if not args.lift and not _is_known(args.user, settings):
        hint(f"nothing is kept of {args.user}: is the name right?")
    if was_held is not args.lift:
        hint(f"{args.user} was {'held already' if was_held else 'not held'}: nothing has changed")
    else:
        hint(f"{args.user} is {'held no more' if args.lift else 'held: retention and erase leave all of theirs alone'}")
    return 0


def _is_known(user: str, settings: Settings) -> bool:
    """Whether anything is kept of a user. Where that can't be seen, a hold is none the worse for it: yes."""

    from api.ops import keeping

    try:
        return with_store(settings, lambda store: keeping.is_known(store, settings.data_dir, user))
    except CommandFailed:
        return True


def expire_sessions(args: argparse.Namespace, settings: Settings) -> int:
    """Deletes what RECOLLECT_RETENTION_DAYS says is old, as servers do every hour. `--dry-run` only counts it."""
    if not settings.retention_days:
        return fail("RECOLLECT_RETENTION_DAYS is not set: everything is kept")
    from histories import retention

    rules, holds = retention.Rules.parse(parts_of(settings.retention_days)), Holds(settings.data_dir)
    gone = with_store(settings, lambda store: retention.expire(store, rules, holds.__contains__, dry=args.dry_run))
    if not args.dry_run:
        audit(settings, "retention", deleted=gone.deleted, held=gone.held)
    print(f"{gone.deleted} sessions {'would be ' if args.dry_run else ''}deleted, {gone.held} held, {gone.busy} busy")
    return 0


def verify_audit(args: argparse.Namespace, settings: Settings) -> int:
    """Says whether the audit log is whole, and where its chain breaks; the status is 1 when it does."""
    count, trouble = verify(settings.data_dir)
    print(f"{count} lines are as they were written" + (f"; {trouble}" if trouble else ""))
    return 1 if trouble else 0

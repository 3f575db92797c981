"""The store itself: whether it is whole, its tables, and from one to another.

Its drivers and LangChain are imported by the commands that need them, so that the others start in a moment.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from api.ops.commands.terminal import (
    CommandFailed,
    Progress,
    add_command,
    audit,
    fail,
    hint,
    store_url,
    without_password,
)
from settings import Settings

if TYPE_CHECKING:
    from histories.base import HistoryStore
    from histories.migrate import Migrated

T = TypeVar("T")

_STORES = "file:, file:/dir, redis://…, rediss://… or postgresql://…; env:NAME: as that variable says; -: asked for"


def add_to(commands: Any) -> None:
    """Adds the parsers of these commands."""
    look = add_command(commands, "check", check, "look for damaged histories")
    look.add_argument("--repair", action="store_true", help="save what can be saved; the damaged original is kept")
    move = add_command(commands, "migrate", migrate, "copy all histories to another store")
    move.add_argument("source", metavar="FROM", help=_STORES)
    move.add_argument("target", metavar="TO", nargs="?", help="the same; RECOLLECT_HISTORY_URL if it is left out")
    add_command(commands, "migrate-schema", migrate_schema, "make PostgreSQL's tables")


def with_store(settings: Settings, work: Callable[[HistoryStore], Awaitable[T]]) -> T:
    """What work on the store that the settings name gives. Raises CommandFailed."""
    import asyncio

    from histories import open_store
    from histories.base import HistoryError

    async def run() -> T:
        store = open_store(settings.history_url, default_dir=_folder(settings), fsync=settings.history_fsync)
        await store.open()
        try:
            return await _with_meaning(settings, store, work)
        finally:
            await store.close()

    if settings.history_url == "memory:":
        raise CommandFailed("RECOLLECT_HISTORY_URL: a history in memory: is its server's alone")
    try:
        return asyncio.run(run())
    except HistoryError as error:
        raise CommandFailed(str(error)) from error


async def _with_meaning(settings: Settings, store: HistoryStore, work: Callable[[HistoryStore], Awaitable[T]]) -> T:
    """What work on the store gives: what it deletes is gone from the vectors of recall, too, where there are any."""
    if settings.recall_url is None or settings.embeddings is None:
        return await work(store)
    from histories.meaning.meaning import Meaning, removed_only
    from histories.meaning.vectors import Vectors

    meaning = Meaning(store, Vectors(settings.recall_url, settings.embeddings.partition("@")[0]), removed_only)
    try:
        result = await work(meaning.store)
        if not await meaning.removes():
            hint("admin.py: RECOLLECT_RECALL_URL can't be reached: a server removes there what is gone within an hour")
        return result
    finally:
        await meaning.close()


def _folder(settings: Settings) -> str:
    return str(settings.data_dir / "histories")


def check(args: argparse.Namespace, settings: Settings) -> int:
    """Says what is damaged in the files of histories, and what a repair would cost; `--repair` does it.

    The status is 1 when something is damaged, and was not repaired. It may run beside a server.
    """
    from histories import file_folder
    from histories.files.check import check_main

    if not settings.history_url.startswith("file:"):
        return fail("RECOLLECT_HISTORY_URL: there are no files to check, a database has tools of its own")
    progress = Progress()
    status = check_main(
        file_folder(settings.history_url, _folder(settings)), args.repair, sys.stdout, progress=progress
    )
    audit(settings, "store.check", ok=not status, repair=args.repair)
    return status


def migrate(args: argparse.Namespace, settings: Settings) -> int:
    """Copies all histories from one store to another, and compares each turn with what is read back.

    A store is named as RECOLLECT_HISTORY_URL names it. It may be broken off at any instant, and run again: what is in
    the target and the same is not copied twice, and what has changed in the target since is left alone, and told of.
    Servers may go on writing to FROM: what they write, or delete, meanwhile, a second run brings along. So: run it
    while they serve, stop them, run it again, and start them on TO. The status is 1 while anything is missing in TO,
    or if FROM was written to while this ran. What was brought, the next run knows from DATA_DIR/migrations/.
    """
    source = store_url(args.source, "FROM")
    target = store_url(args.target, "TO") if args.target else settings.history_url
    if "memory:" in (source, target):
        return fail("a history in memory: is gone with its server")
    migrated = _brought(settings, source, target)
    counts = dict(migrated.sessions)
    told = {"store": without_password(source), "to": without_password(target), "turns": migrated.turns}
    audit(settings, "store.migrate", ok=migrated.complete, **told, sessions=counts)
    print(migrated)
    if not migrated.sessions:
        hint("admin.py: FROM has no histories: is that its place?")
    return 0 if migrated.sessions and migrated.complete else 1


def _brought(settings: Settings, source: str, target: str) -> Migrated:
    import asyncio
    from contextlib import AsyncExitStack

    from histories import open_store
    from histories.base import StoreUnavailable
    from histories.ledger import Ledger
    from histories.migrate import migrate as bring

    progress = Progress(sys.stdout)  # as all that it says; the last line counts

    def tell(line: str) -> None:
        progress.clear()
        print(line, flush=True)

    async def run() -> Migrated:
        async with AsyncExitStack() as stack:
            folder, fsync = _folder(settings), settings.history_fsync
            stores = [open_store(url, default_dir=folder, fsync=fsync) for url in (source, target)]
            for store in stores:
                stack.push_async_callback(store.close)
                await store.open()
            ledger = Ledger.between(source, target, settings.data_dir / "migrations")
            return await bring(stores[0], stores[1], tell, progress, ledger)

    try:
        return asyncio.run(run())
    except (StoreUnavailable, ValueError) as error:
        audit(settings, "store.migrate", ok=False, store=without_password(source), to=without_password(target))
        raise CommandFailed(f"{error} What has been copied stays: run it again.") from error
    finally:
        progress.clear()


def migrate_schema(args: argparse.Namespace, settings: Settings) -> int:
    """Makes the tables in the PostgreSQL that RECOLLECT_HISTORY_URL names, or brings them up to date.

    Servers do the same when they start. This is for a database whose tables another user has to make.
    """
    import asyncio

    from histories.base import StoreUnavailable

    if not settings.history_url.startswith("postgresql:"):
        return fail("RECOLLECT_HISTORY_URL: only postgresql:// has a schema")
    from histories.postgres.store import migrate_schema as apply

    try:
        applied = asyncio.run(apply(settings.history_url))
    except (StoreUnavailable, ValueError) as error:
        return fail(f"RECOLLECT_HISTORY_URL: {error}")
    audit(settings, "store.schema", applied=list(applied))
    print("applied " + ", ".join(map(str, applied)) if applied else "up to date")
    return 0

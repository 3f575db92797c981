"""A session's file made anew without what is forgotten.

So it is every hour, and as soon as half of it is of no use any more: who gives a session one title after another, or a
reply one thumb after another, adds a record each time, and would fill the disk with them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Final

from histories.base import HistoryDamaged, HistoryError, SessionBusy, SessionNotFound
from histories.files.idle import while_idle
from histories.files.listing import session_entry
from histories.files.log import Log
from histories.files.new_log import create_log
from histories.files.place import Place
from histories.files.services import Services
from histories.files.session_lines import tree_lines
from histories.files.settle import settle
from histories.files.tree import Tree

SPARE: Final = 256 * 1024
"""So many bytes of no use are no reason to write a whole file again."""

_MOST: Final = 4 * SPARE
"""A file that a running turn holds is not made anew: with so many, nothing is added to it before that has ended."""


def rewrite(store: Services, place: Place, folder: int, log: Log, tree: Tree, updated_at: datetime) -> None:
    """Puts a file in place of the log that holds what is in the tree, and nothing else. For who holds the session."""
    head = log.head()
    content = tree_lines(
        head["user"], head["session"], tree, lambda node: log.entry(node.offset, node.end).turn(),
        title=log.sums().title, created_at=datetime.fromisoformat(head["at"]), updated_at=updated_at,
    )  # fmt: skip
    create_log(store.disk, folder, place.path, content, at=updated_at, sync=store.fsync, replaces=True).close()


async def tidy(store: Services, place: Place) -> int:
    """Takes from the disk what is forgotten and still in the file; gives how many turns that was."""
    gone = 0

    def work(folder: int) -> None:
        nonlocal gone
        try:
            log = Log(store.disk, store.disk.open(folder, place.log, os.O_RDWR | os.O_APPEND))
        except FileNotFoundError:
            raise SessionNotFound from None
        try:
            with store.disk.alone(log.descriptor):
                gone = _without_the_forgotten(store, place, folder, log)
        finally:
            log.close()

    await while_idle(store, place, work)
    return gone


def _without_the_forgotten(store: Services, place: Place, folder: int, log: Log) -> int:
    log.cut_torn_tail()
    tree = store.trees.of(log)
    gone = len(tree.gone)
    if gone or _is_spare(tree, log):
        settle(store, place, folder, log)
        tree.read_on(log)
        rewrite(store, place, folder, log, tree, session_entry(log).updated_at)
    else:
        store.trees.keep(log, tree)
    return gone


def _is_spare(tree: Tree, log: Log) -> bool:
    return tree.spare > max(SPARE, log.size() // 2)


def is_spare(store: Services, log: Log) -> bool:
    """Whether half of the log is of no use any more: then it is to be tidied. For who alone writes to it."""
    tree = _tree_of_much(store, log)
    return tree is not None and _is_spare(tree, log)


def refuse_spare(store: Services, log: Log) -> None:
    """Raises `SessionBusy` if more than that is: a turn has been running for so long that it could not be tidied."""
    tree = _tree_of_much(store, log)
    if tree is not None and tree.spare > _MOST + log.size() // 2:
        raise SessionBusy


def _tree_of_much(store: Services, log: Log) -> Tree | None:
    """The tree of a log that is large enough to be looked at, and sound."""
    if log.size() > SPARE:
        with suppress(HistoryDamaged):
            tree = store.trees.of(log)
            store.trees.keep(log, tree)
            return tree
    return None


async def tidy_soon(store: Services, place: Place) -> None:
    """`tidy` for who has just written something, which is on the record whatever comes of this."""
    with suppress(HistoryError):
        await tidy(store, place)


async def write_and_tidy(store: Services, place: Place, write: Callable[[], bool]) -> None:
    """Writes to the log, beside a turn that may run, what tells whether the log is to be tidied then, and does that."""
    try:
        spare = await store.write(place.key, write)
    except SessionBusy:  # for `refuse_spare`: the turn may have ended meanwhile
        await tidy_soon(store, place)
        spare = await store.write(place.key, write)
    if spare:
        await tidy_soon(store, place)

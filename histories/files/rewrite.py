"""A session's file made anew without what is forgotten."""

from __future__ import annotations

import os
from datetime import datetime

from histories.base import SessionNotFound
from histories.files.idle import while_idle
from histories.files.listing import session_entry
from histories.files.log import Log
from histories.files.new_log import create_log
from histories.files.place import Place
from histories.files.services import Services
from histories.files.session_lines import tree_lines
from histories.files.settle import settle
from histories.files.tree import Tree


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
    if gone:
        settle(store, place, folder, log)
        tree.read_on(log)
        rewrite(store, place, folder, log, tree, session_entry(log).updated_at)
    else:
        store.trees.keep(log, tree)
    return gone

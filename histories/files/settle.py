"""The end of a turn whose owner died: interrupted, with all that its journal holds."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from histories.base import Reply, Turn, estimate_tokens, now
from histories.files.journal_file import journaled
from histories.files.log import Log
from histories.files.place import Place
from histories.files.records import Entry, Sums, end_line
from histories.files.services import Services
from histories.files.tree import Node
from histories.journal import settled


def as_interrupted(store: Services, place: Place, folder: int, entry: Entry) -> Turn:
    """The turn without an end as it will be settled."""
    reply = _reply(store, place, folder, entry)
    return replace(entry.turn(), status=reply.status, output=reply.output, kind=reply.kind, details=reply.details)


def _reply(store: Services, place: Place, folder: int, entry: Entry) -> Reply:
    return settled(journaled(store.disk, folder, place.journal, entry.offset))


def sums_at(node: Node | None, sums: Sums) -> Sums:
    """The sums when this turn is the last one that is shown (None: there is none), and these are the present ones."""
    if node is None:
        return Sums(title=sums.title, more=True)
    return Sums(node.depth, node.tokens, sums.title, node.chain, more=True)


def settle(store: Services, place: Place, folder: int, log: Log) -> None:
    """Ends the last turn if it has no end: its owner is dead. For who holds the session and its log."""
    last = next(log.entries(), None)
    if last is None or last.end is not None:
        return
    reply, sums, at, back = _reply(store, place, folder, last), log.sums(), now(), {}
    if reply.is_shown:
        sums = replace(sums, tokens=sums.tokens + estimate_tokens(last.turn().input) + reply.tokens)
    elif last.record.get("version"):
        tree = store.trees.of(log)
        store.trees.keep(log, tree)
        sums = sums_at(tree.ids[last.turn_id].behind, sums)
        back = {"to": last.offset, "gone": last.record.get("gone", [])}
    line = end_line(last.turn_id, reply, at, sums, **back)
    log.append(line, at=at, sync=store.fsync, path=place.path)
    with suppress(OSError):
        store.disk.unlink(folder, place.journal)

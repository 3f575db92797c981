"""The turns of a log as a tree: which stand at the same place, which are shown, and which are on the record at all.

The shown line alone can be read from the tail of a log. All else needs a look at the whole of it: a log is read once,
and from then on just what was added to it.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from histories.base import Feedback, HistoryMoved, TurnNotFound
from histories.files.log import Backward, Log
from histories.files.records import damaged

_SCAN: Final = 1024 * 1024
_MARK: Final = 64
"""So many bytes at the end of a record, with its checksum, tell whether a file is the one that was read before."""


@dataclass(slots=True, eq=False)
class Node:
    """A turn: the offset of its record, and that after its end; what was shown before it, and which one after it last.

    `behind` is the end of the line that was shown before this turn began.
    """

    offset: int
    turn_id: str
    parent: Node | None
    behind: Node | None
    depth: int
    chain: str
    tokens: int
    end: int = 0
    chosen: Node | None = None
    feedback: Feedback | None = None
    feedback_size: int = 0
    is_gone: bool = False
    failed: bool = False
    """Whether the line before it is shown again, since it came to nothing."""


class Tree:
    """The turns of one log, up to `size`."""

    def __init__(self) -> None:
        self.nodes: dict[int, Node] = {}
        self.ids: dict[str, Node] = {}
        self.head: Node | None = None
        self.gone: set[int] = set()
        """The offsets of turns that are forgotten, and still in the file."""
        self.named: set[int] = set()
        """Those of them that records name: reading the line does not pass them by otherwise."""
        self.size, self.mark = 0, b""
        self.spare = 0
        """About how many bytes hold what is forgotten, or what a later record has replaced."""

    def find(self, turn_id: str) -> Node:
        try:
            return self.ids[turn_id]
        except KeyError:
            raise TurnNotFound from None

    def expect(self, if_last: str | None) -> None:
        """Raises `HistoryMoved` unless that is the last turn of the shown line, if one is named."""
        last = "" if self.head is None else self.head.turn_id
        if if_last not in (None, last):
            raise HistoryMoved

    def line(self) -> Iterator[Node]:
        """The shown line, newest first."""
        node = self.head
        while node is not None:
            yield node
            node = node.parent

    def shown(self, turn_id: str) -> Node:
        node = next((node for node in self.line() if node.turn_id == turn_id), None)
        if node is None:
            raise TurnNotFound
        return node

    def siblings(self) -> dict[Node | None, list[str]]:
        """The turn_ids that follow each turn, oldest first: several are versions of each other."""
        found: dict[Node | None, list[str]] = {}
        for node in self.nodes.values():
            found.setdefault(node.parent, []).append(node.turn_id)
        return found

    def show(self, head: Node | None) -> None:
        self.head = head
        while head is not None and head.parent is not None:
            head.parent.chosen, head = head, head.parent

    def remove(self, nodes: Iterable[Node]) -> None:
        """Forgets these; what followed one follows what was before it."""
        gone = list(nodes)
        for node in gone:
            node.is_gone = True
            self.gone.add(node.offset)
            self.spare += max(0, node.end - node.offset)
            self.nodes.pop(node.offset, None)
            if self.ids.get(node.turn_id) is node:
                del self.ids[node.turn_id]
        if gone:
            for node in self.nodes.values():
                node.parent, node.behind = _kept(node.parent), _kept(node.behind)
                node.chosen = node.chosen if node.chosen is not None and not node.chosen.is_gone else None
                node.depth = 1 if node.parent is None else node.parent.depth + 1
            self.head = _kept(self.head)

    def below(self, top: Node | None) -> list[Node]:
        """All that follows a turn, or the beginning."""
        found = list[Node]()
        inside = {top}
        for node in self.nodes.values():
            if node.parent in inside:
                inside.add(node)
                found.append(node)
        return found

    def apply(self, offset: int, record: dict[str, Any], after: int) -> None:
        """The next record: from `offset` to `after`."""
        kind = record["r"]
        if kind == "turn":
            self._apply_turn(offset, record)
        elif kind == "end" and (node := self.ids.get(record["id"])) is not None:
            node.end = after
            if "to" in record:
                node.failed = True
                self.show(node.behind)
            else:
                node.tokens = record["s"]["tokens"]
        elif kind in ("rewind", "title"):
            self.spare += after - offset
            if kind == "rewind":
                self._jump(record)
        elif kind == "feedback" and (node := self.ids.get(record["id"])) is not None:
            self.spare += node.feedback_size
            node.feedback_size = after - offset
            node.feedback = Feedback(score=record["score"], comment=record["comment"])

    def _apply_turn(self, offset: int, record: dict[str, Any]) -> None:
        behind = self.head
        if "up" not in record and "to" not in record:
            self._forget(record)
            parent = self.head
        else:
            parent = self._jump(record)
        depth = 1 if parent is None else parent.depth + 1
        node = Node(offset, record["id"], parent, _kept(behind), depth, record["chain"], record["s"]["tokens"])
        self.nodes[offset] = self.ids[node.turn_id] = self.head = node
        if parent is not None:
            parent.chosen = node

    def _jump(self, record: dict[str, Any]) -> Node | None:
        """Makes another turn the last one that is shown; forgets what followed it, unless that is kept."""
        if "up" in record:
            target = self.nodes.get(record["up"])
            if not record.get("keep"):
                self.remove(self.below(target))
            self._forget(record)
            self.show(_kept(target))
        else:  # of a version of Recollect that knew of one line
            self.remove([node for node in self.nodes.values() if node.offset >= record["to"]])
            self._forget(record)
            self.head = next(reversed(self.nodes.values()), None)
        return self.head

    def _forget(self, record: dict[str, Any]) -> None:
        self.named.update(record.get("gone", ()))
        self.remove([self.nodes[offset] for offset in record.get("gone", ()) if offset in self.nodes])

    def read_on(self, log: Log) -> None:
        """Reads what was added to the log; raises `HistoryDamaged` if that is taken back in this instant."""
        end, part = Backward(log, None).end, b""
        while self.size + len(part) < end:
            start = self.size + len(part)
            more = log.disk.read(log.descriptor, min(_SCAN, end - start), start)
            if not more:  # whoever appended it could not sync it
                raise damaged()
            part += more
            whole = part.rfind(b"\n") + 1
            self.learn(part[:whole])
            part = part[whole:]

    def learn(self, lines: bytes) -> None:
        """Whole lines, which follow those that are known."""
        for line in lines.splitlines(keepends=True):
            try:
                self.apply(self.size, _head_of(line), self.size + len(line))
            except (ValueError, LookupError, TypeError) as error:
                raise damaged() from error
            self.size += len(line)
        self.mark = (self.mark + lines)[-_MARK:]


def _head_of(line: bytes) -> dict[str, Any]:
    """A record without the messages of a turn, which come last. (In a string of JSON, a quotation mark is escaped.)"""
    for member in (b',"in":[', b',"out":['):
        head, found, _ = line.partition(member)
        if found:
            line = head + b"}"
            break
    record: dict[str, Any] = json.loads(line)
    return record


def _kept(node: Node | None) -> Node | None:
    while node is not None and node.is_gone:
        node = node.parent
    return node


class Trees:
    """The trees of the logs that were used last. Its users may be on any thread."""

    def __init__(self, most: int = 100_000) -> None:
        self._most, self._weight = most, 0
        self._trees: OrderedDict[tuple[int, int, str], Tree] = OrderedDict()
        self._guard = threading.Lock()

    def of(self, log: Log) -> Tree:
        """The tree of a log as it is now, for its caller alone until it is kept again."""
        tree = self._take(log.identity)
        if tree.mark != log.disk.read(log.descriptor, len(tree.mark), tree.size - len(tree.mark)):
            tree = Tree()  # what was read was taken back
        tree.read_on(log)
        return tree

    def knows(self, log: Log, size: int, turn_id: str) -> bool | None:
        """Whether a turn is in an open log of this size, without a look at it; None if all of it is not known."""
        key = log.identity
        with self._guard:
            tree = self._trees.get(key)
            return turn_id in tree.ids if tree is not None and tree.size == size else None

    def note(self, log: Log, size: int, lines: bytes) -> None:
        """What was just appended to a log that had this size; of no matter if that was not all known."""
        key = log.identity
        with self._guard:
            tree = self._trees.get(key)
            if tree is None or tree.size != size:
                return
        tree = self._take(key)
        if tree.size == size:
            tree.learn(lines)
        self.keep(log, tree)

    def _take(self, key: tuple[int, int, str]) -> Tree:
        with self._guard:
            tree = self._trees.pop(key, None)
            self._weight -= _weight(tree) if tree else 0
        return tree or Tree()

    def keep(self, log: Log, tree: Tree) -> None:
        """Remembers a tree that nobody uses any more."""
        key = log.identity
        with self._guard:
            old = self._trees.pop(key, None)
            self._weight += _weight(tree) - (_weight(old) if old else 0)
            self._trees[key] = tree
            while self._weight > self._most and len(self._trees) > 1:
                self._weight -= _weight(self._trees.popitem(last=False)[1])


def _weight(tree: Tree) -> int:
    return 8 + len(tree.nodes)

"""The turns of one session, in memory: a tree of versions, of which one line is shown."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime

from langchain_core.messages import BaseMessage

from histories import codec
from histories.base import Attempt, HistoryMoved, ShownTurn, Turn, TurnNotFound, TurnStatus
from histories.search import Index, Text
from histories.window import window_floor


@dataclass(slots=True)
class Node:
    """A turn in the tree of a session: the node of the turn before it, and which child was last shown."""

    turn: Turn
    parent: Node | None
    chosen: Node | None = None


@dataclass(slots=True)
class SessionTree:
    """A session. `nodes` are its turns in the order of their beginning; `head` is the last one that is shown."""

    title: str
    created_at: datetime
    updated_at: datetime
    nodes: list[Node] = field(default_factory=list)
    head: Node | None = None
    index: Index[str] = field(default_factory=Index)
    """The words of the complete turns of the shown line, as far as a recall has needed them."""

    indexed: dict[str, Node] = field(default_factory=dict)
    last_indexed: Node | None = None
    documents: dict[str, str] = field(default_factory=dict)

    def line(self) -> list[Node]:
        """The shown line, oldest first."""
        found, node = list[Node](), self.head
        while node is not None:
            found.append(node)
            node = node.parent
        return found[::-1]

    def show(self, head: Node | None) -> None:
        """Makes this the end of the shown line, which each node on it remembers."""
        self.head = head
        while head is not None and head.parent is not None:
            head.parent.chosen, head = head, head.parent

    def find(self, turn_id: str) -> Node:
        for node in self.nodes:
            if node.turn.turn_id == turn_id:
                return node
        raise TurnNotFound

    def shown(self, turn_id: str) -> Node:
        """The turn of that id, on the shown line."""
        for node in self.line():
            if node.turn.turn_id == turn_id:
                return node
        raise TurnNotFound

    def remove(self, gone: Collection[int]) -> None:
        """Takes the nodes of these object ids out; what followed one follows what was before it."""
        for node in self.nodes:
            node.parent = kept_before(node.parent, gone)
            while node.chosen is not None and id(node.chosen) in gone:
                node.chosen = node.chosen.chosen
        self.nodes = [node for node in self.nodes if id(node) not in gone]
        self.show(kept_before(self.head, gone))
        self.index, self.indexed, self.last_indexed = Index(), {}, None

    def seen(self, node: Node) -> Turn:
        """The turn as it is given out: a copy, with its versions."""
        versions = [other.turn.turn_id for other in self.nodes if other.parent is node.parent]
        return copy(replace(node.turn, versions=versions if len(versions) > 1 else ()))

    def ranked(self, query: str, limit: int, exclude: Collection[str]) -> list[tuple[Turn, float]]:
        """The complete turns of the shown line that have words of the query, best first, with their scores."""
        self._catch_up()
        best = self.index.rank(query, self.indexed.keys(), limit + len(exclude))
        return [(self.indexed[one].turn, score) for one, score in best if one not in exclude][:limit]

    def _catch_up(self) -> None:
        """Puts the new turns of the shown line into the index; all of them, if it is another line."""
        new, node = list[Node](), self.head
        while node is not None and node.turn.turn_id not in self.indexed:
            new.append(node)
            node = node.parent
        if node is not self.last_indexed:
            self.index, self.indexed, new = Index(), {}, self.line()[::-1]
        while new and new[-1].turn.status is not TurnStatus.RUNNING:
            self.last_indexed = node = new.pop()
            self.indexed[node.turn.turn_id] = node
            if node.turn.status is TurnStatus.COMPLETE:
                self.index.add(node.turn.turn_id, codec.text_of([*node.turn.input, *node.turn.output]))

    def expect(self, if_last: str | None) -> None:
        last = self.head.turn.turn_id if self.head is not None else ""
        if if_last is not None and last != if_last:
            raise HistoryMoved


def kept_before(node: Node | None, gone: Collection[int]) -> Node | None:
    while node is not None and id(node) in gone:
        node = node.parent
    return node


def below(record: SessionTree, top: Node) -> list[Node]:
    """A node, the other versions at its place, and all that follows them."""
    found = [node for node in record.nodes if node.parent is top.parent]
    for node in record.nodes:
        if node.parent is not None and any(node.parent is other for other in found):
            found.append(node)
    return found


def window_of(record: SessionTree, attempt: Attempt) -> tuple[list[ShownTurn], bool]:
    """The window, and whether there are turns before it."""
    shown = [node.turn for node in record.line() if node.turn.shown]
    total = sum(turn.tokens for turn in shown)
    floor, so_far, window = window_floor(total + attempt.new.tokens, attempt.window_tokens), 0, list[ShownTurn]()
    for turn in shown:
        if so_far >= floor:
            window.append(ShownTurn(turn.turn_id, copies((*turn.input, *turn.output))))
        so_far += turn.tokens
    return window, len(window) < len(shown)


def texts(line: Iterable[Node]) -> list[Text[str]]:
    return [Text(n.turn.turn_id, codec.text_of([*n.turn.input, *n.turn.output])) for n in line]


def copies(messages: Iterable[BaseMessage]) -> list[BaseMessage]:
    return codec.load_messages(json.loads(codec.dump_messages(messages)))


def copy(turn: Turn) -> Turn:
    return replace(turn, input=copies(turn.input), output=copies(turn.output))

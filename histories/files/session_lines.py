"""The content of a session's file, made anew: from turns that follow each other, or from the tree of a log."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

from histories.base import NewTurn, Reply, Turn, TurnTree
from histories.files.records import Sums, end_line, feedback_line, session_line, sums_line, turn_line
from histories.files.tree import Node, Tree


class _Writer:
    """Writes turn after turn, each after any of those that were written."""

    def __init__(self, user_id: str, session_id: str, title: str, created_at: datetime) -> None:
        self._data = bytearray(session_line(user_id, session_id, created_at))
        self._places: dict[int, tuple[int, int, Sums]] = {-1: (-1, len(self._data), Sums(title=title))}
        """What a turn is called by -> the offset of its record, that after its end, and the sums there."""
        self._last, self._more = -1, False

    def turn(self, key: int, parent: int, turn: Turn) -> None:
        up, to, sums = self._places[parent]
        self._more = self._more or parent != self._last
        jump: dict[str, Any] = {} if parent == self._last else {"to": to, "up": up, "keep": True}
        new = NewTurn(input=turn.input, chain=turn.chain, turn_id=turn.turn_id)
        begun = replace(sums, turns=sums.turns + 1, chain=turn.chain, more=self._more)
        offset = len(self._data)
        self._data += turn_line(new, turn.started_at, begun, jump)
        ended = replace(begun, tokens=begun.tokens + turn.tokens)
        reply = Reply(status=turn.status, output=turn.output, usage=turn.usage, kind=turn.kind, details=turn.details)
        at = turn.ended_at or turn.started_at
        self._data += end_line(turn.turn_id, reply, at, ended)
        self._places[key], self._last = (offset, len(self._data), ended), key
        if turn.feedback:
            self._more = True
            self._data += feedback_line(turn.turn_id, turn.feedback, at, ended)

    def content(self, head: int, at: datetime) -> bytes:
        """All of it, with this turn as the last one that is shown."""
        up, to, sums = self._places[head]
        sums = replace(sums, more=self._more)
        if head != self._last:
            self._data += sums_line("rewind", sums, at, title=sums.title, to=to, up=up, keep=True)
        return bytes(self._data + sums_line("title", sums, at, title=sums.title))


def session_lines(
    user_id: str, session_id: str, tree: TurnTree, *, title: str, created_at: datetime, updated_at: datetime
) -> bytes:
    """The whole file of a session whose turns are at rest."""
    writer, numbers = _Writer(user_id, session_id, title, created_at), {"": -1}
    for number, (turn, after) in enumerate(zip(tree.turns, tree.after, strict=True)):
        writer.turn(number, numbers[after], turn)
        numbers[turn.turn_id] = number
    return writer.content(numbers[tree.last], updated_at)


def tree_lines(
    user_id: str,
    session_id: str,
    tree: Tree,
    turn_of: Callable[[Node], Turn],
    *,
    title: str,
    created_at: datetime,
    updated_at: datetime,
) -> bytes:
    """The same of all that is in a tree, without what is forgotten."""
    writer = _Writer(user_id, session_id, title, created_at)
    for node in tree.nodes.values():
        turn = replace(turn_of(node).at_rest(), feedback=node.feedback)
        writer.turn(node.offset, -1 if node.parent is None else node.parent.offset, turn)
    return writer.content(-1 if tree.head is None else tree.head.offset, updated_at)

"""What is wrong with the bytes of a session's file, and what of it can be saved."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from histories.base import HistoryDamaged, Turn, now
from histories.files.names import file_name
from histories.files.records import Entry, decode, is_newer
from histories.files.session_lines import tree_lines
from histories.files.tree import Node, Tree

_STRING = rb'"((?:[^"\\]|\\.)*)"'


@dataclass
class Finding:
    """One thing that is wrong. `lost` is what a repair can't save of it."""

    what: str
    lost: str = ""


@dataclass
class Salvage:
    """What a file holds. `repaired` is what it would be after a repair; None if that can't be told, or needs none."""

    empty: bool = False
    findings: list[Finding] = field(default_factory=list)
    turns: int = 0
    open_turn: str | None = None
    """The turn_id of the last turn, if it has no end."""
    repaired: bytes | None = None
    updated_at: datetime | None = None


def salvage(data: bytes, user: str, session: str) -> Salvage:
    """Looks at the file whose folder and name (without its suffix) are these."""
    replay, salvaged = _Replay(), Salvage(empty=not data)
    end = 0
    for start, line, whole in _lines(data):
        if is_newer(line):
            salvaged.findings.append(Finding(f"byte {start}: a newer version of Recollect wrote it; use that one"))
            return salvaged
        if not whole:
            lost = "what was being written when it was cut off, of which nobody was assured unless it was cut by hand"
            salvaged.findings.append(Finding(f"byte {start}: {len(line)} bytes of a torn record at the end", lost))
            break
        end = start + len(line) + 1
        try:
            replay.apply(start, decode(line), end)
        except (HistoryDamaged, KeyError, TypeError, ValueError) as error:
            what = str(error) if isinstance(error, _Inconsistent) else "a garbled record"
            replay.findings.append(Finding(f"byte {start}: {what}", _told_by(line)))
    torn_only = bool(salvaged.findings) and not replay.findings
    salvaged.findings = replay.findings + salvaged.findings
    salvaged.turns, salvaged.open_turn = len(replay.tree.nodes), replay.open_turn
    if data and end:
        _name(salvaged, replay, data, user, session)
    if replay.ids is not None and salvaged.findings:
        salvaged.repaired = data[:end] if torn_only else replay.content()
    elif not end and salvaged.findings:
        salvaged.repaired = b""
    salvaged.updated_at = replay.updated_at
    return salvaged


def _lines(data: bytes) -> Iterator[tuple[int, bytes, bool]]:
    """The lines of the file: where each begins, what it is without its newline, and whether it has one."""
    start = 0
    while start < len(data):
        end = data.find(b"\n", start)
        whole, end = end >= 0, end if end >= 0 else len(data)
        yield start, data[start:end], whole
        start = end + 1


def _told_by(line: bytes) -> str:
    """What a garbled record was, as far as it still tells."""
    kind = re.search(rb'"r":"(turn|end|title|rewind|session|feedback)"', line)
    turn_id = re.search(rb'"id":' + _STRING, line)
    name = f" {turn_id[1].decode('ascii', 'replace')}" if turn_id else ""
    known = {
        b"turn": f"the turn{name}", b"end": f"the reply of the turn{name}", b"title": "a title",
        b"rewind": "a rewind: what it took back is there again", b"session": "",
        b"feedback": "what its user thought of a reply",
    }  # fmt: skip
    return known[kind[1]] if kind else "one record, which may be a whole turn"


def _name(salvaged: Salvage, replay: _Replay, data: bytes, user: str, session: str) -> None:
    """Whose session it is: what the head says, if the name of the file agrees."""
    if replay.ids is None:
        replay.ids = _ids_in(data.partition(b"\n")[0])
        if replay.ids is None or (file_name(replay.ids[0]), file_name(replay.ids[1])) != (user, session):
            replay.ids = None
            salvaged.findings.append(Finding("whose session it is can't be told: it has no readable first record"))
    elif (file_name(replay.ids[0]), file_name(replay.ids[1])) != (user, session):
        theirs = f"{file_name(replay.ids[0])}/{file_name(replay.ids[1])}.jsonl"
        salvaged.findings.append(Finding(f"its first record belongs into {theirs}: move it there, or remove it"))
        replay.ids = None


def _ids_in(head: bytes) -> tuple[str, str] | None:
    found = [re.search(rb'"%s":' % key + _STRING, head) for key in (b"user", b"session")]
    try:
        user, session = (json.loads(b'"' + match[1] + b'"') for match in found if match)
    except ValueError:
        return None
    return user, session


class _Inconsistent(ValueError):
    """A record that is whole, and does not go with those before it."""


class _Replay:
    """The records of a file, applied from its head: what the history is after them."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []
        self.tree = Tree()
        self._ends: dict[int, dict[str, Any] | None] = {}
        self._begins: dict[int, dict[str, Any]] = {}
        self.ids: tuple[str, str] | None = None
        self.title = ""
        self.created_at: datetime | None = None
        self.updated_at: datetime | None = None

    @property
    def open_turn(self) -> str | None:
        """The turn_id of the last turn, if it has no end."""
        head = self.tree.head
        return head.turn_id if head is not None and not head.end else None

    def apply(self, offset: int, record: dict[str, Any], after: int) -> None:
        kind, at = record["r"], datetime.fromisoformat(record["at"])
        if kind == "session":
            self.ids, self.created_at = (str(record["user"]), str(record["session"])), at
        elif kind == "end":
            self._end(record)
        elif kind == "turn":
            Entry(offset, record, None).turn()  # raises if it is none
            self._begins[offset] = record
        self.tree.apply(offset, record, after)
        if kind in ("turn", "rewind"):
            self._count(offset, record)
        self.title, self.updated_at = record["s"]["title"], at

    def _count(self, offset: int, record: dict[str, Any]) -> None:
        head = self.tree.head
        missing = record["s"]["turns"] - (0 if head is None else head.depth)
        if missing and not self.findings:
            what = f"byte {offset}: {missing:+} turns before it by its count"
            self.findings.append(Finding(what, "records that are not there any more"))

    def _end(self, record: dict[str, Any]) -> None:
        node = self.tree.ids.get(record["id"])
        if node is None:
            raise _Inconsistent("the end of a turn that is not there")
        Entry(node.offset, self._begins[node.offset], record).turn()
        self._ends[node.offset] = record  # a second one holds instead of the first

    def _turn(self, node: Node) -> Turn:
        return Entry(node.offset, self._begins[node.offset], self._ends.get(node.offset)).turn()

    def content(self) -> bytes:
        """A whole file of what could be read."""
        assert self.ids is not None  # noqa: S101 - a session of nobody is not repaired
        first = next(iter(self.tree.nodes.values()), None)
        at = self.created_at or (self._turn(first).started_at if first else self.updated_at) or now()
        title, updated_at = self.title or "Untitled", self.updated_at or at
        return tree_lines(*self.ids, self.tree, self._turn, title=title, created_at=at, updated_at=updated_at)

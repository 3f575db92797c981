"""Histories in the memory of this process: for tests and for trying things out."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import cast

from langchain_core.messages import BaseMessage
from typing_extensions import override

from histories import codec
from histories.base import (
    PAGE_BYTES,
    Attempt,
    Event,
    Feedback,
    Gate,
    HistoryMoved,
    HistoryStore,
    InvalidCursor,
    InvalidId,
    Note,
    OpenTurn,
    Page,
    Recalled,
    Reply,
    Session,
    SessionBusy,
    SessionExists,
    SessionHistory,
    SessionNotFound,
    ShownTurn,
    Turn,
    TurnDetails,
    TurnNotFound,
    TurnStatus,
    now,
    title_of,
)
from histories.journal import Journal
from histories.search import Index, Text, hits
from histories.window import window_floor

_Key = tuple[str, str]


@dataclass(slots=True)
class _Node:
    """A turn in the tree of a session: the node of the turn before it, and which child was last shown."""

    turn: Turn
    parent: _Node | None
    chosen: _Node | None = None


@dataclass(slots=True)
class _Record:
    """A session. `nodes` are its turns in the order of their beginning; `head` is the last one that is shown."""

    title: str
    created_at: datetime
    updated_at: datetime
    nodes: list[_Node] = field(default_factory=list)
    head: _Node | None = None
    index: Index[str] = field(default_factory=Index)
    """The words of the complete turns of the shown line, as far as a recall has needed them."""

    indexed: dict[str, _Node] = field(default_factory=dict)
    last_indexed: _Node | None = None
    documents: dict[str, str] = field(default_factory=dict)

    def line(self) -> list[_Node]:
        """The shown line, oldest first."""
        found, node = list[_Node](), self.head
        while node is not None:
            found.append(node)
            node = node.parent
        return found[::-1]

    def show(self, head: _Node | None) -> None:
        """Makes this the end of the shown line, which each node on it remembers."""
        self.head = head
        while head is not None and head.parent is not None:
            head.parent.chosen, head = head, head.parent

    def find(self, turn_id: str) -> _Node:
        for node in self.nodes:
            if node.turn.turn_id == turn_id:
                return node
        raise TurnNotFound

    def shown(self, turn_id: str) -> _Node:
        """The turn of that id, on the shown line."""
        for node in self.line():
            if node.turn.turn_id == turn_id:
                return node
        raise TurnNotFound

    def remove(self, gone: Collection[int]) -> None:
        """Takes the nodes of these object ids out; what followed one follows what was before it."""
        for node in self.nodes:
            node.parent = _kept(node.parent, gone)
            while node.chosen is not None and id(node.chosen) in gone:
                node.chosen = node.chosen.chosen
        self.nodes = [node for node in self.nodes if id(node) not in gone]
        self.show(_kept(self.head, gone))
        self.index, self.indexed, self.last_indexed = Index(), {}, None

    def seen(self, node: _Node) -> Turn:
        """The turn as it is given out: a copy, with its versions."""
        versions = [other.turn.turn_id for other in self.nodes if other.parent is node.parent]
        return _copy(replace(node.turn, versions=versions if len(versions) > 1 else ()))

    def ranked(self, query: str, limit: int, exclude: Collection[str]) -> list[tuple[Turn, float]]:
        """The complete turns of the shown line that have words of the query, best first, with their scores."""
        self._catch_up()
        best = self.index.rank(query, self.indexed.keys(), limit + len(exclude))
        return [(self.indexed[one].turn, score) for one, score in best if one not in exclude][:limit]

    def _catch_up(self) -> None:
        """Puts the new turns of the shown line into the index; all of them, if it is another line."""
        new, node = list[_Node](), self.head
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


def _kept(node: _Node | None, gone: Collection[int]) -> _Node | None:
    while node is not None and id(node) in gone:
        node = node.parent
    return node


class MemoryStore(HistoryStore):
    """Histories that end with the process. Messages are kept as copies, as any other store would."""

    def __init__(self) -> None:
        self.records: dict[_Key, _Record] = {}
        self.journals: dict[_Key, Journal] = {}
        self.gate = Gate()
        self._notes: dict[str, list[Note]] = {}

    @override
    async def ping(self) -> None:
        return

    @override
    def history(self, user_id: str, session_id: str) -> SessionHistory:
        return MemoryHistory(self, user_id, session_id)

    @override
    async def sessions(
        self, user_id: str, *, limit: int = 50, cursor: str | None = None, query: str | None = None
    ) -> Page[Session]:
        found = [
            ((record.updated_at.isoformat(), session_id), record)
            for (user, session_id), record in list(self.records.items())
            if user == user_id
        ]
        if cursor is not None:
            time, tilde, name = cursor.partition("~")
            if not tilde or not _is_time(time):
                raise InvalidCursor("Send `cursor` as the `next` of an earlier page.")
            found = [(key, record) for key, record in found if key < (time, name)]
        found.sort(key=lambda item: item[0], reverse=True)
        page = list[tuple[tuple[str, str], Session]]()
        for key, record in found:
            session = _entry(key[1], record)
            if query and query.strip():
                where = hits(query, record.title, _texts(record.line()))
                if where is None:
                    continue
                session = replace(session, hits=where)
            page.append((key, session))
        following = "~".join(page[limit - 1][0]) if len(page) > limit else None
        return Page([session for _, session in page[:limit]], following)

    @override
    async def recall(
        self,
        user_id: str,
        query: str,
        *,
        session_id: str | None = None,
        exclude: Collection[tuple[str, str]] = (),
        limit: int = 8,
    ) -> list[Recalled]:
        found = [
            (score, session, turn)
            for (user, session), record in self.records.items()
            if user == user_id and session_id in (None, session)
            for turn, score in record.ranked(query, limit, {turn for of, turn in exclude if of == session})
        ]
        found.sort(key=lambda one: one[0], reverse=True)
        return [Recalled(session, _copy(turn), score) for score, session, turn in found[:limit]]

    @override
    async def notes(self, user_id: str) -> list[Note]:
        return list(self._notes.get(user_id, ()))

    @override
    async def set_notes(self, user_id: str, notes: Sequence[Note]) -> None:
        self._notes[user_id] = list(notes)

    @override
    async def users(self) -> AsyncIterator[str]:
        for user in {user for user, _ in self.records}:
            yield user

    @override
    async def forget(self, user_id: str) -> None:
        busy: SessionBusy | None = None
        self._notes.pop(user_id, None)
        for user, session_id in list(self.records):
            if user == user_id:
                try:
                    await self.history(user, session_id).delete()
                except SessionBusy as error:
                    busy = error
        if busy is not None:
            raise busy


class MemoryHistory(SessionHistory):
    """The history of one session, in memory."""

    def __init__(self, store: MemoryStore, user_id: str, session_id: str) -> None:
        self.user_id, self.session_id = user_id, session_id
        self._store, self._key = store, (user_id, session_id)
        self.gate, self.key = store.gate, f"{len(user_id)}:{user_id}{session_id}"

    @property
    def _record(self) -> _Record:
        record = self._store.records.get(self._key)
        if record is None:
            raise SessionNotFound
        return record

    @override
    async def _begin(self, attempt: Attempt) -> OpenTurn | Turn:
        new, at = attempt.new, now()
        kept = _copies(new.input)
        record = self._store.records.get(self._key) or _Record(title_of(new.input), at, at)
        earlier = next((n for n in record.nodes if new.given and n.turn.turn_id == new.turn_id), None)
        if earlier is not None and earlier.turn.status is TurnStatus.COMPLETE:
            return record.seen(earlier)
        record.expect(attempt.if_last)
        other = record.shown(new.version_of) if new.version_of is not None else None
        before = record.head if other is None else other.parent
        if earlier is not None:
            before = _kept(before, {id(earlier)})
            record.remove({id(earlier)})
        line = record.head
        record.updated_at = at
        turn = Turn(turn_id=new.turn_id, status=TurnStatus.RUNNING, chain=new.chain, started_at=at, input=kept)
        node = _Node(turn, before)
        record.nodes.append(node)
        record.show(node)
        self._store.records[self._key] = record
        self._store.journals[self._key] = Journal()
        opened = _OpenMemoryTurn(self._store, self, attempt, line if other is not None else node)
        if attempt.window_tokens:
            opened.window, opened.has_older = _window(record, attempt)
        return opened

    @override
    def events(self, turn_id: str, *, after: int = -1) -> AsyncIterator[Sequence[Event]]:
        journal = self._store.journals.get(self._key) if self.gate.runs(self.key, turn_id) else None
        if journal is None:
            journal = Journal()
            journal.close()
        return journal.read(after)

    @override
    async def info(self) -> Session:
        running = self.gate.running.get(self.key)
        return replace(_entry(self.session_id, self._record), running=None if running is None else running.new.turn_id)

    @override
    async def turns(self, *, limit: int = 50, before: str | None = None) -> Page[Turn]:
        record = self._store.records.get(self._key)
        line = record.line() if record is not None else []
        if before is not None and not (before.isascii() and before.isdigit() and len(before) < 16):
            raise InvalidCursor("Send `before` as the `next` of an earlier page.")
        start = len(line) if before is None else min(int(before), len(line))
        found, size = list[Turn](), 0
        while start and record is not None and len(found) < limit and size < PAGE_BYTES:
            start -= 1
            found.append(record.seen(line[start]))
            size += sum(len(codec.dump_messages(part)) for part in (found[-1].input, found[-1].output))
        return Page(found[::-1], str(start) if start else None)

    @override
    async def turn(self, turn_id: str) -> Turn:
        record = self._record
        return record.seen(record.find(turn_id))

    @override
    async def rename(self, title: str) -> None:
        record = self._record
        record.title, record.updated_at = title, now()

    @override
    async def feedback(self, turn_id: str, feedback: Feedback) -> None:
        node = self._record.find(turn_id)
        node.turn = replace(node.turn, feedback=Feedback(**feedback))

    @override
    async def _rewind(self, turn_id: str, *, keep: bool, if_last: str | None) -> None:
        record = self._record
        node = record.shown(turn_id)
        async with self.gate.idle(self.key):
            record.expect(if_last)
            line = record.line()
            if not keep:
                record.remove({id(gone) for gone in _below(record, line[line.index(node)])})
            record.show(node.parent)
            record.updated_at = now()

    @override
    async def _choose(self, turn_id: str, *, if_last: str | None) -> None:
        record = self._record
        node = record.find(turn_id)
        async with self.gate.idle(self.key):
            record.expect(if_last)
            while node.chosen is not None:
                node = node.chosen
            record.show(node)
            record.updated_at = now()

    @override
    async def _delete_turn(self, turn_id: str, *, if_last: str | None) -> None:
        record = self._record
        node = record.find(turn_id)
        async with self.gate.idle(self.key):
            record.expect(if_last)
            record.remove({id(node)})
            record.updated_at = now()

    @override
    async def _fork(self, session_id: str, turn_id: str) -> None:
        record = self._record
        line = record.line()
        turns = [record.seen(node) for node in line[: line.index(record.shown(turn_id)) + 1]]
        if turns[-1].status is TurnStatus.RUNNING:
            raise SessionBusy
        await self._sibling(session_id).restore(turns, title=record.title, created_at=now())

    @override
    def _sibling(self, session_id: str) -> SessionHistory:
        return self._store.history(self.user_id, session_id)

    @override
    async def _document(self, name: str) -> str | None:
        record = self._store.records.get(self._key)
        return None if record is None else record.documents.get(name)

    @override
    async def _set_document(self, name: str, text: str | None) -> None:
        if text is None:
            self._record.documents.pop(name, None)
        else:
            self._record.documents[name] = text

    @override
    async def restore(self, turns: Sequence[Turn], *, title: str, created_at: datetime) -> None:
        if self._key in self._store.records:
            raise SessionExists
        if len({turn.turn_id for turn in turns}) < len(turns):
            raise InvalidId("Two of these turns have the same turn_id.")
        updated = max([created_at, *(turn.ended_at or turn.started_at for turn in turns[-1:])])
        record, before = _Record(title, created_at, updated), None
        for turn in turns:
            before = _Node(_ended(turn), before)
            record.nodes.append(before)
        record.show(before)
        self._store.records[self._key] = record

    @override
    async def _ask_stop(self) -> bool:
        return self._record is None

    @override
    async def delete(self) -> None:
        _ = self._record
        async with self.gate.idle(self.key):
            del self._store.records[self._key]


class _OpenMemoryTurn(OpenTurn):
    """`fallback` is the end of the line that is shown again if this turn ends as nothing that is."""

    def __init__(
        self,
        store: MemoryStore,
        history: MemoryHistory,
        attempt: Attempt,
        fallback: _Node | None,
    ) -> None:
        self.gate, self.key, self.turn_id = history.gate, history.key, attempt.new.turn_id
        self._new, self._fallback = attempt.new, fallback
        self._journals, self._owner = store.journals, (history.user_id, history.session_id)
        self._record, self._book = store.records[self._owner], store.journals[self._owner]

    @override
    async def _journal(self, first: int, events: Sequence[bytes]) -> None:
        self._book.append(events)

    @override
    async def _end(self, reply: Reply) -> None:
        record, at = self._record, now()
        node = record.find(self.turn_id)
        turn = replace(node.turn, status=TurnStatus.INTERRUPTED, ended_at=at)
        try:
            details = cast(TurnDetails, codec.undump(json.loads(codec.dump(dict(reply.details)))))
            output = _copies(reply.output)
            turn = replace(turn, status=reply.status, output=output, usage=reply.usage, kind=reply.kind)
            turn = replace(turn, details=details, tokens=self._new.tokens + reply.tokens if turn.shown else 0)
        finally:
            node.turn, record.updated_at = turn, at
            if not turn.shown and self._fallback is not node:
                record.show(self._fallback)
            self._book.close()
            self._journals.pop(self._owner, None)


def _window(record: _Record, attempt: Attempt) -> tuple[list[ShownTurn], bool]:
    """The window, and whether there are turns before it."""
    shown = [node.turn for node in record.line() if node.turn.shown]
    total = sum(turn.tokens for turn in shown)
    floor, so_far, window = window_floor(total + attempt.new.tokens, attempt.window_tokens), 0, list[ShownTurn]()
    for turn in shown:
        if so_far >= floor:
            window.append(ShownTurn(turn.turn_id, _copies((*turn.input, *turn.output))))
        so_far += turn.tokens
    return window, len(window) < len(shown)


def _below(record: _Record, top: _Node) -> list[_Node]:
    """A node, the other versions at its place, and all that follows them."""
    found = [node for node in record.nodes if node.parent is top.parent]
    for node in record.nodes:
        if node.parent is not None and any(node.parent is other for other in found):
            found.append(node)
    return found


def _texts(line: Iterable[_Node]) -> list[Text[str]]:
    return [Text(n.turn.turn_id, codec.text_of([*n.turn.input, *n.turn.output])) for n in line]


def _copies(messages: Iterable[BaseMessage]) -> list[BaseMessage]:
    return codec.load_messages(json.loads(codec.dump_messages(messages)))


def _copy(turn: Turn) -> Turn:
    return replace(turn, input=_copies(turn.input), output=_copies(turn.output))


def _ended(turn: Turn) -> Turn:
    status = TurnStatus.INTERRUPTED if turn.status is TurnStatus.RUNNING else turn.status
    kept = replace(turn, status=status, ended_at=turn.ended_at or turn.started_at, versions=())
    kept = replace(kept, input=_copies(turn.input), output=_copies(turn.output))
    return replace(kept, tokens=kept.tokens if kept.shown else 0)


def _entry(session_id: str, record: _Record) -> Session:
    line = record.line()
    return Session(
        session_id=session_id,
        title=record.title,
        chain=line[-1].turn.chain if line else "",
        created_at=record.created_at,
        updated_at=record.updated_at,
        turns=len(line),
    )


def _is_time(text: str) -> bool:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True

"""Histories in the memory of this process: for tests and for trying things out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import replace
from datetime import datetime
from typing import cast

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
    Turn,
    TurnDetails,
    TurnStatus,
    TurnTree,
    now,
    title_of,
)
from histories.cursors import cursor_of, parse_before, parse_cursor, to_micros
from histories.journal import Journal
from histories.memory_tree import Node, SessionTree, below, copies, copy, kept_before, texts, window_of
from histories.search import hits

_Key = tuple[str, str]


class MemoryStore(HistoryStore):
    """Histories that end with the process. Messages are kept as copies, as any other store would."""

    def __init__(self) -> None:
        self.records: dict[_Key, SessionTree] = {}
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
            ((to_micros(record.updated_at), session_id), record)
            for (user, session_id), record in list(self.records.items())
            if user == user_id
        ]
        if cursor is not None:
            place = parse_cursor(cursor)
            found = [(key, record) for key, record in found if key < place]
        found.sort(key=lambda item: item[0], reverse=True)
        page = list[tuple[tuple[int, str], Session]]()
        for key, record in found:
            session = _entry(key[1], record)
            if query and query.strip():
                where = hits(query, record.title, texts(record.line()))
                if where is None:
                    continue
                session = replace(session, hits=where)
            page.append((key, session))
        following = cursor_of(*page[limit - 1][0]) if len(page) > limit else None
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
        return [Recalled(session, copy(turn), score) for score, session, turn in found[:limit]]

    @override
    async def bytes_kept(self, user_id: str, session_id: str | None = None) -> int:
        records = [
            record for (user, of), record in self.records.items() if user == user_id and session_id in (None, of)
        ]
        turns = [node.turn for record in records for node in record.nodes]
        return sum(len(codec.dump_messages([*turn.input, *turn.output])) for turn in turns)

    @override
    async def notes(self, user_id: str) -> list[Note]:
        return list(self._notes.get(user_id, ()))

    @override
    async def set_notes(self, user_id: str, notes: Sequence[Note], *, if_notes: Sequence[Note] | None = None) -> None:
        if if_notes is not None and list(if_notes) != self._notes.get(user_id, []):
            raise HistoryMoved
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
    def _record(self) -> SessionTree:
        record = self._store.records.get(self._key)
        if record is None:
            raise SessionNotFound
        return record

    @override
    async def _begin(self, attempt: Attempt) -> OpenTurn | Turn:
        new, at = attempt.new, now()
        kept = copies(new.input)
        record = self._store.records.get(self._key) or SessionTree(title_of(new.input), at, at)
        earlier = next((n for n in record.nodes if new.given and n.turn.turn_id == new.turn_id), None)
        if earlier is not None and earlier.turn.status is TurnStatus.COMPLETE:
            return record.seen(earlier)
        record.expect(attempt.if_last)
        other = record.shown(new.version_of) if new.version_of is not None else None
        before = record.head if other is None else other.parent
        if earlier is not None:
            before = kept_before(before, {id(earlier)})
            record.remove({id(earlier)})
        line = record.head
        record.updated_at = at
        turn = Turn(turn_id=new.turn_id, status=TurnStatus.RUNNING, chain=new.chain, started_at=at, input=kept)
        node = Node(turn, before)
        record.nodes.append(node)
        record.show(node)
        self._store.records[self._key] = record
        self._store.journals[self._key] = Journal()
        fallback = line if other is not None else node
        opened = _OpenMemoryTurn(self._store, self, attempt, at, fallback)
        if attempt.window_tokens:
            opened.window, opened.has_older = window_of(record, attempt)
        return opened

    @override
    def events(self, turn_id: str, *, after: int = -1) -> AsyncIterator[Sequence[Event]]:
        journal = self._store.journals.get(self._key) if self.gate.runs(self.key, turn_id) else None
        if journal is None:
            journal = Journal()
            journal.close()
        return journal.read(after)

    @override
    async def _attend(self, turn_id: str) -> None:
        return  # there is no other process

    @override
    async def _is_attended(self, attempt: Attempt) -> bool:
        return False

    @override
    async def info(self) -> Session:
        running = self.gate.running.get(self.key)
        return replace(_entry(self.session_id, self._record), running=None if running is None else running.new.turn_id)

    @override
    async def turns(self, *, limit: int = 50, before: str | None = None) -> Page[Turn]:
        record = self._store.records.get(self._key)
        line = record.line() if record is not None else []
        start = len(line) if before is None else min(parse_before(before), len(line))
        found, size = list[Turn](), 0
        while start and record is not None and len(found) < limit and size < PAGE_BYTES:
            start -= 1
            found.append(record.seen(line[start]))
            size += sum(len(codec.dump_messages(part)) for part in (found[-1].input, found[-1].output))
        return Page(found[::-1], str(start) if start else None)

    @override
    async def turn(self, turn_id: str, *, shown: bool = False) -> Turn:
        record = self._record
        return record.seen(record.shown(turn_id) if shown else record.find(turn_id))

    @override
    async def tree(self) -> TurnTree:
        record = self._record
        after = ["" if node.parent is None else node.parent.turn.turn_id for node in record.nodes]
        last = "" if record.head is None else record.head.turn.turn_id
        return TurnTree([record.seen(node) for node in record.nodes], after, last)

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
                record.remove({id(gone) for gone in below(record, line[line.index(node)])})
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
    async def _restore(self, tree: TurnTree, *, title: str, created_at: datetime) -> None:
        if self._key in self._store.records:
            raise SessionExists
        record, nodes = SessionTree(title, created_at, tree.updated_at(created_at)), dict[str, Node]()
        for turn, after in zip(tree.turns, tree.after, strict=True):
            nodes[turn.turn_id] = Node(replace(copy(turn), versions=()), nodes.get(after))
            record.nodes.append(nodes[turn.turn_id])
            record.show(record.nodes[-1])
        record.show(nodes.get(tree.last))
        self._store.records[self._key] = record

    @override
    async def _ask_stop(self) -> bool:
        return self._record is None

    @override
    async def delete(self, *, if_updated_at: datetime | None = None) -> None:
        record = self._record
        async with self.gate.idle(self.key):
            if if_updated_at not in (None, record.updated_at):
                raise HistoryMoved
            del self._store.records[self._key]


class _OpenMemoryTurn(OpenTurn):
    """`fallback` is the end of the line that is shown again if this turn ends as nothing that is."""

    def __init__(
        self,
        store: MemoryStore,
        history: MemoryHistory,
        attempt: Attempt,
        started_at: datetime,
        fallback: Node | None,
    ) -> None:
        self.gate, self.key, self.turn_id = history.gate, history.key, attempt.new.turn_id
        self._new, self._fallback, self.started_at = attempt.new, fallback, started_at
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
            details = cast(TurnDetails, codec.load(codec.dump(dict(reply.details))))
            output = copies(reply.output)
            turn = replace(turn, status=reply.status, output=output, usage=reply.usage, kind=reply.kind)
            turn = replace(turn, details=details, tokens=self._new.tokens + reply.tokens if turn.shown else 0)
        finally:
            node.turn, record.updated_at = turn, at
            if not turn.shown and self._fallback is not node:
                record.show(self._fallback)
            self._book.close()
            self._journals.pop(self._owner, None)


def _entry(session_id: str, record: SessionTree) -> Session:
    line = record.line()
    return Session(
        session_id=session_id,
        title=record.title,
        chain=line[-1].turn.chain if line else "",
        created_at=record.created_at,
        updated_at=record.updated_at,
        turns=len(line),
    )

"""Histories in the memory of this process: for tests and for trying things out."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from langchain_core.messages import BaseMessage
from typing_extensions import override

from histories import codec
from histories.base import (
    HistoryStore,
    InvalidCursor,
    NewTurn,
    OpenTurn,
    Page,
    Reply,
    Session,
    SessionBusy,
    SessionExists,
    SessionHistory,
    SessionNotFound,
    Turn,
    TurnLost,
    TurnNotFound,
    TurnStatus,
    now,
    title_of,
)
from histories.waiting import WaitQueue
from histories.window import window_floor

_Key = tuple[str, str]


@dataclass
class _Record:
    title: str
    created_at: datetime
    updated_at: datetime
    chain: str = ""
    turns: list[Turn] = field(default_factory=list)


class MemoryStore(HistoryStore):
    """Histories that end with the process. Messages are kept as copies, as any other store would."""

    def __init__(self) -> None:
        self.records: dict[_Key, _Record] = {}
        self.running: dict[_Key, tuple[str, Callable[[], None] | None]] = {}
        self.wait_queue = WaitQueue()

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
            if not tilde:
                raise InvalidCursor("Send `cursor` as the `next` of an earlier page.")
            found = [(key, record) for key, record in found if key < (time, name)]
        if query and query.strip():
            found = [(key, record) for key, record in found if _says(record, query.casefold())]
        found.sort(key=lambda item: item[0], reverse=True)
        page = found[:limit]
        following = f"{page[-1][0][0]}~{page[-1][0][1]}" if len(found) > limit else None
        return Page([_entry(key[1], record) for key, record in page], following)

    @override
    async def users(self) -> AsyncIterator[str]:
        for user in {user for user, _ in self.records}:
            yield user

    @override
    async def forget(self, user_id: str) -> None:
        busy: SessionBusy | None = None
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

    @property
    def _queue(self) -> str:
        return f"{len(self.user_id)}:{self.user_id}{self.session_id}"

    def _record(self) -> _Record:
        record = self._store.records.get(self._key)
        if record is None:
            raise SessionNotFound
        return record

    @override
    async def begin(
        self,
        new: NewTurn,
        *,
        wait_s: float = 60.0,
        window_tokens: int = 0,
        on_stop: Callable[[], None] | None = None,
    ) -> OpenTurn | Turn:
        store, running = self._store, self._store.running.get(self._key)
        if new.given and running is not None and running[0] == new.turn_id:
            raise SessionBusy("The turn of this turn_id is still running: wait for it, or stop it.")
        try:
            await store.wait_queue.enter(self._queue, wait_s)
        except TimeoutError:
            raise SessionBusy("Another turn of this session is running: try again when it has ended.") from None
        try:
            begun = self._begin(new, window_tokens)
        except BaseException:
            store.wait_queue.leave(self._queue)
            raise
        if isinstance(begun, Turn):
            store.wait_queue.leave(self._queue)
        else:
            store.running[self._key] = (new.turn_id, on_stop)
        return begun

    def _begin(self, new: NewTurn, window_tokens: int) -> OpenTurn | Turn:
        at, kept = now(), _copies(new.input)
        record = self._store.records.get(self._key) or _Record(title_of(new.input), at, at)
        earlier = next((t for t in record.turns if new.given and t.turn_id == new.turn_id), None)
        if earlier is not None and earlier.status is TurnStatus.COMPLETE:
            return _copy(earlier)
        turns = [t for t in record.turns if t is not earlier]
        past = _window(turns, new.tokens, window_tokens) if window_tokens else []
        running = TurnStatus.RUNNING
        turn = Turn(turn_id=new.turn_id, status=running, chain=new.chain, started_at=at, input=kept)
        record.turns, record.chain, record.updated_at = [*turns, turn], new.chain, at
        self._store.records[self._key] = record
        return _OpenMemoryTurn(self, new, past)

    def ended(self, new: NewTurn, reply: Reply) -> None:
        """Puts the end of the running turn on the record."""
        record, at = self._record(), now()
        turn = replace(record.turns[-1], status=TurnStatus.INTERRUPTED, ended_at=at)
        try:
            output = _copies(reply.output)
            turn = replace(
                turn, status=reply.status, output=output, usage=reply.usage, kind=reply.kind, details=reply.details
            )
            turn = replace(turn, tokens=new.tokens + reply.tokens if turn.shown else 0)
        finally:
            record.turns[-1], record.updated_at = turn, at
            self._store.running.pop(self._key, None)
            self._store.wait_queue.leave(self._queue)

    @override
    async def info(self) -> Session:
        return _entry(self.session_id, self._record())

    @override
    async def turns(self, *, limit: int = 50, before: str | None = None) -> Page[Turn]:
        record = self._store.records.get(self._key)
        turns = record.turns if record is not None else []
        if before is not None and not (before.isascii() and before.isdigit() and len(before) < 16):
            raise InvalidCursor("Send `before` as the `next` of an earlier page.")
        end = len(turns) if before is None else min(int(before), len(turns))
        start = max(0, end - limit)
        return Page([_copy(turn) for turn in turns[start:end]], str(start) if start else None)

    @override
    async def rename(self, title: str) -> None:
        record = self._record()
        record.title, record.updated_at = title, now()

    def _place_of(self, turn_id: str) -> int:
        for place, turn in enumerate(self._record().turns):
            if turn.turn_id == turn_id:
                return place
        raise TurnNotFound

    def _refuse_if_busy(self) -> None:
        if self._queue in self._store.wait_queue:
            raise SessionBusy

    @override
    async def rewind(self, turn_id: str) -> None:
        place = self._place_of(turn_id)
        self._refuse_if_busy()
        record = self._record()
        del record.turns[place:]
        record.chain, record.updated_at = record.turns[-1].chain if record.turns else "", now()

    @override
    async def fork(self, session_id: str, turn_id: str) -> None:
        turns = self._record().turns[: self._place_of(turn_id) + 1]
        if turns[-1].status is TurnStatus.RUNNING:
            raise SessionBusy
        target = self._store.history(self.user_id, session_id)
        await target.restore(turns, title=self._record().title, created_at=now())

    @override
    async def restore(self, turns: Sequence[Turn], *, title: str, created_at: datetime) -> None:
        if self._key in self._store.records:
            raise SessionExists
        updated = max([created_at, *(turn.ended_at or turn.started_at for turn in turns[-1:])])
        chain = turns[-1].chain if turns else ""
        kept = [_ended(turn) for turn in turns]
        self._store.records[self._key] = _Record(title, created_at, updated, chain, kept)

    @override
    async def stop(self) -> bool:
        self._record()
        running = self._store.running.get(self._key)
        if running is not None and running[1] is not None:
            running[1]()
        return running is not None

    @override
    async def delete(self) -> None:
        self._record()
        self._refuse_if_busy()
        del self._store.records[self._key]


class _OpenMemoryTurn(OpenTurn):
    def __init__(self, history: MemoryHistory, new: NewTurn, past: list[BaseMessage]) -> None:
        self._history, self._new = history, new
        self.turn_id, self.past = new.turn_id, past
        self._ended = False

    @override
    async def end(self, reply: Reply) -> None:
        if self._ended:
            raise TurnLost("This turn has ended already.")
        self._ended = True
        self._history.ended(self._new, reply)


def _window(turns: Sequence[Turn], new_tokens: int, limit: int) -> list[BaseMessage]:
    shown = [turn for turn in turns if turn.shown]
    total = sum(turn.tokens for turn in shown)
    floor, so_far, past = window_floor(total + new_tokens, limit), 0, list[BaseMessage]()
    for turn in shown:
        if so_far >= floor:
            past += _copies((*turn.input, *turn.output))
        so_far += turn.tokens
    return past


def _copies(messages: Iterable[BaseMessage]) -> list[BaseMessage]:
    return codec.load_messages(json.loads(codec.dump_messages(messages)))


def _copy(turn: Turn) -> Turn:
    return replace(turn, input=_copies(turn.input), output=_copies(turn.output))


def _ended(turn: Turn) -> Turn:
    status = TurnStatus.INTERRUPTED if turn.status is TurnStatus.RUNNING else turn.status
    kept = replace(_copy(turn), status=status, ended_at=turn.ended_at or turn.started_at)
    return replace(kept, tokens=kept.tokens if kept.shown else 0)


def _entry(session_id: str, record: _Record) -> Session:
    return Session(
        session_id=session_id,
        title=record.title,
        chain=record.chain,
        created_at=record.created_at,
        updated_at=record.updated_at,
        turns=len(record.turns),
    )


def _says(record: _Record, needle: str) -> bool:
    texts = (codec.text_of([*turn.input, *turn.output]) for turn in record.turns)
    return needle in record.title.casefold() or any(needle in text.casefold() for text in texts)

"""The history of one session, in Redis."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Final
from uuid import uuid4

from typing_extensions import override

from histories import codec
from histories.base import (
    ATTENDED_S,
    PAGE_BYTES,
    Attempt,
    Event,
    Feedback,
    Gate,
    OpenTurn,
    Page,
    Session,
    SessionBusy,
    SessionExists,
    SessionHistory,
    SessionNotFound,
    Turn,
    TurnNotFound,
    TurnStatus,
    TurnTree,
    now,
)
from histories.cursors import parse_before, to_micros
from histories.redis.peer import BEAT_S, LEASE_MS, Peer
from histories.redis.records import Keys, fields_of, read_entry, read_turn, tree_fields
from histories.redis.scripts import (
    ADOPT,
    ALL_TURNS,
    CHOOSE,
    DELETE,
    DELETE_TURN,
    DOCUMENT,
    EVENTS,
    FEEDBACK,
    INFO,
    RENAME,
    REWIND,
    RUNNING,
    STAGE,
    STOP,
    TURN,
    TURNS,
    Script,
)
from histories.redis.session import SessionRecord
from histories.redis.turn import Beginning

_BATCH: Final = 100
_EVENTS: Final = (500, 1024 * 1024)
"""How many events a reader is given at once, and of about how many bytes."""
_STAGE_BYTES: Final = 250_000
_STAGE_MS: Final = 600_000
NEWEST: Final = 10**15
"""Above the number of any turn."""

RawTurn = tuple[int, bool, Sequence[str]]
"""A turn's number, whether it runs, and what `read_turn` reads."""


class RedisHistory(SessionHistory):
    """The history of one session. `peers` gives what the running event loop has to do with Redis."""

    def __init__(
        self,
        peers: Callable[[], Peer],
        gate: Gate,
        namespace: str,
        user_id: str,
        session_id: str,
        *,
        save_limit_s: float,
    ) -> None:
        self.user_id, self.session_id, self.gate = user_id, session_id, gate
        self._peers, self._namespace, self._save_limit_s = peers, namespace, save_limit_s
        self._keys = Keys(namespace, user_id, session_id)
        self.key = self._keys.session

    @property
    def _record(self) -> SessionRecord:
        return SessionRecord(self._peers(), self._keys, self.session_id)

    # Turns.

    @override
    async def _begin(self, attempt: Attempt) -> OpenTurn | Turn:
        record = self._record
        beginning = Beginning(record, attempt, self.gate, self.key, self._save_limit_s)
        record.peer.check()
        return await beginning.begin()

    @override
    async def _ask_stop(self) -> bool:
        keys = [self._keys.session, self._keys.lease]
        return bool((await self._record.ask(STOP, keys=keys))[0] == "asked")

    @override
    async def events(self, turn_id: str, *, after: int = -1) -> AsyncIterator[Sequence[Event]]:
        record, keys = self._record, [self._keys.session, self._keys.lease]
        running = await record.ask(RUNNING, json.dumps(turn_id), keys=keys)
        if running[0] == "over":
            return
        token = running[1]
        keys.append(self._keys.journal(token))
        async with record.peer.listening(token) as news:
            while True:
                news.clear()
                state, *flat = await record.ask(EVENTS, token, after, *_EVENTS, keys=keys)
                if flat:
                    some = zip(map(int, flat[::2]), flat[1::2], strict=True)
                    events = [Event(number, data.encode("utf-8", "surrogatepass")) for number, data in some]
                    after = events[-1].seq
                    yield events
                elif state == "over":
                    return
                else:
                    with suppress(TimeoutError):  # a message may be lost
                        async with asyncio.timeout(BEAT_S):
                            await news.wait()

    @override
    async def _attend(self, turn_id: str) -> None:
        record = self._record
        running = await record.ask(RUNNING, json.dumps(turn_id), keys=[self._keys.session, self._keys.lease])
        if running[0] == "runs":
            await record.peer.link.command("SET", self._keys.heard(running[1]), 1, "PX", round(ATTENDED_S * 1000))

    @override
    async def _is_attended(self, attempt: Attempt) -> bool:
        return bool(await self._peers().link.command("EXISTS", self._keys.heard(attempt.token)))

    # The record.

    @override
    async def info(self) -> Session:
        running, *fields = await self._peers().link.run(INFO, [self._keys.session, self._keys.lease])
        if fields[0] is None:
            raise SessionNotFound
        return replace(read_entry(self.session_id, fields), running=json.loads(running) if running else None)

    @override
    async def turns(self, *, limit: int = 50, before: str | None = None) -> Page[Turn]:
        older, parts = await self.raw_turns(limit, NEWEST if before is None else parse_before(before))
        return Page([read_turn(each, running=running) for _, running, each in parts], str(older) if older else None)

    async def raw_turns(self, limit: int, before: int, *, size: int = PAGE_BYTES) -> tuple[int, list[RawTurn]]:
        """A page of turns as Redis keeps them, oldest first; and before which number there are older ones (0: none)."""
        _, running, older, *flat = await self._record.read(TURNS, limit, before, size)
        parts: list[RawTurn] = [(flat[n], flat[n] == running, flat[n + 1 : n + 5]) for n in range(0, len(flat), 5)]
        return int(older), parts[::-1]

    async def shape(self) -> str:
        """What changes when turns of the shown line are taken away, or are not shown any more."""
        return str(await self._peers().link.command("HGET", self._keys.session, "shape"))

    @override
    async def turn(self, turn_id: str, *, shown: bool = False) -> Turn:
        _, running, *parts = await self._record.read(TURN, json.dumps(turn_id), int(shown))
        return read_turn(parts, running=bool(int(running)))

    @override
    async def tree(self) -> TurnTree:
        running, last, upto, top, found = -1, 0, 0, 1, dict[int, tuple[Turn, int]]()
        # What follows a turn that was read as running began later: the two would not go together.
        while upto < top and running not in found:
            _, running, last, upto, top, *flat = await self._record.read(ALL_TURNS, upto, _BATCH)
            for at in range(0, len(flat), 6):
                number, *parts, parent = flat[at : at + 6]
                found[number] = read_turn(parts, running=number == running), parent
        return _tree_of(found, last)

    # Changes of the record.

    @override
    async def rename(self, title: str) -> None:
        keys = [self._keys.session, self._keys.sessions]
        await self._record.ask(RENAME, json.dumps(title), self.session_id, to_micros(now()), keys=keys)

    @override
    async def feedback(self, turn_id: str, feedback: Feedback) -> None:
        await self._record.change(FEEDBACK, json.dumps(turn_id), codec.dump(dict(feedback)))

    async def _change(self, script: Script, turn_id: str, if_last: str | None, *more: object) -> list[object]:
        record = self._record
        last = "" if if_last is None else json.dumps(if_last)
        args = (json.dumps(turn_id), last, self.session_id, to_micros(now()), LEASE_MS, record.peer.link.grace_ms())
        async with self.gate.idle(self.key):
            return await record.change(script, *args, *more)

    @override
    async def _rewind(self, turn_id: str, *, keep: bool, if_last: str | None) -> None:
        await self._change(REWIND, turn_id, if_last, int(keep))
        await self._record.index()

    @override
    async def _choose(self, turn_id: str, *, if_last: str | None) -> None:
        answer: list[object] = ["further", 0]
        while answer[0] == "further":
            answer = await self._change(CHOOSE, turn_id, if_last, answer[1])
        await self._record.index()

    @override
    async def _delete_turn(self, turn_id: str, *, if_last: str | None) -> None:
        await self._change(DELETE_TURN, turn_id, if_last)
        await self._record.index()

    @override
    async def delete(self, *, if_updated_at: datetime | None = None) -> None:
        keys = [*self._keys.all[:4], self._keys.sessions]
        since = "" if if_updated_at is None else to_micros(if_updated_at)
        async with self.gate.idle(self.key):  # a lease may have run out, as of a process that stood still
            await self._record.ask(DELETE, self.session_id, since, keys=keys)

    @override
    async def _fork(self, session_id: str, turn_id: str) -> None:
        title = (await self.info()).title
        while True:  # what is read batch by batch is a line only if it was the same one all the time
            shape = await self.shape()
            turns = await self._line_to(turn_id)
            if await self.shape() == shape:
                break
        if turns[-1].status is TurnStatus.RUNNING:
            raise SessionBusy
        await self._sibling(session_id).restore(turns, title=title, created_at=now())

    async def _line_to(self, turn_id: str) -> list[Turn]:
        """The shown line up to and with that turn. Raises `TurnNotFound` if it is not on it."""
        number = await self._peers().link.command("HGET", self._keys.session, f"i{json.dumps(turn_id)}")
        if number is None:
            raise TurnNotFound
        turns, before = list[Turn](), int(number) + 1
        while before:
            before, parts = await self.raw_turns(_BATCH, before)
            turns = [*(read_turn(each, running=running) for _, running, each in parts), *turns]
            if not turns or turns[-1].turn_id != turn_id:  # it is not on the shown line
                raise TurnNotFound
        return turns

    @override
    def _sibling(self, session_id: str) -> RedisHistory:
        return RedisHistory(
            self._peers, self.gate, self._namespace, self.user_id, session_id, save_limit_s=self._save_limit_s
        )

    @override
    async def _document(self, name: str) -> str | None:
        found: str | None = await self._peers().link.command("HGET", self._keys.session, f"doc:{name}")
        return found

    @override
    async def _set_document(self, name: str, text: str | None) -> None:
        await self._record.ask(DOCUMENT, f"doc:{name}", text or "", keys=[self._keys.session])

    @override
    async def _restore(self, tree: TurnTree, *, title: str, created_at: datetime) -> None:
        peer, token = self._peers(), uuid4().hex
        peer.check()
        if await peer.link.command("EXISTS", self._keys.session):
            raise SessionExists
        updated, new = to_micros(tree.updated_at(created_at)), self._keys.imported(token)
        made: list[object] = ["title", json.dumps(title), "made", token, "created", to_micros(created_at)]
        parts = _parts([*made, "updated", updated], tree)
        while (part := await asyncio.to_thread(next, parts, None)) is not None:  # of thousands of messages: seconds
            fields, window = part
            await peer.link.run(STAGE, new, _STAGE_MS, len(fields), *fields, *window)
        keys = [self._keys.session, self._keys.window, self._keys.sessions, *new]
        await self._record.ask(ADOPT, token, self.session_id, updated, keys=keys)


def _tree_of(found: Mapping[int, tuple[Turn, int]], last: int) -> TurnTree:
    """Turns by their numbers, each with that of the turn before it: sessions of earlier versions have gaps there."""

    def named(number: int) -> str:
        while number and number not in found:
            number -= 1
        return found[number][0].turn_id if number else ""

    return TurnTree([turn for turn, _ in found.values()], [named(p) for _, p in found.values()], named(last))


def _parts(fields: list[object], tree: TurnTree) -> Iterator[tuple[list[object], list[object]]]:
    """A session's fields, with these, and its window, in parts that a server takes without holding others up.

    The window of a tree is left to be made, as one that was lost is.
    """
    window, size, tokens, line = list[object](), 0, 0, tree.line
    fields += ["chain", json.dumps(line[-1].chain if line else ""), "turns", len(line)]
    fields += ["tokens", sum(turn.tokens for turn in line), "shown", sum(turn.shown for turn in line)]
    fields += tree_fields(tree)
    is_line = len(line) == len(tree.turns)
    for number, turn in enumerate(tree.turns, 1):
        written = fields_of(number, turn)
        size += sum(len(str(part)) for part in written)
        fields += written
        if turn.shown and is_line:
            window += [tokens, f"{number:012d}"]
            tokens += turn.tokens
        if size > _STAGE_BYTES:
            yield fields, window
            fields, window, size = [], [], 0
    yield fields, window

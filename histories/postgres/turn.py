"""A turn in PostgreSQL: who may begin it, and what is written when.

A session is held by a server, and a server lives while its heart beats. Each beginning of a turn brings its own
`fence`, and its end is written only while the session still has it: so a server that was paused, or cut off, finds
its turn lost if another one took the session over meanwhile, and never writes into that one's past.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING
from uuid import uuid4

from typing_extensions import override

from histories import codec
from histories.base import (
    NewTurn,
    OpenTurn,
    Reply,
    SessionBusy,
    ShownTurn,
    StoreFull,
    StoreUnavailable,
    Turn,
    TurnLost,
    TurnStatus,
    title_of,
)
from histories.blocking import undisturbed
from histories.postgres import sql
from histories.postgres.driver import Params, Row, Unanswered
from histories.postgres.link import Link
from histories.postgres.rows import messages_from, pack, said, searchable, turn_from, usage_to_json

if TYPE_CHECKING:
    from histories.postgres.store import PostgresStore

_POLL_S = (0.05, 1.0)
"""How soon, and later how often, the first in line looks for itself. Mostly it is called before."""
_RETRY_S = 0.2


class PostgresTurn(OpenTurn):
    """A turn that runs, or is about to."""

    def __init__(
        self, store: PostgresStore, key: tuple[str, str], new: NewTurn, on_stop: Callable[[], None] | None
    ) -> None:
        self.turn_id, self.window = new.turn_id, []
        self._store, self._key, self._new, self._on_stop = store, key, new, on_stop
        self._link: Link = store.link()
        self._queue = store.queue_of(key)
        self._fence = uuid4().hex
        self._over = False
        self._where = {"user": pack(key[0]), "session": pack(key[1]), "fence": self._fence}

    async def begin(self, *, wait_s: float, window_tokens: int) -> OpenTurn | Turn:
        """Waits for the session, then begins the turn: first in line in this process, then across processes."""
        deadline = asyncio.get_running_loop().time() + wait_s
        wait_queue = self._store.wait_queue
        try:
            try:
                await wait_queue.enter(self._queue, 0)
            except TimeoutError:
                recorded = await self._on_record() if self._new.given else None
                if recorded is not None:
                    return recorded
                await wait_queue.enter(self._queue, wait_s)
        except TimeoutError:
            raise _busy() from None
        try:
            begun = await self._first_in_line(self._begin_params(wait_s, window_tokens), deadline)
        except BaseException:
            wait_queue.leave(self._queue)
            raise
        if isinstance(begun, Turn):
            wait_queue.leave(self._queue)
        return begun

    async def _on_record(self) -> Turn | None:
        """The turn of this turn_id, if it is complete; `SessionBusy` if it runs."""
        running = self._store.running.get(self._key)
        if running is not None and running[0] == self.turn_id:
            raise _still_running()
        rows = await self._link.fetch(sql.TURN, {**self._where, "turn": pack(self.turn_id)})
        found = turn_from(rows[0]) if rows else None
        if found is not None and found.status is TurnStatus.RUNNING:
            raise _still_running()
        return found if found is not None and found.status is TurnStatus.COMPLETE else None

    def _begin_params(self, wait_s: float, window_tokens: int) -> Params:
        new, title = self._new, title_of(self._new.input)
        return {
            **self._where,
            "server": self._link.server_id,
            "turn": pack(new.turn_id),
            "given": new.given,
            "patient": wait_s > 0,
            "title": pack(title),
            "title_said": searchable(title),
            "chain": pack(new.chain),
            "input": codec.dump_messages(new.input),
            "said": said(new.input),
            "tokens": new.tokens,
            "half": max(1, window_tokens // 2) if window_tokens else 0,
        }

    async def _first_in_line(self, params: Params, deadline: float) -> OpenTurn | Turn:
        loop, called, pause, waits = asyncio.get_running_loop(), asyncio.Event(), _POLL_S[0], False
        self._link.calls[f"free:{self._fence}"] = called.set
        try:
            while True:
                called.clear()
                await self._link.alive()
                rows = await self._try_begin(params)
                word, taken, lease_s = rows[0][:3]
                if word == "running":
                    raise _still_running()
                if word == "complete":
                    recorded = await self._on_record()
                    if recorded is not None:
                        return recorded
                elif taken:
                    waits = False
                    return await self._begun(rows)
                elif word == "wait":
                    waits = bool(params["patient"])
                    left = deadline - loop.time()
                    if left <= 0:
                        raise _busy()
                    # A dead server's lease runs out without a call.
                    await _wait(called, min(pause, left, max(0.01, lease_s + 0.01)))
                    pause = _POLL_S[1]
        finally:
            del self._link.calls[f"free:{self._fence}"]
            if waits:
                await self._leave_line()

    async def _try_begin(self, params: Params) -> list[Row]:
        rows, cancelled = await undisturbed(self._send_begin(params))
        if cancelled:
            if rows[0][1]:
                await self._give_up()
            raise asyncio.CancelledError
        return rows

    async def _send_begin(self, params: Params) -> list[Row]:
        """Once more if the answer is lost: a turn that has begun is then begun anew, in its own place."""
        with suppress(Unanswered):
            return await self._link.fetch(sql.BEGIN, params)
        try:
            return await self._link.fetch(sql.BEGIN, params)
        except StoreUnavailable:
            self._give_up_later()
            raise

    async def _begun(self, rows: list[Row]) -> OpenTurn:
        try:
            stored = [text for row in rows if row[3] is not None for text in row[3:5]]
            self.window = [ShownTurn("", [message for text in stored for message in messages_from(text)])]
        except BaseException:
            await self._give_up()
            raise
        self._store.running[self._key] = (self.turn_id, self._on_stop)
        if self._on_stop is not None:
            self._link.calls[f"stop:{self._fence}"] = self._on_stop
        return self

    async def _leave_line(self) -> None:
        try:
            await undisturbed(self._link.fetch(sql.LEAVE_LINE, self._where))
        except StoreUnavailable:
            self._link.later(sql.LEAVE_LINE, self._where)

    @override
    async def end(self, reply: Reply) -> None:
        if self._over:
            raise TurnLost("This turn has ended already.")
        self._over = True
        try:
            _, cancelled = await undisturbed(self._end(reply))
        finally:
            self._link.calls.pop(f"stop:{self._fence}", None)
            self._store.running.pop(self._key, None)
            self._store.wait_queue.leave(self._queue)
        if cancelled:
            raise asyncio.CancelledError

    async def _end(self, reply: Reply) -> None:
        try:
            params = self._end_params(reply)
        except BaseException:
            await self._give_up()
            raise
        try:
            recorded = await self._save(params)
        except StoreUnavailable:
            self._give_up_later()
            raise
        if not recorded:
            raise TurnLost(
                "Another server took this session over while its turn ran: the reply was not recorded, send it again."
            )

    async def _save(self, params: Params) -> bool:
        """Writes the end; tries again for a while if PostgreSQL is gone, because the reply is worth it."""
        loop, link = asyncio.get_running_loop(), self._store.link()
        deadline = loop.time() + self._store.save_limit_s
        while True:
            try:
                return bool((await link.fetch(sql.END, params))[0][0])
            except StoreFull:
                raise
            except StoreUnavailable:
                if loop.time() >= deadline:
                    raise
            await asyncio.sleep(_RETRY_S)

    def _end_params(self, reply: Reply) -> Params:
        shown = reply.status is TurnStatus.COMPLETE or (reply.status is TurnStatus.INTERRUPTED and bool(reply.output))
        text = said(reply.output)
        return {
            **self._where,
            "next": uuid4().hex,
            "turn": pack(self.turn_id),
            "status": reply.status.value,
            "output": codec.dump_messages(reply.output),
            "usage": usage_to_json(reply.usage),
            "kind": pack(reply.kind),
            "tokens": self._new.tokens + reply.tokens if shown else 0,
            "said": f"\n{text}" if text else "",
        }

    async def _give_up(self) -> None:
        """Frees the session: the turn is on the record as interrupted."""
        try:
            await undisturbed(self._link.fetch(sql.END, self._end_params(_INTERRUPTED)))
        except StoreUnavailable:
            self._give_up_later()

    def _give_up_later(self) -> None:
        self._link.later(sql.END, self._end_params(_INTERRUPTED))


_INTERRUPTED = Reply(status=TurnStatus.INTERRUPTED)


async def _wait(called: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await called.wait()
    except TimeoutError:
        return


def _busy() -> SessionBusy:
    return SessionBusy("Another turn of this session is running: try again when it has ended.")


def _still_running() -> SessionBusy:
    return SessionBusy("The turn of this turn_id is still running: wait for it, or stop it.")

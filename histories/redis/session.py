"""A session's record, as its history and its turns reach it: scripts, and what has to be done before they can."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from histories.base import (
    HistoryError,
    HistoryMoved,
    SessionBusy,
    SessionExists,
    SessionNotFound,
    StoreFull,
    TurnLost,
    TurnNotFound,
    TurnRunning,
    now,
)
from histories.cursors import to_micros
from histories.journal import settled
from histories.redis.peer import LEASE_MS, Peer
from histories.redis.records import Keys, ended_record
from histories.redis.scripts import INDEX, SETTLE, Script

_BATCH: Final = 500
_REFUSALS: Final[dict[str, type[HistoryError]]] = {
    "absent": SessionNotFound,
    "missing": TurnNotFound,
    "moved": HistoryMoved,
    "busy": SessionBusy,
    "running": TurnRunning,
    "exists": SessionExists,
    "lost": TurnLost,
}


class SessionRecord:
    """One session, from one event loop."""

    def __init__(self, peer: Peer, keys: Keys, session_id: str) -> None:
        self.peer, self.keys, self.session_id = peer, keys, session_id

    async def ask(self, script: Script, *args: object, keys: Sequence[str] = ()) -> list[Any]:
        """What the script answers. A refusal is raised as the error that it stands for."""
        answer: list[Any] = await self.peer.link.run(script, keys or self.keys.all, *args)
        if answer[0] in _REFUSALS:
            raise _REFUSALS[answer[0]]
        return answer

    async def change(self, script: Script, *args: object) -> list[Any]:
        """The same for a script that can't do anything before the session is settled and indexed."""
        while True:
            answer = await self.ask(script, *args)
            if answer[0] == "settle":
                if not await self.settle(*answer[1:]):
                    raise SessionBusy
            elif answer[0] == "work":
                await self.index()
            else:
                return answer

    async def read(self, script: Script, *args: object) -> list[Any]:
        """The same for one that reads. Its arguments end with whether to settle a dead holder's turn, and for whom."""
        settles = 1
        while True:
            answer = await self.ask(script, *args, settles, LEASE_MS, self.peer.link.grace_ms())
            if answer[0] == "settle":
                settles = await self._settle_if_there_is_space(answer)
            elif answer[0] == "work":
                await self.index()
            else:
                return answer

    async def _settle_if_there_is_space(self, answer: Sequence[Any]) -> int:
        try:
            await self.settle(*answer[1:])
        except StoreFull:
            return 0
        return 1

    async def index(self) -> None:
        """Does what work is left in the session, slice by slice."""
        while (await self.ask(INDEX))[0] == "more":
            continue

    async def settle(self, token: str, number: int | str, journaled: int, added: int | str) -> bool:
        """Ends the turn of a dead holder as interrupted, with what its journal holds. False if it may live."""
        at, journal = now(), self.keys.journal(token)
        reply = settled(await self._journal(journal) if int(journaled) else [])
        tokens = int(added) + reply.tokens if reply.is_shown else 0
        answer = await self.peer.link.run(
            SETTLE,
            [*self.keys.all, journal],
            *(token, number, ended_record(reply, tokens, "-", at), tokens if reply.is_shown else ""),
            *(self.session_id, to_micros(at), self.peer.events_channel(token), LEASE_MS, self.peer.link.grace_ms()),
        )
        return bool(answer[0] == "done")

    async def _journal(self, key: str) -> list[bytes]:
        """All events in a journal."""
        events, start = list[bytes](), "-"
        while True:
            some = await self.peer.link.command("XRANGE", key, start, "+", "COUNT", _BATCH)
            events += [fields["e"].encode("utf-8", "surrogatepass") for _, fields in some]
            if len(some) < _BATCH:
                return events
            start = f"({some[-1][0]}"

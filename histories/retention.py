"""What is old goes: sessions that nobody has used for so many days are deleted, by the store's contract alone."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import Callable, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from histories.base import HistoryStore, Session, SessionBusy, SessionNotFound, now

log = logging.getLogger("recollect.retention")

PERIOD_S: Final = 3600.0
"""How often servers look. All of a data folder together look once in that time."""

Held = Callable[[str], bool]
"""Whether all of a user's sessions have to stay."""


@dataclass(frozen=True, slots=True)
class Rules:
    """After how many days without a turn a session goes: `days`, or those of the chain it was last led with."""

    days: int | None
    of_chains: Mapping[str, int]

    def __bool__(self) -> bool:
        return self.days is not None or bool(self.of_chains)

    @classmethod
    def parse(cls, items: list[str]) -> Rules:
        """From `90`, `chat=30`: one number for all, and others for chains."""
        pairs = [("", item) if "=" not in item else tuple(item.split("=", 1)) for item in items]
        chains = {name: int(days) for name, days in pairs if name}
        return cls(next((int(days) for name, days in pairs if not name), None), chains)

    def tell_of_others(self, served: Set[str]) -> None:
        """Warns of chains that are not served: of one that is mistyped, nothing goes when it should."""
        for name in sorted(self.of_chains.keys() - served):
            log.warning("RECOLLECT_RETENTION_DAYS: no chain %s is served here: is the name right?", name)

    def is_old(self, session: Session, at: datetime) -> bool:
        """Whether its time is over."""
        days = self.of_chains.get(session.chain, self.days)
        return days is not None and session.updated_at < at - timedelta(days=days)


@dataclass(slots=True)
class Gone:
    """What came of it, in sessions."""

    deleted: int = 0
    held: int = 0
    busy: int = 0
    tidied: int = 0
    """Turns that were rewound, replaced or deleted before, and now are gone from the disk."""


async def expire(
    store: HistoryStore, rules: Rules, held: Held, *, at: datetime | None = None, dry: bool = False
) -> Gone:
    """Deletes what is old at that time. `dry`: only counts it. One in which a turn runs stays for the next time.

    Raises `StoreUnavailable`; what is deleted by then stays deleted.
    """
    gone, at = Gone(), at or now()
    if not rules:
        return gone
    async for user in store.users():
        for session in [one async for one in store.all_sessions(user) if rules.is_old(one, at)]:
            if held(user):
                gone.held += 1
            elif dry:
                gone.deleted += 1
            else:
                await _delete(store, user, session.session_id, gone)
    return gone


async def _delete(store: HistoryStore, user: str, session_id: str, gone: Gone) -> None:
    try:
        await store.history(user, session_id).delete()
    except SessionBusy:
        gone.busy += 1
    except SessionNotFound:
        return
    else:
        gone.deleted += 1


async def keep_to(store: HistoryStore, rules: Rules, held: Held, folder: Path, *, told: Callable[[Gone], None]) -> None:
    """Deletes what is old, and tidies up, every hour until it is cancelled. `told` hears of what went."""
    while True:
        await asyncio.sleep(random.uniform(PERIOD_S / 60, PERIOD_S / 30))  # noqa: S311 - servers must not go in step
        try:
            if _is_due(folder / "retention.stamp"):
                gone = await expire(store, rules, held)
                gone.tidied = await store.tidy()
                if gone.deleted or gone.tidied:
                    told(gone)
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not end for ever
            log.warning("what is old could not be deleted, and is looked at again in an hour: %s", error)


def _is_due(stamp: Path) -> bool:
    """Whether nobody has looked for an hour; then the caller does."""
    with suppress(FileNotFoundError):
        if time.time() - stamp.stat().st_mtime < PERIOD_S:
            return False
    os.close(os.open(stamp, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
    os.utime(stamp)
    return True

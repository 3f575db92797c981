"""How much of a user's is kept: sessions, turns and bytes, as the store knows them, over all who share it."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import Final

from api.rates import Left
from histories.base import HistoryStore, Kept, SessionNotFound, StoreUnavailable
from turns.shares import OverQuota

log = logging.getLogger("recollect.rates")

_ANEW_S: Final = 10.0
"""How old what is known may be: so long it takes until others' turns count here."""

_ANEW_WHEN_FULL_S: Final = 1.0
"""Before anybody is refused it is looked again, for something may have been deleted; but not for each request."""

_USERS: Final = 10_000
"""Of how many users something is remembered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaRules:
    """0: not limited."""

    sessions: int = 0
    turns: int = 0
    size: int = 0


@dataclass(slots=True)
class _Known:
    """What the store said at a time, and what has come since: turns, new sessions, and names of those there were."""

    kept: Kept
    at: float
    turns: int = 0
    new: set[str] = field(default_factory=set)
    old: set[str] = field(default_factory=set)


class Quotas:
    """The quotas of one server."""

    def __init__(self, rules: QuotaRules, store: HistoryStore) -> None:
        self._rules, self._store = rules, store
        self._users: dict[str, _Known] = {}

    @property
    def limits_anything(self) -> bool:
        return any((self._rules.sessions, self._rules.turns, self._rules.size))

    async def turn(self, user: str, session_id: str) -> None:
        """Sees to it that there is room for a turn. Raises `OverQuota`."""
        await self.room(user, session_id)

    async def room(self, user: str, session_id: str, turns: int = 1) -> None:
        """The same for so many turns. A store that can't tell limits nobody."""
        if not self.limits_anything:
            return
        try:
            known = await self._known(user, _ANEW_S)
            is_new = await self._is_new(user, session_id, known)
            if self._refusal(known, turns, is_new=is_new):
                known = await self._known(user, _ANEW_WHEN_FULL_S)
        except StoreUnavailable as error:
            log.warning("quotas can't be counted: %s", type(error).__name__)
            return
        refusal = self._refusal(known, turns, is_new=is_new)
        if refusal:
            raise OverQuota(refusal)
        known.turns += turns
        (known.new if is_new else known.old).add(session_id)

    async def _known(self, user: str, no_older_s: float) -> _Known:
        known = self._users.get(user)
        if known is not None and time.monotonic() - known.at < no_older_s:
            return known
        if len(self._users) >= _USERS:
            self._users.clear()
        known = self._users[user] = _Known(await self._store.kept(user), time.monotonic())
        return known

    async def _is_new(self, user: str, session_id: str, known: _Known) -> bool:
        """Whether this would be one more session than is known of."""
        if not self._rules.sessions or session_id in known.new or session_id in known.old:
            return False
        try:
            await self._store.history(user, session_id).info()
        except SessionNotFound:
            return True
        return False

    def _refusal(self, known: _Known, turns: int, *, is_new: bool) -> str:
        rules, kept = self._rules, known.kept
        if rules.sessions and is_new and kept.sessions + len(known.new) >= rules.sessions:
            return f"You keep {rules.sessions} conversations, and may keep no more: delete some that you do not need."
        if rules.turns and kept.turns + known.turns + turns > rules.turns:
            return f"You may keep {rules.turns} turns in all your conversations: delete some that you do not need."
        if rules.size and kept.size >= rules.size:
            return f"You may keep {rules.size} bytes in all your conversations: delete some that you do not need."
        return ""

    async def left(self, user: str) -> list[Left]:
        """What is left of each quota."""
        if not self.limits_anything:
            return []
        known, rules = await self._known(user, _ANEW_WHEN_FULL_S), self._rules
        counts = {
            "sessions kept": (rules.sessions, known.kept.sessions + len(known.new)),
            "turns kept": (rules.turns, known.kept.turns + known.turns),
            "bytes kept": (rules.size, known.kept.size),
        }
        return [Left(limit=name, of=of, left=max(0, of - used)) for name, (of, used) in counts.items() if of]

"""All that is kept of a user, for who has to count it, give it out, or delete it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from api.sessions.exchange import ExchangedTurn, conversation_of
from api.sessions.export import notes_of, sessions_of
from auth.keys import ApiKeys
from auth.shares import Shares
from histories.base import HistoryStore, Session, SessionBusy, SessionNotFound, Summary, Turn

_PAGE = 200

Tell = Callable[[str], None]
"""Hears how far it is."""


def _silent(text: str) -> None:
    return


async def count_by_user(store: HistoryStore, data_dir: Path) -> dict[str, tuple[int, int]]:
    """The numbers of sessions and of keys of each user who has either."""
    users = {user: await _count(store, user) async for user in store.users()}
    keys = [key.user for key in ApiKeys(data_dir).all()]
    return {user: (users.get(user, 0), keys.count(user)) for user in sorted({*users, *keys})}


async def is_known(store: HistoryStore, data_dir: Path, user: str) -> bool:
    """Whether a user has a key, a session or a note. Raises StoreUnavailable."""
    if ApiKeys(data_dir).newest(user) is not None:
        return True
    return bool((await store.sessions(user, limit=1)).items or await store.notes(user))


async def _count(store: HistoryStore, user: str) -> int:
    sessions = sessions_of(store, user)
    return sum([1 async for _ in sessions])


async def erase(store: HistoryStore, data_dir: Path, user: str, tell: Tell = _silent) -> tuple[int, int]:
    """Deletes a user's sessions and keys, and signs their browsers out; gives the numbers of sessions and keys.

    `tell` hears after each session how far it is. Raises `SessionBusy` while a turn runs: what could be deleted is.
    """
    keys = ApiKeys(data_dir)
    theirs = [key for key in keys.all() if key.user == user]
    for key in theirs:
        keys.revoke(key.id)
    keys.sign_out(user)
    sessions = [session.session_id async for session in sessions_of(store, user)]
    for count, session_id in enumerate(sessions, start=1):
        with suppress(SessionBusy, SessionNotFound):  # `forget` tells of what is busy, when all the others are gone
            await store.history(user, session_id).delete()
        tell(f"{count} of {len(sessions)} sessions deleted")
    Shares(data_dir).forget(user)
    await store.forget(user)
    return len(sessions), len(theirs)


async def export(store: HistoryStore, data_dir: Path, user: str, to: TextIO, tell: Tell = _silent) -> int:
    """Writes all that is kept of a user as one JSON object, session by session; gives the number of sessions."""
    keys = [key.model_dump(exclude={"hash"}) for key in ApiKeys(data_dir).all() if key.user == user]
    to.write(f'{{"user": {json.dumps(user)}, "keys": {json.dumps(keys)}, "sessions": [')
    count = 0
    async for session in sessions_of(store, user):
        try:
            turns = await _turns(store, user, session.session_id)
            summary = await store.history(user, session.session_id).summary()
        except SessionNotFound:  # it was deleted meanwhile
            continue
        to.write((",\n" if count else "\n") + json.dumps(_exported(session, summary, turns)))
        count += 1
        tell(f"{count} sessions written")
    notes = notes_of(await store.notes(user))["notes"]
    to.write(f'\n], "notes": {json.dumps(notes)}}}\n')
    return count


def _exported(session: Session, summary: Summary | None, turns: Sequence[Turn]) -> dict[str, Any]:
    """A session as `/sessions/import` takes it."""
    return {**conversation_of(session, summary), "turns": [ExchangedTurn.of(turn).model_dump() for turn in turns]}


async def _turns(store: HistoryStore, user: str, session_id: str) -> list[Turn]:
    history = store.history(user, session_id)
    pages = [await history.turns(limit=_PAGE)]
    while pages[-1].next is not None:
        pages.append(await history.turns(limit=_PAGE, before=pages[-1].next))
    return [turn for page in reversed(pages) for turn in page.items]

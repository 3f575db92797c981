"""Notes about a user that outlive sessions: how many there may be, and how one is added."""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from histories.base import HistoryMoved, HistoryStore, Note, now

MOST_NOTES: Final = 100
NOTE_LENGTH: Final = 1_000


async def add_note(store: HistoryStore, user_id: str, text: str) -> bool:
    """Notes something about the user, unless it is noted already. False if there is no room."""
    text = " ".join(text.split())[:NOTE_LENGTH]
    while True:  # an agent notes several things at once, and the user changes notes meanwhile: each try, one gets on
        notes = await store.notes(user_id)
        if not text or any(note.text == text for note in notes):
            return True
        if len(notes) >= MOST_NOTES:
            return False
        with suppress(HistoryMoved):
            await store.set_notes(user_id, [*notes, Note(text=text, created_at=now())], if_notes=notes)
            return True

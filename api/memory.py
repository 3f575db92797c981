"""The REST resource /memory: notes about the caller that outlive sessions, for chains that ask for them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Response
from pydantic import AwareDatetime, Field
from typing_extensions import TypedDict

from api.sessions.models import Body, Time, TurnId, time_of
from api.sessions.routes import json_of, problems
from auth.middleware import current_user
from histories.base import HistoryMoved, HistoryStore, Note, now
from turns.notes import MOST_NOTES, NOTE_LENGTH

User = Annotated[str, Depends(current_user)]
IfMatch = Annotated[str | None, Header(max_length=200, description="The ETag of the notes that the caller was shown.")]
NoteText = Annotated[str, Field(min_length=1, max_length=NOTE_LENGTH, examples=["I am a vegetarian."])]


class NewNote(Body):
    """A note. One that is there already keeps its id and its time."""

    text: NoteText
    note_id: TurnId | None = None
    created_at: AwareDatetime | None = None


class NewNotes(Body):
    """All notes, as they are to be from now on."""

    notes: list[NoteText | NewNote] = Field(max_length=MOST_NOTES)


class NoteInfo(TypedDict):
    """One note."""

    note_id: str
    text: Annotated[str, Field(examples=["I am a vegetarian."])]
    created_at: Time


class NoteList(TypedDict):
    """All notes about the caller, oldest first."""

    notes: list[NoteInfo]


def router(store: HistoryStore) -> APIRouter:
    """`/memory` over a store."""
    own = _Memory(store)
    routes = APIRouter(prefix="/memory", tags=["memory"], dependencies=[Depends(current_user)])
    routes.add_api_route("", own.get, methods=["GET"], response_model=NoteList, responses=problems())
    changed = problems(403, 412, 413)
    routes.add_api_route("", own.put, methods=["PUT"], response_model=NoteList, responses=changed)
    routes.add_api_route("", own.delete, methods=["DELETE"], status_code=204, responses=problems(403, 412))
    return routes


class _Memory:
    """The routes. Their docstrings are what OpenAPI tells."""

    def __init__(self, store: HistoryStore) -> None:
        self._store = store

    async def get(self, user: User) -> Response:
        """What is noted of the caller."""
        return _listed(await self._store.notes(user))

    async def put(self, user: User, body: NewNotes, if_match: IfMatch = None) -> Response:
        """Puts these in the place of all notes of the caller; with If-Match, unless others have come meanwhile."""
        before = await self._matched(user, if_match)
        known = {note.note_id: note for note in before}
        notes = {note.note_id: note for note in (_note(one, known) for one in body.notes)}
        await self._store.set_notes(user, list(notes.values()), if_notes=before if if_match else None)
        return _listed(list(notes.values()))

    async def delete(self, user: User, if_match: IfMatch = None) -> Response:
        """Forgets all notes of the caller; with If-Match, unless others have come meanwhile."""
        before = await self._matched(user, if_match)
        await self._store.set_notes(user, [], if_notes=before if if_match else None)
        return Response(status_code=204)

    async def _matched(self, user: str, if_match: str | None) -> list[Note]:
        """The notes. Raises `HistoryMoved` if they are not those that the caller was shown."""
        notes = await self._store.notes(user)
        if if_match and if_match.strip().removeprefix("W/") not in ("*", _etag(notes)):  # nginx makes it weak
            raise HistoryMoved
        return notes


def _etag(notes: Sequence[Note]) -> str:
    shown = [(note.note_id, note.text, time_of(note.created_at)) for note in notes]
    return f'"{sha256(repr(shown).encode("utf-8", "surrogatepass")).hexdigest()[:32]}"'


def _note(one: str | NewNote, known: dict[str, Note]) -> Note:
    if isinstance(one, str):
        return Note(text=one, created_at=now())
    at: datetime | None = one.created_at
    if one.note_id is None:
        return Note(text=one.text, created_at=at or now())
    earlier = known.get(one.note_id)
    return Note(text=one.text, created_at=at or (earlier.created_at if earlier else now()), note_id=one.note_id)


def _listed(notes: list[Note]) -> Response:
    listed = [NoteInfo(note_id=one.note_id, text=one.text, created_at=time_of(one.created_at)) for one in notes]
    response = json_of(NoteList(notes=listed))
    response.headers["ETag"] = _etag(notes)
    return response

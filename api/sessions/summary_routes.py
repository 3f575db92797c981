"""The summary of a session as a resource: what a model is shown of it before its window, for chains that ask for it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Response

from api.sessions.models import NewSummary, SessionPath, SummaryInfo, time_of
from api.sessions.routes import json_of, problems
from auth.middleware import current_user
from histories.base import HistoryStore, SessionHistory, Summary, now

User = Annotated[str, Depends(current_user)]


def router(store: HistoryStore) -> APIRouter:
    """`/sessions/{session_id}/summary`."""
    own = _Summary(store)
    path, changed = "/sessions/{session_id}/summary", problems(403, 404, 409, 413)
    routes = APIRouter(tags=["sessions"], dependencies=[Depends(current_user)])
    routes.add_api_route(path, own.get, methods=["GET"], response_model=SummaryInfo, responses=problems(404))
    routes.add_api_route(path, own.put, methods=["PUT"], response_model=SummaryInfo, responses=changed)
    routes.add_api_route(path, own.delete, methods=["DELETE"], status_code=204, responses=problems(403, 404))
    return routes


class _Summary:
    """The routes. Their docstrings are what OpenAPI tells."""

    def __init__(self, store: HistoryStore) -> None:
        self._store = store

    async def get(self, user: User, session_id: SessionPath) -> Response:
        """The summary of what was said before the model's window. 404 if there is none."""
        history = self._store.history(user, session_id)
        await history.info()
        summary = await history.summary()
        if summary is None:
            raise HTTPException(404, "This session has no summary.")
        return _shown(summary)

    async def put(self, user: User, session_id: SessionPath, body: NewSummary) -> Response:
        """Puts the caller's own words in its place. If there is none, they are taken to speak of all turns so far."""
        history = self._store.history(user, session_id)
        before = await history.summary()
        up_to, at = (before.up_to, before.at) if before is not None else await _last(history)
        summary = Summary(body.text, up_to, at, now(), "user")
        await history.set_summary(summary)
        return _shown(summary)

    async def delete(self, user: User, session_id: SessionPath) -> Response:
        """Forgets it. When more leaves the window, another one is made."""
        await self._store.history(user, session_id).set_summary(None)
        return Response(status_code=204)


async def _last(history: SessionHistory) -> tuple[str, datetime]:
    await history.info()  # raises for a session that is not there
    turns = [turn for turn in (await history.turns(limit=2)).items if turn.ended_at is not None]
    if not turns:
        raise HTTPException(409, "Nothing was said in this session yet.")
    return turns[-1].turn_id, turns[-1].started_at


def _shown(summary: Summary) -> Response:
    return json_of(
        SummaryInfo(text=summary.text, up_to=summary.up_to, made_at=time_of(summary.made_at), made_by=summary.made_by)
    )

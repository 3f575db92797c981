"""Whether the process is alive, and whether it can serve."""

from __future__ import annotations

from fastapi import APIRouter, Depends
from fastapi.responses import JSONResponse

from auth.middleware import current_user
from histories.base import HistoryStore, StoreUnavailable


def router(store: HistoryStore) -> APIRouter:
    """`GET /healthz`, for everybody, and `GET /readyz`, for who has signed in."""
    routes = APIRouter(tags=["ops"])

    @routes.get("/healthz", summary="Is the process alive?")
    async def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @routes.get("/readyz", summary="Does the store answer?", dependencies=[Depends(current_user)])
    async def readyz() -> JSONResponse:
        try:
            await store.ping()
        except StoreUnavailable as error:
            return JSONResponse({"detail": str(error)}, 503, {"Retry-After": "5"})
        return JSONResponse({"status": "ready"})

    return routes

"""Whether the process lives, and whether it is of use."""

from __future__ import annotations

from fastapi import APIRouter, Depends
from fastapi.responses import JSONResponse

from api.ops.watchdog import Watchdog
from auth.middleware import current_user
from histories.base import HistoryStore, StoreUnavailable


def health_router(store: HistoryStore, watchdog: Watchdog) -> APIRouter:
    """`/healthz` and `/readyz`."""
    routes = APIRouter(tags=["ops"])

    @routes.get("/healthz", summary="Is the process alive?")
    async def healthz() -> dict[str, str]:
        return {"status": "alive"}

    @routes.get("/readyz", summary="Does the store answer, and get all on?", dependencies=[Depends(current_user)])
    async def readyz() -> JSONResponse:
        trouble = watchdog.trouble()
        try:
            if trouble is None:
                await store.ping()
        except StoreUnavailable as error:
            trouble = str(error)
        if trouble is not None:
            return JSONResponse({"detail": trouble}, 503, {"Retry-After": "5"})
        return JSONResponse({"status": "ready"})

    return routes

"""A store whose calls are timed: the store itself knows nothing of it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

from api.ops.metrics import Metrics
from histories.base import HistoryError, HistoryStore, OpenTurn, StoreUnavailable

_OF_STORE = frozenset({"ping", "sessions", "forget", "recall", "notes", "set_notes"})
_OF_HISTORY = frozenset(
    {"begin", "info", "turns", "turn", "rename", "rewind", "choose", "fork", "restore", "stop", "delete"}
) | {"delete_turn", "feedback"}
_OF_TURN = frozenset({"end", "journal"})
_CLIENTS = frozenset({"InvalidId", "InvalidCursor", "SessionNotFound", "TurnNotFound", "SessionExists", "HistoryMoved"})
"""What a client asked for that is not there: no trouble of the store's."""


log = logging.getLogger("recollect.store")


@asynccontextmanager
async def opened_store(store: HistoryStore) -> AsyncIterator[None]:
    """The store is open as long as this lasts; the log is told if it can't be used yet. Raises what `open` raises.

    The start does not wait for that, and goes on: a database may come up after its servers. But who has named a folder
    that is another's, or a host that is none, sees it before anybody's turn does.
    """
    await store.open()
    looking = asyncio.create_task(_look(store), name="recollect-look")
    try:
        yield
    finally:
        looking.cancel()
        await store.close()


async def _look(store: HistoryStore) -> None:
    try:
        await store.ping()
    except StoreUnavailable as error:
        log.warning("RECOLLECT_HISTORY_URL can't be used yet, and turns are refused: %s", error)


def watched(store: HistoryStore, metrics: Metrics) -> HistoryStore:
    """The store, with each of its operations timed, and those of its histories and turns."""
    return cast(HistoryStore, _Watched(store, metrics, _OF_STORE))


class _Watched:
    """Stands in for an object, and times the methods that are named."""

    def __init__(self, inner: Any, metrics: Metrics, timed: frozenset[str]) -> None:
        self._inner, self._metrics, self._timed = inner, metrics, timed

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name in self._timed:
            found = self.__dict__[name] = _timing(name, found, self._metrics)
            return found
        if name == "history":
            return lambda *args, **kwargs: _Watched(found(*args, **kwargs), self._metrics, _OF_HISTORY)
        return found


def _timing(name: str, call: Callable[..., Awaitable[Any]], metrics: Metrics) -> Callable[..., Awaitable[Any]]:
    async def timed(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            result = await call(*args, **kwargs)
        except HistoryError as error:
            kind = type(error).__name__
            if kind not in _CLIENTS:
                metrics.store_errors.labels(name, kind).inc()
            raise
        finally:
            metrics.stored(name, time.perf_counter() - start)
        return _Watched(result, metrics, _OF_TURN) if isinstance(result, OpenTurn) else result

    return timed

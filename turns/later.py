"""A chain that is built when it is first called, and not when the server starts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig
from typing_extensions import override


class Later(Runnable[Any, Any]):
    """Stands for the runnable that `build` makes. It is built once, by the first who needs it."""

    def __init__(self, build: Callable[[], Runnable[Any, Any]]) -> None:
        self._build, self._lock = build, threading.Lock()
        self._built: Runnable[Any, Any] | None = None

    def built(self) -> Runnable[Any, Any]:
        """The runnable. It may take a second to make; raises what `build` raises, to each who asks."""
        with self._lock:
            if self._built is None:
                self._built = self._build()
            return self._built

    async def ready(self) -> None:
        """Has it built in a thread: others are served meanwhile. Raises what `build` raises."""
        if self._built is None:
            await asyncio.to_thread(self.built)

    @override
    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        return self.built().invoke(input, config, **kwargs)


def built(runnable: Runnable[Any, Any]) -> Runnable[Any, Any]:
    """The runnable itself, or the one that it stands for, which is built if it is not yet."""
    return runnable.built() if isinstance(runnable, Later) else runnable

"""A chain that exits ends its own turn, and not the server.

asyncio lets `KeyboardInterrupt` and `SystemExit` of any task out of its event loop, and LangChain runs the steps of a
chain in tasks of their own: one `sys.exit()` in a tool would end every turn of the process. `GeneratorExit` of a task
closes all coroutines that wait for it, instead of being raised in them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import ContextVar
from typing import Any

in_a_chain: ContextVar[bool] = ContextVar("in_a_chain", default=False)
"""Whether what runs now was called by a turn."""


class ChainExit(Exception):
    """A chain raised what ends programs: `__cause__` says what."""


def contain_exits(loop: asyncio.AbstractEventLoop) -> None:
    """From now on the exits of tasks that a chain starts on this loop are `ChainExit`s. Does it once."""
    if loop.get_task_factory() is None:
        loop.set_task_factory(_task)  # type: ignore[arg-type]  # typeshed's protocol has a private future type


def _task(loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **options: Any) -> asyncio.Future[Any]:
    return asyncio.Task(_contained(coro) if in_a_chain.get() else coro, loop=loop, **options)


async def _contained(coro: Coroutine[Any, Any, Any]) -> Any:
    try:
        return await coro
    except (GeneratorExit, KeyboardInterrupt, SystemExit) as error:
        raise ChainExit(f"the chain raised {type(error).__name__}") from error

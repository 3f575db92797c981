"""Reading what a turn of another server says, while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from typing import Final

from histories.base import Event
from histories.postgres import statements
from histories.postgres.driver import Row
from histories.postgres.link import Link
from histories.postgres.rows import pack
from histories.postgres.shared import SessionName

_POLL_S: Final = 1.0
"""How often a reader looks for itself. Mostly it is called before."""


async def read_events(link: Link, session: SessionName, turn_id: str, after: int) -> AsyncIterator[Sequence[Event]]:
    """The events after that number, until the turn no longer runs or its owner is dead."""
    news, position, name = asyncio.Event(), after + 1, ""
    params = {**session.params, "turn": pack(turn_id), "server": link.server_id}
    try:
        while True:
            news.clear()
            rows = await link.fetch(statements.EVENTS, {**params, "position": position, "register": not name})
            if not rows:
                return
            is_new = not name
            if is_new:
                name = f"events:{rows[0][0]}"
                link.listen(name, news.set)
            elif name != f"events:{rows[0][0]}":  # a retry of that turn_id: another turn
                return
            some = _events(rows, position)
            if some:
                position = some[-1].seq + 1
                yield some
            elif not is_new:  # who has just been registered looks once more: it was not called before
                with suppress(TimeoutError):
                    async with asyncio.timeout(_POLL_S):
                        await news.wait()
    finally:
        link.unlisten(name, news.set)


def _events(rows: Sequence[Row], position: int) -> list[Event]:
    """The events of these batches from that number on."""
    return [
        Event(seq, data)
        for _, first, batch in rows
        if batch is not None
        for seq, data in enumerate(bytes(batch).split(b"\n"), first)
        if seq >= position
    ]

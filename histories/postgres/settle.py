"""How a turn ends: by its owner, or by whoever finds that its owner is dead."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from langchain_core.messages import BaseMessage

from histories import codec
from histories.base import HistoryDamaged, Reply, TurnStatus, estimate_tokens
from histories.journal import settled
from histories.postgres import statements
from histories.postgres.driver import Ask, Params
from histories.postgres.rows import messages_from, pack, usage_to_json, words_of
from histories.postgres.shared import SessionName

_LONG: Final = 50_000
"""Characters from which on cutting a text up into words would hold the event loop up."""


async def ending(user_id: str, new: Sequence[BaseMessage], reply: Reply, *, tokens: int) -> Params:
    """The parameters of an end. Raises `UnknownMessage`."""
    text = codec.text_of([*new, *reply.output])
    words = await asyncio.to_thread(words_of, user_id, text) if len(text) > _LONG else words_of(user_id, text)
    return {
        "status": reply.status.value,
        "output": codec.dump_messages(reply.output),
        "usage": usage_to_json(reply.usage),
        "kind": pack(reply.kind),
        "details": codec.dump(dict(reply.details)),
        "tokens": tokens + reply.tokens if reply.is_shown else 0,
        "words": words,
        "is_shown": reply.is_shown,
    }


async def settle(ask: Ask, session: SessionName, *, server_id: str = "", token: str | None = None) -> None:
    """Ends the turn of a dead owner, with what its journal came to. Nothing, if there is none.

    Whoever has the session at the gate gives its own `server_id`: what that one left behind is ended, too. `token`
    names the one attempt that is meant.
    """
    rows = await ask(statements.LOST_TURN, {**session.params, "server": server_id})
    if not rows or token not in (None, rows[0][0]):
        return
    found, turn_id, stored, is_own, batches = rows[0]
    reply = _reply([event for batch in batches for event in bytes(batch).split(b"\n")], is_own)
    new = list[BaseMessage]()
    with suppress(HistoryDamaged):  # what can't be read must not hold the session for ever
        new = messages_from(stored)
    end = await ending(session.user_id, new, reply, tokens=estimate_tokens(new))
    await ask(statements.SETTLE, {**session.params, **end, "server": server_id, "token": found, "turn": turn_id})


def _reply(events: list[bytes], is_own: bool) -> Reply:
    if is_own and not events:
        return Reply(status=TurnStatus.INTERRUPTED)
    try:
        return settled(events)
    except (ValueError, RecursionError):  # no JSON
        return settled([])

"""A whole session at once, as an import brings it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from psycopg import errors

from histories import codec
from histories.base import InvalidId, SessionExists, Turn, TurnStatus
from histories.postgres import statements
from histories.postgres.driver import Params
from histories.postgres.link import Link
from histories.postgres.rows import pack, usage_to_json, words_of
from histories.postgres.shared import SessionName

_LIMIT_S: Final = 120.0


async def restore(link: Link, session: SessionName, turns: Sequence[Turn], *, title: str, created_at: datetime) -> None:
    """Writes the session, or nothing. `SessionExists`; `InvalidId` if two turns have one turn_id."""
    rows, tokens = [], 0
    for seq, turn in enumerate(turns, 1):
        adds = turn.tokens if turn.shown else 0
        rows.append(_row(session, turn, seq, adds, tokens))
        tokens += adds
    params = _params(session, turns, tokens, title, created_at)
    async with link.connection(limit_s=_LIMIT_S) as conn, conn.transaction():
        await conn.execute("SELECT set_config('statement_timeout', %s, true)", [f"{_LIMIT_S}s"])
        if await (await conn.execute(statements.RESTORE_SESSION, params)).fetchone() is None:
            raise SessionExists
        try:
            async with conn.cursor() as cursor, cursor.copy(statements.RESTORE_TURNS) as copy:
                for row in rows:
                    await copy.write_row(row)
        except errors.UniqueViolation:
            raise InvalidId("Two of these turns have the same turn_id.") from None


def _params(session: SessionName, turns: Sequence[Turn], tokens: int, title: str, created_at: datetime) -> Params:
    return {
        **session.params,
        "title": pack(title),
        "title_words": words_of(session.user_id, title),
        "chain": pack(turns[-1].chain) if turns else "",
        "created_at": created_at,
        "updated_at": max([created_at, *(turn.ended_at or turn.started_at for turn in turns[-1:])]),
        "turns": len(turns),
        "tokens": tokens,
    }


def _row(session: SessionName, turn: Turn, seq: int, tokens: int, tokens_before: int) -> tuple[object, ...]:
    status = TurnStatus.INTERRUPTED if turn.status is TurnStatus.RUNNING else turn.status
    return (
        *session.params.values(),
        seq,
        pack(turn.turn_id),
        status.value,
        pack(turn.chain),
        pack(turn.kind),
        turn.started_at,
        turn.ended_at or turn.started_at,
        codec.dump_messages(turn.input),
        codec.dump_messages(turn.output),
        usage_to_json(turn.usage),
        tokens,
        tokens_before,
        seq - 1,
        codec.dump(dict(turn.details)),
        None if turn.feedback is None else codec.dump(dict(turn.feedback)),
    )

"""A whole session at once, as an import brings it."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Final

from histories import codec
from histories.base import SessionExists, Turn, TurnTree
from histories.postgres import statements
from histories.postgres.driver import Params
from histories.postgres.link import Link
from histories.postgres.rows import pack, usage_to_json, words_of
from histories.postgres.shared import SessionName

_LIMIT_S: Final = 120.0


async def restore(link: Link, session: SessionName, tree: TurnTree, *, title: str, created_at: datetime) -> None:
    """Writes the session, whose turns are at rest, or nothing. `SessionExists`."""
    rows, last = await asyncio.to_thread(_rows, session, tree)  # of thousands of messages, that takes seconds
    params = _params(session, tree, last, title, created_at)
    async with link.connection(str(params["user"]), limit_s=_LIMIT_S) as conn, conn.transaction():
        await conn.execute("SELECT set_config('statement_timeout', %s, true)", [f"{_LIMIT_S}s"])
        if await (await conn.execute(statements.RESTORE_SESSION, params)).fetchone() is None:
            raise SessionExists
        async with conn.cursor() as cursor, cursor.copy(statements.RESTORE_TURNS) as copy:
            for row in rows:
                await copy.write_row(row)


def _rows(session: SessionName, tree: TurnTree) -> tuple[list[tuple[object, ...]], tuple[int, int]]:
    """A row for each turn; the number of the last one shown, and the tokens up to its end."""
    shown = {turn.turn_id for turn in tree.line}
    places, rows = {"": (0, 0)}, list[tuple[object, ...]]()  # the number of each turn, and the tokens up to its end
    for seq, (turn, after) in enumerate(zip(tree.turns, tree.after, strict=True), 1):
        parent, tokens = places[after]
        places[turn.turn_id] = seq, tokens + turn.tokens
        # As if it had been hidden when the one after it was written: of several, the newest was shown last.
        hidden = 0 if turn.turn_id in shown else len(tree.turns) + seq
        rows.append((*_row(session, turn, seq, tokens), parent, hidden))
    return rows, places[tree.last]


def _params(session: SessionName, tree: TurnTree, last: tuple[int, int], title: str, created_at: datetime) -> Params:
    line, (head, tokens) = tree.line, last
    return {
        **session.params,
        "title": pack(title),
        "title_words": words_of(session.user_id, title),
        "chain": pack(line[-1].chain) if line else "",
        "created_at": created_at,
        "updated_at": tree.updated_at(created_at),
        "turns": len(line),
        "tokens": tokens,
        "head": head,
        "last_seq": 2 * len(tree.turns),
    }


def _row(session: SessionName, turn: Turn, seq: int, tokens_before: int) -> tuple[object, ...]:
    return (
        *session.params.values(),
        seq,
        pack(turn.turn_id),
        turn.status.value,
        pack(turn.chain),
        pack(turn.kind),
        turn.started_at,
        turn.ended_at,
        codec.dump_messages(turn.input),
        codec.dump_messages(turn.output),
        usage_to_json(turn.usage),
        turn.tokens,
        tokens_before,
        codec.dump(dict(turn.details)),
        None if turn.feedback is None else codec.dump(dict(turn.feedback)),
    )

"""Histories that are there before the measuring begins."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from langchain_core.messages import AIMessage, HumanMessage

from bench.models import TOKENS
from bench.subjects import USER
from histories import open_store
from histories.base import Turn, TurnStatus, estimate_tokens

_BEGIN = datetime(2024, 1, 1, tzinfo=UTC)


def turns(count: int, *, reply: str = "".join(TOKENS), words: str = "", first: int = 0) -> list[Turn]:
    """That many turns of an old conversation, from the place `first` on."""
    made = []
    for place in range(first, first + count):
        question, answer = HumanMessage(f"Question {place}: {words or 'what is cosine?'}"), AIMessage(reply)
        made.append(
            Turn(
                turn_id=f"turn-{place}",
                status=TurnStatus.COMPLETE,
                chain="tutor",
                started_at=_BEGIN + timedelta(minutes=place),
                ended_at=_BEGIN + timedelta(minutes=place, seconds=5),
                input=[question],
                output=[answer],
                tokens=estimate_tokens([question, answer]),
            )
        )
    return made


def fill(folder: Path, sessions: Iterable[tuple[str, list[Turn]]], *, store: str = "file:") -> None:
    """Writes sessions of the benchmark's user where a server with that data folder and that store finds them."""

    async def write() -> None:
        histories = open_store(store, default_dir=str(folder / "histories"), fsync=False)
        for name, content in sessions:
            title = str(content[0].input[0].text)[:60]
            await histories.history(USER, name).restore(content, title=title, created_at=_BEGIN)
        await histories.close()

    asyncio.run(write())

"""How soon what a turn says is heard: counted in rounds of the event loop, each of which is long on a busy server."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from typing_extensions import override

from histories.base import OpenTurn, Reply
from turns.voice import JOURNAL_S, Voice, encode


class _QuickTurn(OpenTurn):
    """Journals at once."""

    turn_id = "t"

    def __init__(self) -> None:
        self.journaled = list[bytes]()

    @override
    async def _journal(self, first: int, events: Sequence[bytes]) -> None:
        self.journaled += events

    @override
    async def _end(self, reply: Reply) -> None:
        raise NotImplementedError


async def rounds_until_heard(voice: Voice, piece: str) -> int:
    """Says a piece; gives how many rounds it takes until a listener has it."""
    heard = asyncio.create_task(anext(voice.read(len(voice.chunks) - 1)))
    await asyncio.sleep(0)
    voice.say(piece)
    rounds = 0
    while not heard.done():
        await asyncio.sleep(0)
        rounds += 1
        assert rounds < 100
    return rounds


async def test_what_is_said_after_a_pause_is_heard_within_three_rounds_of_the_event_loop() -> None:
    """The first piece alone waits for whether the chain says all in one breath."""
    voice, turn = Voice(encode, journals=True), _QuickTurn()
    voice.journal_to(turn)
    first = await rounds_until_heard(voice, "a")
    while voice.is_writing:
        await asyncio.sleep(JOURNAL_S)
    assert await rounds_until_heard(voice, "b") <= 3
    assert first > 3
    assert turn.journaled == [b'"a"', b'"b"']
    await voice.close()

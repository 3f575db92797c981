"""Titles by the model: made in the background when a conversation has its first answer, and never in a turn's way."""

from __future__ import annotations

import asyncio
import logging
import re
from typing import Final

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import HumanMessage, SystemMessage

from histories.base import HistoryError, HistoryStore, title_of
from turns.observer import WatchedTurn

log = logging.getLogger("recollect.titles")

_ASK: Final = (
    "You give conversations their titles. Answer with a title of two to six words, in the language of the "
    "conversation, and with nothing else: no quotes, no full stop."
)
_READ: Final = 2000
"""Characters of the question, and of the answer, that the model is shown."""
_LIMIT_S: Final = 60.0
_WAITING: Final = 100
"""More conversations than these are not kept waiting for a title: they have their first words."""

_THOUGHT: Final = re.compile(r"<think>.*?(</think>|\Z)", re.DOTALL | re.IGNORECASE)
_FRAME: Final = "\"'`*_#“”„‘’«»「」 \t"


class Titles:
    """Gives titles to conversations whose first turn has ended. It watches turns.

    One title is made at a time. A model that is `shared`, as it answers few at once, is asked only while no turn is
    under way, and is left again as soon as one comes.
    """

    def __init__(self, store: HistoryStore, *, shared: bool) -> None:
        self._store, self._shared = store, shared
        self._model: BaseChatModel | None = None
        self._turns, self._idle, self._one = 0, asyncio.Event(), asyncio.Semaphore(1)
        self._idle.set()
        self._asking: asyncio.Task[str] | None = None
        self._tasks = set[asyncio.Task[None]]()

    def serve(self, model: BaseChatModel) -> None:
        """From now on titles are that model's."""
        self._model = model

    def asked(self, turn: WatchedTurn) -> None:
        """A turn comes: it has the model."""
        self._turns += 1
        if self._shared:
            self._idle.clear()
            if self._asking is not None:
                self._asking.cancel()

    def began(self, turn: WatchedTurn) -> None:
        """Nothing to do."""

    def spoke(self, turn: WatchedTurn) -> None:
        """Nothing to do."""

    def ended(self, turn: WatchedTurn) -> None:
        """A title is due, if it was the first turn of its session."""
        self._turns -= 1
        if self._turns == 0:
            self._idle.set()
        is_first = bool(turn.session_id) and turn.outcome == "complete" and not turn.past
        if is_first and self._model is not None and len(self._tasks) < _WAITING:
            task = asyncio.create_task(self._give_title(self._model, turn), name="recollect-title")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Makes no more titles."""
        self._model = None
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _give_title(self, model: BaseChatModel, turn: WatchedTurn) -> None:
        history, words = self._store.history(turn.user_id, turn.session_id), title_of(turn.input)

        async def has_its_first_words() -> bool:
            session = await history.info()
            return session.title == words and session.turns == 1

        try:
            async with self._one:
                if await has_its_first_words():
                    title = await self._asked_of(model, turn)
                    # What a person chose meanwhile stays.
                    if title and (await history.info()).title == words:
                        await history.rename(title)
        except HistoryError as error:
            log.info("a conversation keeps its first words as its title: %s", error)
        except Exception as error:  # noqa: BLE001 - whatever a model raises, the title stays as it is
            log.warning("the model made no title: %s", type(error).__name__)

    async def _asked_of(self, model: BaseChatModel, turn: WatchedTurn) -> str:
        """What the model says, asked again as long as turns come between."""
        while True:
            await self._idle.wait()
            asking = self._asking = asyncio.create_task(_title_by(model, turn))
            try:
                await asyncio.wait({asking})
            finally:
                self._asking = None
                asking.cancel()  # nothing, if it has ended
            if not asking.cancelled():
                return asking.result()


async def _title_by(model: BaseChatModel, turn: WatchedTurn) -> str:
    replied = " ".join(str(message.text) for message in turn.reply.output) if turn.reply is not None else ""
    asked = " ".join(str(message.text) for message in turn.input)
    shown = f"Question: {asked[:_READ]}\n\nAnswer: {replied[:_READ]}\n\nThe title of this conversation:"
    async with asyncio.timeout(_LIMIT_S):
        said = await model.ainvoke([SystemMessage(_ASK), HumanMessage(shown)], {"run_name": "recollect-title"})
    return title_in(str(said.text))


def title_in(said: str) -> str:
    """The title in what a model said; empty if there is none."""
    lines = [line.strip(_FRAME) for line in _THOUGHT.sub("", said).splitlines()]
    line = next(filter(None, lines), "")
    line = re.sub(r"^(the )?titles?\s*[:：]\s*", "", line, flags=re.IGNORECASE).strip(_FRAME).rstrip(".。")
    return title_of([HumanMessage(line)]) if any(char.isalnum() for char in line) else ""

"""The kinds of stores that the conformance suite runs over, and how tests talk to them in few words."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import pytest
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage

from histories.base import HistoryStore, NewTurn, OpenTurn, Page, Reply, Session, SessionHistory, Turn, TurnStatus
from histories.files.store import FileStore
from histories.memory import MemoryStore
from histories.postgres.store import PostgresStore
from histories.redis.store import RedisStore
from tests import postgres_server, redis_server


@dataclass
class Stores:
    """Stores of one kind that share one empty place; those that were opened are closed when the test ends.

    `url` is what another process opens the same place with; None when no other process can.
    """

    make: Callable[[], HistoryStore]
    url: str | None = None
    opened: list[HistoryStore] = field(default_factory=list)

    async def open(self) -> HistoryStore:
        """Another store on the same place, as another process has it."""
        store = self.make()
        await store.open()
        self.opened.append(store)
        return store

    async def close(self) -> None:
        for store in self.opened:
            await store.close()


def _file(request: pytest.FixtureRequest, folder: Path) -> Stores:
    return Stores(lambda: FileStore(folder / "histories"), f"file:{folder / 'histories'}")


def _memory(request: pytest.FixtureRequest, folder: Path) -> Stores:
    store = MemoryStore()
    return Stores(lambda: store)


def _postgres(request: pytest.FixtureRequest, folder: Path) -> Stores:
    url = postgres_server.lent_url(request.getfixturevalue("postgres_url"))
    request.addfinalizer(lambda: postgres_server.give_back(url))
    return Stores(lambda: PostgresStore(url), url)


def _redis(request: pytest.FixtureRequest, folder: Path) -> Stores:
    url = redis_server.fresh_url(request.getfixturevalue("redis_url"))
    request.addfinalizer(lambda: redis_server.drop_fresh(url))
    return Stores(lambda: RedisStore(url), url)


#: A kind of store is a line here: how tests get an empty place of that kind. `request` gives it fixtures and clean-up.
KINDS: Final[dict[str, Callable[[pytest.FixtureRequest, Path], Stores]]] = {
    "file": _file,
    "memory": _memory,
    "postgres": _postgres,
    "redis": _redis,
}


@contextmanager
def on_store(request: pytest.FixtureRequest, kind: str) -> Iterator[str]:
    """The URL of an empty place of that kind for a server: in its data folder, or in the Redis of the tests."""
    if kind == "file":
        yield "file:"
        return
    url = redis_server.fresh_url(request.getfixturevalue("redis_url"))
    yield url
    redis_server.drop_fresh(url)


def said(words: str, **more: object) -> NewTurn:
    """What a turn begins with, when a user says these words. A turn_id is given by the client."""
    new = NewTurn(input=[HumanMessage(words)], **more)  # type: ignore[arg-type]
    return replace(new, given="turn_id" in more)


def replied(words: str = "a reply", status: TurnStatus = TurnStatus.COMPLETE, tokens: int = 0) -> Reply:
    """How a turn ended; without words, with no output."""
    return Reply(status=status, output=[AIMessage(words)] if words else [], tokens=tokens)


FAILED: Final = replied("", TurnStatus.FAILED)


async def begun(history: SessionHistory, new: NewTurn | str, *, wait_s: float = 60, window: int = 0) -> OpenTurn:
    """A turn that runs."""
    turn = await history.begin(said(new) if isinstance(new, str) else new, wait_s=wait_s, window_tokens=window)
    assert isinstance(turn, OpenTurn)
    return turn


async def talk(history: SessionHistory, *words: str, reply: Reply | None = None) -> list[str]:
    """A whole turn for each of the words. Gives the turns' ids."""
    ids = []
    for each in words:
        turn = await begun(history, each)
        await turn.end(reply or replied(f"re: {each}"))
        ids.append(turn.turn_id)
    return ids


async def all_turns(history: SessionHistory, limit: int = 50) -> list[Turn]:
    """All turns of the history, oldest first."""
    page = await history.turns(limit=limit)
    turns = page.items
    while page.next is not None:
        page = await history.turns(limit=limit, before=page.next)
        turns = page.items + turns
    return turns


async def all_sessions(store: HistoryStore, user_id: str, limit: int = 50, query: str | None = None) -> list[Session]:
    """All sessions of the user, newest first."""
    page: Page[Session] = await store.sessions(user_id, limit=limit, query=query)
    sessions = page.items
    while page.next is not None:
        page = await store.sessions(user_id, limit=limit, cursor=page.next, query=query)
        sessions = sessions + page.items
    return sessions


def texts(messages: Sequence[BaseMessage]) -> list[str]:
    return [str(message.content) for message in messages]


async def fill(history: SessionHistory, turns: int, tokens: int) -> None:
    """Says so many turns, each of so many tokens."""
    for number in range(turns):
        turn = await begun(history, said(f"q{number}", tokens=tokens // 2))
        await turn.end(replied(f"a{number}", tokens=tokens - tokens // 2))


async def shown_past(history: SessionHistory, window: int, tokens: int = 0) -> list[str]:
    """What a model is shown in a window of so many tokens, for an input of `tokens`."""
    turn = await begun(history, said("probe", tokens=tokens), window=window)
    await turn.end(FAILED)
    return texts(turn.past)


async def until(true: Callable[[], bool], within_s: float = 60) -> None:
    """Returns as soon as the condition holds; fails when it has not within these seconds."""
    deadline = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < deadline, "what was waited for did not happen"
        await asyncio.sleep(0.002)

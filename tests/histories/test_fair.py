"""One user's crowd at a store is one in line for everybody else."""

from __future__ import annotations

import asyncio
import time

import pytest
from langchain_core.messages import AIMessage, HumanMessage

from histories.base import SessionHistory, Turn, TurnStatus, now
from histories.fair import FairQueue, FairSlots
from tests.proofs import proves
from tests.stores import Stores, begun, replied, said, talk


def test_one_of_each_user_goes_before_a_second_one_of_any() -> None:
    queue = FairQueue[str]()
    for item in ("a1", "a2", "a3", "b1", "c1", "b2"):
        queue.put(item[0], item)
    assert [queue.take() for _ in range(len(queue))] == ["a1", "b1", "c1", "a2", "b2", "a3"]
    assert len(queue) == 0


def test_who_comes_later_is_behind_one_of_each_other() -> None:
    queue = FairQueue[str]()
    for item in ("a1", "a2", "a3"):
        queue.put("a", item)
    taken = [queue.take()]
    queue.put("b", "b1")
    assert taken + [queue.take() for _ in range(3)] == ["a1", "a2", "b1", "a3"]


async def _holding(slots: FairSlots, user: str, held: list[str]) -> None:
    await slots.take(user)
    held.append(user)


async def test_slots_are_given_in_turn_between_users() -> None:
    slots, held = FairSlots(2), list[str]()
    asking = [asyncio.create_task(_holding(slots, user, held)) for user in "aaaaabbc"]
    await asyncio.sleep(0)
    assert held == ["a", "a"]
    for _ in range(6):
        slots.release()
    await asyncio.gather(*asking)
    assert held == ["a", "a", "a", "b", "c", "a", "b", "a"]
    assert not slots.take_at_once()
    slots.release()
    assert slots.take_at_once()


async def test_who_gives_up_in_line_or_when_called_leaves_the_slot_to_the_next_one() -> None:
    slots, held = FairSlots(1), list[str]()
    await slots.take("a")
    asking = {user: asyncio.create_task(_holding(slots, user, held)) for user in "bcd"}
    await asyncio.sleep(0)
    asking["b"].cancel()  # it stands in line
    await asyncio.sleep(0)
    slots.release()
    asking["c"].cancel()  # it is called in this instant
    await asyncio.gather(*asking.values(), return_exceptions=True)
    assert held == ["d"]
    slots.release()
    assert slots.take_at_once()


_CROWD = 300


@proves("G13")
async def test_a_turn_is_kept_before_most_of_what_another_user_began_in_a_moment(stores: Stores) -> None:
    if stores.url is None:
        pytest.skip("nothing waits in memory")
    store, begun_before = await stores.open(), 0
    await talk(store.history("alice", "mine"), "Hello")

    async def begin(history: SessionHistory) -> None:
        nonlocal begun_before
        turn = await begun(history, said("x"), wait_s=30)
        begun_before += 1
        await is_over.wait()
        await turn.end(replied())

    is_over = asyncio.Event()
    crowd = [asyncio.create_task(begin(store.history("mallory", f"s{number}"))) for number in range(_CROWD)]
    await asyncio.sleep(0)
    await talk(store.history("alice", "mine"), "And now?")
    count = begun_before
    is_over.set()
    await asyncio.gather(*crowd)
    assert count < _CROWD / 3, "they went first"


@proves("G13")
async def test_a_long_session_is_taken_in_beside_the_event_loop(stores: Stores) -> None:
    if stores.url is None:
        pytest.skip("nothing is written down in memory")
    store, at = await stores.open(), now()
    answer = [AIMessage("x") for _ in range(1000)]
    turns = [
        Turn(
            turn_id=f"t{number}", status=TurnStatus.COMPLETE, chain="chat", started_at=at, ended_at=at,
            input=[HumanMessage("x")], output=answer,
        )
        for number in range(30)
    ]  # fmt: skip
    await store.history("alice", "short").restore(turns[:1], title="t", created_at=at)  # all is connected now
    loop, everything = time.thread_time(), time.process_time()
    await store.history("alice", "long").restore(turns, title="t", created_at=at)
    loop, everything = time.thread_time() - loop, time.process_time() - everything
    assert loop < everything / 3

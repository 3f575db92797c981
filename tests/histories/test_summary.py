"""A summary of a session's beginning is kept with it, and never outlives what it speaks of."""

from __future__ import annotations

from dataclasses import replace

import pytest

from histories.base import HistoryStore, SessionHistory, SessionNotFound, Summary, now
from tests.stores import begun, replied, said, talk


async def summed_up(history: SessionHistory, turn_id: str, text: str = "They spoke of dogs.") -> Summary:
    """A summary up to that turn."""
    summary = Summary(text, turn_id, (await history.turn(turn_id)).started_at, now(), "small")
    await history.set_summary(summary)
    return summary


async def test_a_summary_is_read_as_it_was_written_replaced_and_forgotten(history: SessionHistory) -> None:
    assert await history.summary() is None
    ids = await talk(history, "one", "two")
    summary = await summed_up(history, ids[0], "A \ud800, a \0, a \n and a 犬.")
    assert await history.summary() == summary
    other = replace(summary, text="Another.", made_by="user")
    await history.set_summary(other)
    assert await history.summary() == other
    await history.set_summary(None)
    await history.set_summary(None)
    assert await history.summary() is None


async def test_an_absent_session_has_no_summary_and_takes_none(store: HistoryStore, history: SessionHistory) -> None:
    (turn_id,) = await talk(store.history("alice", "another"), "one")
    summary = await summed_up(store.history("alice", "another"), turn_id)
    for value in (summary, None):
        with pytest.raises(SessionNotFound):
            await history.set_summary(value)
    assert await history.summary() is None


async def test_it_stays_as_the_session_goes_on_and_goes_with_it(store: HistoryStore, history: SessionHistory) -> None:
    ids = await talk(history, "one", "two")
    summary = await summed_up(history, ids[0])
    await talk(history, "three")
    await history.rename("Another title")
    assert await history.summary() == summary
    assert await store.history("bob", "s1").summary() is None
    await history.delete()
    await talk(history, "one")
    assert await history.summary() is None


async def test_a_change_of_what_it_speaks_of_forgets_it_and_another_change_does_not(history: SessionHistory) -> None:
    ids = await talk(history, "one", "two", "three", "four", "five")
    summary = await summed_up(history, ids[1])
    await history.delete_turn(ids[4])
    await history.rewind(ids[3])
    version = await begun(history, said("another three", version_of=ids[2]))
    await version.end(replied())
    await history.choose(ids[2])
    assert await history.summary() == summary
    await history.rewind(ids[1])
    assert await history.summary() is None


@pytest.mark.parametrize("change", ["delete", "version", "choose"])
async def test_what_is_deleted_or_shown_no_longer_is_not_summed_up(history: SessionHistory, change: str) -> None:
    ids = await talk(history, "one", "two", "three")
    if change == "choose":
        version = await begun(history, said("another one", version_of=ids[0]))
        await version.end(replied())
        ids[1:] = await talk(history, "another two")
    await summed_up(history, ids[1])
    if change == "delete":
        await history.delete_turn(ids[0])
    elif change == "choose":
        await history.choose(ids[0])
    else:
        await (await begun(history, said("another two", version_of=ids[1]))).end(replied())
    assert await history.summary() is None


async def test_a_fork_takes_it_along_if_it_has_all_that_it_speaks_of(
    store: HistoryStore, history: SessionHistory
) -> None:
    ids = await talk(history, "one", "two", "three")
    summary = await summed_up(history, ids[1])
    await history.fork("longer", ids[1])
    await history.fork("shorter", ids[0])
    assert await store.history("alice", "longer").summary() == summary
    assert await store.history("alice", "shorter").summary() is None

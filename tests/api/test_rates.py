"""Rates: what a user may ask for, over all servers that share a storage; and what is said when it is too much."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from limits.aio.storage import MemoryStorage, Storage

from api.counters import FileCounters
from api.quotas import QuotaRules, Quotas
from api.rates import RateRules, Rates, open_counters
from histories.memory import MemoryStore
from tests.calls import call, said
from tests.echo_model import USAGE, EchoModel
from tests.live_server import langserve_warns, serve_here, wait_for
from tests.stores import KINDS, talk
from turns.shares import OverBudget, OverQuota

pytestmark = langserve_warns


@pytest.fixture(params=["memory", "file", "redis", "postgres"])
async def storages(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[list[Storage]]:
    """What two servers count in."""
    if request.param == "memory":
        yield [MemoryStorage()] * 2
        return
    if request.param in ("redis", "postgres"):
        stores = KINDS[request.param](request, tmp_path)
        assert stores.url is not None
        yield [open_counters(stores.url, tmp_path, await stores.open()) for _ in range(2)]
        await stores.close()
        return
    files = [FileCounters(tmp_path / "rates.sqlite") for _ in range(2)]
    yield list[Storage](files)
    for file in files:
        file.close()


async def test_requests_are_counted_over_all_who_share_a_storage(storages: list[Storage]) -> None:
    one, other = (Rates(RateRules(requests_per_minute=3), storage) for storage in storages)
    await one.request("alice")
    await other.request("alice")
    left = await one.request("alice")
    assert left is not None
    assert left["left"] == 0
    with pytest.raises(OverBudget) as refused:
        await other.request("alice")
    assert 1 <= refused.value.retry_after_s <= 60
    await other.request("bob")


async def test_the_tokens_of_a_turn_are_reserved_and_then_set_right(storages: list[Storage]) -> None:
    rates, other = (Rates(RateRules(tokens_per_day=1500), storage) for storage in storages)
    async with rates.turn("alice", 10, lambda: 700), other.turn("alice", 10, lambda: 700):
        with pytest.raises(OverBudget):
            async with other.turn("alice", 10, lambda: 0):
                pass
        async with other.turn("bob", 10, lambda: 0):
            pass
    [left] = await rates.left("alice")
    assert left["left"] == 100
    async with rates.turn("alice", 10, lambda: 100):
        pass
    with pytest.raises(OverBudget):
        async with rates.turn("alice", 10, lambda: 0):
            pass


async def test_a_storage_that_fails_limits_nobody(tmp_path: Path) -> None:
    rates = Rates(RateRules(requests_per_minute=1, copies_per_minute=1, tokens_per_day=1), FileCounters(tmp_path))
    await rates.copy("alice")
    await rates.copy("alice")
    async with rates.turn("alice", 1, lambda: 1):
        pass


def test_clients_are_told_what_is_left_and_when_to_come_back(tmp_path: Path) -> None:
    limits: dict[str, Any] = {"requests_per_minute": 5, "tokens_per_day": 1_000}
    with serve_here(tmp_path, model=EchoModel(), history_url="memory:", **limits) as server:
        with server.client("alice") as alice:
            assert said(call(alice, "one", "s")) == "one."
            me = alice.get("/me")
            assert me.headers["RateLimit-Limit"] == "5"
            assert me.headers["RateLimit-Remaining"] == "3"
            tokens = next(one for one in me.json()["limits"] if one["limit"] == "tokens a day")
            assert (tokens["of"], tokens["left"]) == (1000, 1000 - USAGE["total_tokens"])
            answers = [alice.get("/sessions") for _ in range(4)]
            assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
            assert 1 <= int(answers[-1].headers["Retry-After"]) <= 60
            assert "too many requests" in answers[-1].json()["detail"]
            assert answers[-1].headers["RateLimit-Limit"] == "5"
            assert answers[-1].headers["RateLimit-Reset"] == answers[-1].headers["Retry-After"]
        with server.client("bob") as bob:
            assert bob.get("/sessions").status_code == 200


def test_who_has_used_up_the_tokens_of_a_day_is_told_before_a_stream_opens(tmp_path: Path) -> None:
    limits: dict[str, Any] = {"tokens_per_day": USAGE["total_tokens"], "requests_per_minute": 1000}
    with serve_here(tmp_path, model=EchoModel(), history_url="memory:", **limits) as server, server.client() as alice:
        assert said(call(alice, "one", "s")) == "one."
        answer = call(alice, "two", "s", way="stream")
        assert answer.status_code == 429
        assert int(answer.headers["Retry-After"]) > 0
        assert answer.headers["RateLimit-Limit"] == str(USAGE["total_tokens"])
        assert (answer.headers["RateLimit-Remaining"], answer.headers["RateLimit-Reset"]) == (
            "0",
            answer.headers["Retry-After"],
        )
        assert alice.get("/sessions/s").json()["turns"] == 1


def test_wrong_credentials_from_one_address_are_refused_after_some_and_good_ones_pass(tmp_path: Path) -> None:
    with serve_here(tmp_path, model=EchoModel(), history_url="memory:", sign_ins_per_minute=3) as server:
        with server.client(None) as nobody:
            assert [nobody.get("/me").status_code for _ in range(5)] == [401] * 5  # who shows none tries none
            wrong = {"Authorization": "Bearer rk_wrong"}
            tries = [nobody.get("/me", headers=wrong) for _ in range(4)]
            assert [answer.status_code for answer in tries] == [401, 401, 401, 429]
            assert int(tries[-1].headers["Retry-After"]) > 0
            assert nobody.post("/login", data={"key": "wrong"}, headers={"Origin": server.url}).status_code == 429
        with server.client("alice") as alice:
            assert alice.get("/me").json() == {"user_id": "alice"}


def test_forks_and_imports_are_bounded(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"history_url": "memory:", "copies_per_minute": 2}
    with serve_here(tmp_path, model=EchoModel(), **settings) as server, server.client("alice") as alice:
        call(alice, "one", "s", turn_id="t")
        bodies = [{"session_id": f"f{number}", "turn_id": "t"} for number in range(3)]
        assert [alice.post("/sessions/s/fork", json=body).status_code for body in bodies] == [201, 201, 429]


def test_forks_and_imports_are_bounded_in_bytes(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"copied_bytes_per_minute": 20_000}
    with serve_here(tmp_path, model=EchoModel(), **settings) as server, server.client("alice") as alice:
        call(alice, "x" * 15_000, "s", turn_id="t")
        bodies = [{"session_id": f"f{number}", "turn_id": "t"} for number in range(3)]
        told = [alice.post("/sessions/s/fork", json=body) for body in bodies]
        assert [answer.status_code for answer in told] == [201, 429, 429]
        exported = alice.get("/sessions/f0/export").json()
        assert alice.post("/sessions/import", json={**exported, "session_id": "copy"}).status_code == 429
        assert 1 <= int(told[-1].headers["Retry-After"]) <= 60


# Quotas.


def test_who_keeps_as_many_conversations_as_allowed_gets_507_until_one_is_deleted(tmp_path: Path) -> None:
    with serve_here(tmp_path, model=EchoModel(), kept_sessions=2) as server, server.client("alice") as alice:
        assert [call(alice, "hello", name, turn_id="t").status_code for name in ("one", "two")] == [200, 200]
        refused = call(alice, "hello", "three", way="stream")
        assert (refused.status_code, "delete some" in refused.json()["detail"]) == (507, True)
        assert call(alice, "more", "one").status_code == 200
        assert alice.post("/sessions/one/fork", json={"session_id": "f", "turn_id": "t"}).status_code == 507
        exported = alice.get("/sessions/one/export").json()
        assert alice.post("/sessions/import", json={**exported, "session_id": "copy"}).status_code == 507
        [left] = alice.get("/me").json()["limits"]
        assert left == {"limit": "sessions kept", "of": 2, "left": 0}
        assert alice.delete("/sessions/two").status_code == 204
        wait_for(lambda: call(alice, "hello", "three").status_code == 200, "room")
        with server.client("bob") as bob:
            assert call(bob, "hello", "three").status_code == 200


def test_turns_and_bytes_that_are_kept_are_bounded_and_a_retry_needs_no_room(tmp_path: Path) -> None:
    limits: dict[str, Any] = {"kept_turns": 2, "kept_bytes": 1_000_000}
    with serve_here(tmp_path, model=EchoModel(), **limits) as server, server.client("alice") as alice:
        assert [call(alice, f"hello {n}", "s", turn_id=f"t{n}").status_code for n in range(3)] == [200, 200, 507]
        assert said(call(alice, "hello 1", "s", turn_id="t1")) == "hello 0, hello 1."
        assert alice.get("/sessions/s").json()["turns"] == 2
        assert next(one["left"] for one in alice.get("/me").json()["limits"]) == 0


async def test_bytes_that_are_kept_are_counted_anew_when_they_may_have_changed() -> None:
    store = MemoryStore()
    one, other = (Quotas(QuotaRules(size=2_000), store) for _ in range(2))
    await one.room("alice", "s")
    await talk(store.history("alice", "s"), "x" * 3_000)
    await one.room("alice", "s")  # what was counted a moment ago counts
    with pytest.raises(OverQuota, match="2000 bytes"):
        await other.room("alice", "s")
    await other.room("bob", "s")

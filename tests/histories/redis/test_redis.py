"""What is Redis's own: leases, fences and lines between servers; what becomes of turns when Redis fails."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage

from histories.base import (
    HistoryDamaged,
    HistoryStore,
    NewTurn,
    OpenTurn,
    Reply,
    SessionBusy,
    StoreFull,
    StoreUnavailable,
    Turn,
    TurnStatus,
    now,
)
from histories.memory import MemoryStore
from histories.redis.store import RedisStore
from tests.redis_holder import USER, whole_turn
from tests.redis_server import SECRET, Cluster, NoServer, RedisServer
from tests.tcp_proxy import Proxy, certificate

ROOT = Path(__file__).parents[3]
REPLY = Reply(status=TurnStatus.COMPLETE, output=[AIMessage("an answer")], tokens=2)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A server that the test may do anything to."""
    server = RedisServer()
    try:
        server.start()
        yield server
    except NoServer as reason:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(reason))
    finally:
        server.remove()


@pytest.fixture
async def store(server: RedisServer) -> AsyncIterator[RedisStore]:
    async with opened(server.url) as store:
        yield store


@asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[RedisStore]:
    store = RedisStore(url, **options)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def through(proxy: Proxy, server: RedisServer) -> str:
    """The server's URL, by way of the proxy."""
    return server.url.replace(str(server.port), str(proxy.port))


async def begun(store: HistoryStore, session: str = "s", words: str = "a question", **options: Any) -> OpenTurn:
    turn = await store.history(USER, session).begin(NewTurn(input=[HumanMessage(words)], tokens=3), **options)
    assert isinstance(turn, OpenTurn)
    return turn


async def record(store: HistoryStore, session: str = "s") -> list[tuple[str, list[object], list[object]]]:
    """The session's turns: status, what was said, what was answered."""
    turns = (await store.history(USER, session).turns(limit=1000)).items
    return [(t.status.value, [m.content for m in t.input], [m.content for m in t.output]) for t in turns]


class Holder:
    """Another server on the same Redis, in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def send(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())
        await self.process.stdin.drain()

    async def answer(self) -> str:
        assert self.process.stdout is not None
        return (await asyncio.wait_for(self.process.stdout.readline(), 30)).decode().strip()

    async def ask(self, line: str) -> str:
        await self.send(line)
        return await self.answer()


@asynccontextmanager
async def holder(url: str) -> AsyncIterator[Holder]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.redis_holder", cwd=ROOT,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        other = Holder(process)
        assert await other.ask(url) == "ready"
        yield other
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def until(condition: Any, limit_s: float = 5.0) -> None:
    """Waits until `condition()` holds."""
    async with asyncio.timeout(limit_s):
        while not condition():
            await asyncio.sleep(0.01)


# One turn at a time, across servers


async def test_a_holder_paused_for_longer_than_its_lease_never_writes(server: RedisServer, store: RedisStore) -> None:
    async with holder(server.url) as other:
        assert await other.ask("begin s theirs") == "begun"
        os.kill(other.process.pid, signal.SIGSTOP)
        ours = await begun(store, words="ours", wait_s=10)
        await other.send("end too-late")
        os.kill(other.process.pid, signal.SIGCONT)
        assert await other.answer() == "TurnLost"
        await ours.end(REPLY)
    assert await record(store) == [("interrupted", ["theirs"], []), ("complete", ["ours"], ["an answer"])]


async def test_a_dead_holders_session_takes_its_next_turn_within_5_s(server: RedisServer, store: RedisStore) -> None:
    async with holder(server.url) as other, holder(server.url) as waiter:
        assert await other.ask("begin s theirs") == "begun"
        await waiter.send("begin s never")
        await until(lambda: len(line_of(server)) == 1)
        waiter.process.kill()
        other.process.kill()
        died = time.monotonic()
        ours = await begun(store, words="ours", wait_s=10)
        assert time.monotonic() - died < 5
        await ours.end(REPLY)
    turns = (await store.history(USER, "s").turns()).items
    assert await record(store) == [("interrupted", ["theirs"], []), ("complete", ["ours"], ["an answer"])]
    assert turns[0].ended_at is not None
    assert line_of(server) == ""


def line_of(server: RedisServer) -> Any:
    with server.client() as client:
        return json.loads(client.get(f"recollect:{{{USER}}}:line:s") or '""')


async def test_turns_of_one_session_from_two_servers_run_in_order_and_see_all_before(
    server: RedisServer, store: RedisStore
) -> None:
    async with holder(server.url) as one, holder(server.url) as two, opened(server.url) as third:
        await one.send("many s 24 one")
        await two.send("many s 24 two")
        ours = await asyncio.gather(*(whole_turn((store, third)[n % 2], "s", f"three-{n}") for n in range(24)))
        theirs = [int(word) for other in (one, two) for word in (await other.answer()).split()]
    assert sorted([*ours, *theirs]) == list(range(72))
    turns = await record(store)
    assert all(turn == ("complete", turn[1], [f"heard {turn[1][0]}"]) for turn in turns)
    for name, count in (("one", 24), ("two", 24)):
        said = [str(turn[1][0]) for turn in turns if str(turn[1][0]).startswith(name)]
        assert said == [f"{name}-{n}" for n in range(count)]


async def test_who_waits_in_another_server_is_not_overtaken(store: RedisStore, server: RedisServer) -> None:
    async with opened(server.url) as other:
        first = await begun(store)
        waiting = asyncio.create_task(begun(other, words="second", wait_s=10))
        await until(lambda: len(line_of(server)) == 1)
        third = asyncio.create_task(begun(store, words="third", wait_s=10))
        await first.end(REPLY)
        with pytest.raises(SessionBusy):
            await begun(store, words="never", wait_s=0)
        await (await waiting).end(REPLY)
        await (await third).end(REPLY)
    assert [turn[1] for turn in await record(store)] == [["a question"], ["second"], ["third"]]


async def test_who_gives_up_waiting_is_out_of_the_line(store: RedisStore, server: RedisServer) -> None:
    async with opened(server.url) as other:
        first = await begun(store)
        with pytest.raises(SessionBusy):
            await begun(other, wait_s=0.1)
        assert line_of(server) == ""
        cancelled = asyncio.create_task(begun(other, wait_s=10))
        await until(lambda: len(line_of(server)) == 1)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert line_of(server) == ""
        await first.end(REPLY)
        await (await begun(other, wait_s=0)).end(REPLY)
    assert len(await record(store)) == 2


async def test_a_live_holder_keeps_its_session_for_longer_than_a_lease(store: RedisStore, server: RedisServer) -> None:
    async with opened(server.url) as other:
        turn = await begun(store)
        with pytest.raises(SessionBusy):
            await begun(other, wait_s=4.5)
        await turn.end(REPLY)
    assert await record(store) == [("complete", ["a question"], ["an answer"])]


async def test_a_retry_of_a_turn_that_runs_elsewhere_is_refused_at_once_even_behind_a_waiter(
    store: RedisStore, server: RedisServer
) -> None:
    new = NewTurn(input=[HumanMessage("once")], turn_id="mine", given=True)
    async with opened(server.url) as other:
        turn = await store.history(USER, "s").begin(new)
        assert isinstance(turn, OpenTurn)
        waiting = asyncio.create_task(begun(other, wait_s=10))
        await until(lambda: len(line_of(server)) == 1)
        with pytest.raises(SessionBusy, match="turn_id"):
            await asyncio.wait_for(other.history(USER, "s").begin(new, wait_s=30), 1)
        await turn.end(REPLY)
        again = await other.history(USER, "s").begin(new)
        assert isinstance(again, Turn)
        assert [m.content for m in again.output] == ["an answer"]
        await (await waiting).end(REPLY)


async def test_stop_reaches_the_server_that_runs_the_turn(store: RedisStore, server: RedisServer) -> None:
    stopped = asyncio.Event()
    turn = await begun(store, on_stop=stopped.set)
    async with opened(server.url) as other:
        assert await other.history(USER, "s").stop()
        await asyncio.wait_for(stopped.wait(), 1)
        await turn.end(REPLY)
        assert not await other.history(USER, "s").stop()


async def test_a_user_of_few_rights_waits_and_stops_by_the_heartbeat(store: RedisStore, server: RedisServer) -> None:
    rights = ("~recollect:*", "resetchannels", "+@read", "+@write", "+@scripting", "+@connection", "+time")
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "app", "on", ">pw", *rights)
    stopped = asyncio.Event()
    url = f"redis://app:pw@127.0.0.1:{server.port}"
    async with opened(url) as one, opened(url) as other:
        turn = await begun(one, on_stop=stopped.set)
        waiting = asyncio.create_task(begun(other, wait_s=10))
        await until(lambda: len(line_of(server)) == 1)
        assert await other.history(USER, "s").stop()
        await asyncio.wait_for(stopped.wait(), 2)
        await turn.end(REPLY)
        await (await asyncio.wait_for(waiting, 2)).end(REPLY)


# Redis that fails


async def test_a_reply_is_saved_by_a_redis_that_comes_back_and_nobody_takes_its_turn(
    server: RedisServer, store: RedisStore
) -> None:
    async with opened(server.url) as other:
        turn = await begun(store)
        waiting = asyncio.create_task(begun(other, words="next", wait_s=20))
        await until(lambda: len(line_of(server)) == 1)
        server.kill()
        ending = asyncio.create_task(turn.end(REPLY))
        with pytest.raises(StoreUnavailable):
            await other.history(USER, "s").info()
        server.start()
        await ending
        await (await waiting).end(REPLY)
    assert await record(store) == [
        ("complete", ["a question"], ["an answer"]),
        ("complete", ["next"], ["an answer"]),
    ]


async def test_a_reply_that_no_redis_comes_back_for_is_an_error(server: RedisServer) -> None:
    async with opened(server.url, save_limit_s=0.3) as store:
        turn = await begun(store)
        server.kill()
        with pytest.raises(StoreUnavailable):
            await turn.end(REPLY)
        with pytest.raises(StoreUnavailable):
            await begun(store, wait_s=0)
        with pytest.raises(StoreUnavailable):
            await store.ping()
        server.start()
        await store.ping()
        await (await begun(store, words="after", wait_s=10)).end(REPLY)
        assert await record(store) == [("interrupted", ["a question"], []), ("complete", ["after"], ["an answer"])]


async def test_a_silent_redis_is_an_error_soon_to_all_who_ask(server: RedisServer, store: RedisStore) -> None:
    turn = await begun(store)
    new = RedisStore(server.url)
    server.pause()
    try:
        asked = [each.history(USER, str(n)).info() for n in range(100) for each in (store, new)]
        answers = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 7)
        assert all(isinstance(answer, StoreUnavailable) for answer in answers)
    finally:
        server.resume()
    await turn.end(REPLY)
    await new.close()
    assert await record(store) == [("complete", ["a question"], ["an answer"])]


async def test_a_store_opens_without_its_redis_and_works_when_it_is_there(server: RedisServer) -> None:
    server.kill()
    async with opened(server.url) as store:
        with pytest.raises(StoreUnavailable):
            await store.ping()
        server.start()
        await store.ping()
        assert await whole_turn(store, "s", "hello") == 0


async def test_a_reply_lost_on_its_way_is_not_a_second_turn(server: RedisServer) -> None:
    async with Proxy(server.port) as proxy, opened(server.url.replace(str(server.port), str(proxy.port))) as store:
        for cut in range(4):
            proxy.cut_replies = 1
            turn = await begun(store, words=str(cut), window_tokens=1000)
            assert len(turn.past) == 2 * cut
            proxy.cut_replies = 1
            await turn.end(REPLY)
            assert await record(store) == [("complete", [str(n)], ["an answer"]) for n in range(cut + 1)]
        assert proxy.cuts == 8
        assert (await store.history(USER, "s").info()).turns == 4


async def test_a_full_redis_refuses_turns_and_replies_and_loses_nothing(server: RedisServer, store: RedisStore) -> None:
    turn = await begun(store)
    with server.client() as client:
        client.config_set("maxmemory", 1)
        with pytest.raises(StoreFull):
            await turn.end(REPLY)
        with pytest.raises(StoreFull):
            await begun(store, words="never", wait_s=0)
        with pytest.raises(StoreFull):
            await store.ping()
        assert await record(store) == [("interrupted", ["a question"], [])]
        client.config_set("maxmemory", 0)
    await (await begun(store, words="after", wait_s=0)).end(REPLY)
    assert await record(store) == [("interrupted", ["a question"], []), ("complete", ["after"], ["an answer"])]


async def test_a_turn_goes_on_when_a_replica_is_promoted(server: RedisServer) -> None:
    """The old master is a replica by then, and does not hang up: what its name leads to has to be looked up again."""
    replica = RedisServer()
    try:
        replica.start()
        with replica.client() as new, server.client() as old:
            new.replicaof("127.0.0.1", str(server.port))
            async with (
                Proxy(server.port) as name,
                opened(server.url.replace(str(server.port), str(name.port))) as store,
            ):
                await (await begun(store)).end(REPLY)
                turn = await begun(store, words="over two masters")
                await until(lambda: new.get(f"recollect:{{{USER}}}:lease:s") is not None)
                new.replicaof("NO", "ONE")
                old.replicaof("127.0.0.1", str(replica.port))
                name.target = replica.port
                await turn.end(REPLY)
                assert await whole_turn(store, "s", "after") == 2
                assert (await store.history(USER, "s").info()).turns == 3
    finally:
        replica.remove()


# What it costs


async def test_a_turn_takes_two_round_trips(server: RedisServer, store: RedisStore) -> None:
    await whole_turn(store, "s", "first")  # connections, scripts
    with server.client() as client:

        def calls() -> int:
            stats = client.info("commandstats")
            return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("evalsha", "eval"))

        before = calls()
        assert await whole_turn(store, "s", "second") == 1
        assert calls() - before == 2


async def test_a_turn_of_a_long_history_reads_its_window_alone(server: RedisServer, store: RedisStore) -> None:
    long = "x" * 500
    turns = [
        Turn(turn_id=str(n), status=status, chain="", started_at=now(), input=[HumanMessage(long)],
             output=[AIMessage(long)], tokens=300)
        for n in range(2000)
        for status in (TurnStatus.COMPLETE if n < 1000 else TurnStatus.FAILED,)
    ]  # fmt: skip
    await store.history(USER, "s").restore(turns, title="long", created_at=now())
    with server.client() as client:

        def sent() -> int:
            return int(client.info("stats")["total_net_output_bytes"])

        before = sent()
        overhead = sent() - before
        turn = await begun(store, window_tokens=3000)
        await turn.end(REPLY)
        assert 10 <= len(turn.past) <= 20
        assert sent() - before - 2 * overhead < 20_000


async def test_the_window_is_that_of_every_store(store: RedisStore) -> None:
    draw, memory = random.Random(7), MemoryStore()
    for n in range(40):
        limit, asked, answered = draw.choice((1, 7, 30)), draw.randrange(5), draw.randrange(9)
        status = draw.choice((TurnStatus.COMPLETE, TurnStatus.INTERRUPTED, TurnStatus.FAILED))
        output = [AIMessage(f"a{n}")] if draw.random() < 0.8 else []
        pasts = []
        for each in (store, memory):
            turn = await each.history(USER, "s").begin(
                NewTurn(input=[HumanMessage(f"q{n}")], tokens=asked), window_tokens=limit
            )
            assert isinstance(turn, OpenTurn)
            pasts.append(turn.past)
            await turn.end(Reply(status=status, output=output, tokens=answered))
        assert pasts[0] == pasts[1]


@pytest.mark.parametrize("damage", ["", "nonsense", "complete\n-\n{}\nnonsense", "complete\n-\n{}\n[]\n[]"])
async def test_damaged_messages_are_said_to_be_so_and_hold_nothing_up(
    server: RedisServer, store: RedisStore, damage: str
) -> None:
    await (await begun(store)).end(REPLY)
    with server.client() as client:
        (key,) = client.scan_iter(match="*:session:s")
        client.hset(key, "e1", damage)
    with pytest.raises(HistoryDamaged):
        await begun(store, window_tokens=100)
    await (await begun(store, wait_s=0)).end(REPLY)


async def test_sessions_of_the_same_microsecond_are_all_listed(store: RedisStore) -> None:
    at = now()
    for n in range(7):
        await store.history(USER, f"s{n}").restore([], title="t", created_at=at)
    found, cursor = list[str](), None
    while True:
        page = await store.sessions(USER, limit=2, cursor=cursor)
        found += [session.session_id for session in page.items]
        cursor = page.next
        if cursor is None:
            break
    assert found == [f"s{n}" for n in reversed(range(7))]


async def test_an_import_that_broke_off_leaves_nothing_for_long(server: RedisServer, store: RedisStore) -> None:
    turns = [
        Turn(
            turn_id=str(n), status=TurnStatus.COMPLETE, chain="", started_at=now(), input=[HumanMessage("x" * 900_000)]
        )
        for n in range(10)
    ]
    with server.client() as client:
        client.config_set("maxmemory", int(client.info("memory")["used_memory"]) + 6_000_000)
        with pytest.raises(StoreFull):
            await store.history(USER, "s").restore(turns, title="t", created_at=now())
        left = client.keys("*new-*")
        assert left
        assert all(client.pttl(key) > 0 for key in left)
        client.config_set("maxmemory", 0)
    assert (await store.sessions(USER)).items == []
    await store.history(USER, "s").restore(turns, title="t", created_at=now())
    assert (await store.history(USER, "s").info()).turns == 10


# What it says, and to whom


async def test_no_error_and_no_log_says_the_password(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    said = []
    urls = {
        "wrong password": f"redis://:{SECRET}-not@127.0.0.1:{server.port}",
        "nobody there": f"redis://:{SECRET}@127.0.0.1:1",
    }
    for url in urls.values():
        async with opened(url.replace("%", "%25")) as store:
            with pytest.raises(StoreUnavailable) as refused:
                await store.ping()
            said += [str(refused.value), repr(refused.value.__cause__), str(refused.value.__cause__), repr(store)]
    with pytest.raises(ValueError) as unreadable:
        RedisStore(f"redis://:{SECRET}/2@host")
    said += [str(unreadable.value), caplog.text]
    assert unreadable.value.__suppress_context__
    assert not any("a-secret" in text for text in said)


async def test_a_server_that_would_forget_is_warned_of_once(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(server.url):
        assert caplog.text == ""
    with server.client() as client:
        client.config_set("appendonly", "no")
        client.config_set("maxmemory", 10**9)
        client.config_set("maxmemory-policy", "allkeys-lru")
    async with opened(server.url) as store:
        await store.ping()
        assert [record.getMessage().partition(" has ")[2][:14] for record in caplog.records][:1] == ["appendonly off"]
        assert "allkeys-lru" in caplog.text
        assert len(caplog.records) == 2


async def test_histories_work_over_tls(server: RedisServer, tmp_path: Path) -> None:
    authority, context = certificate(tmp_path)
    async with Proxy(server.port, tls=context) as proxy:
        url = through(proxy, server).replace("redis://", "rediss://")
        async with opened(f"{url}?ssl_ca_certs={authority}") as store:
            assert await whole_turn(store, "s", "hello") == 0
        async with opened(url) as store:
            with pytest.raises(StoreUnavailable):
                await store.ping()


async def test_a_store_serves_several_event_loops(store: RedisStore) -> None:
    history = store.history(USER, "s")
    await asyncio.gather(
        *(asyncio.to_thread(history.add_messages, [HumanMessage(str(n)), AIMessage("yes")]) for n in range(3)),
        *(whole_turn(store, "s", f"three-{n}") for n in range(3)),
    )
    assert len(await asyncio.to_thread(lambda: history.messages)) == 12


# A cluster


async def test_users_of_a_cluster_have_the_same_guarantees(cluster: Cluster) -> None:
    async with opened(cluster.url) as one, opened(cluster.nodes[2].url) as other:
        for user in ("alice", "bob", "carol", "a}b{", "", "\ud800"):
            histories = [store.history(user, "s{1}") for store in (one, other)]
            turn = await histories[0].begin(NewTurn(input=[HumanMessage("first")]))
            assert isinstance(turn, OpenTurn)
            waiting = asyncio.create_task(histories[1].begin(NewTurn(input=[HumanMessage("second")], turn_id="two")))
            await turn.end(REPLY)
            second = await waiting
            assert isinstance(second, OpenTurn)
            await second.end(REPLY)
            await histories[1].fork("copy", "two")
            await histories[0].rewind("two")
            assert [s.turns for s in (await other.sessions(user)).items] == [1, 2]
            assert len((await one.sessions(user, query="second")).items) == 1
            await one.forget(user)
            assert (await other.sessions(user)).items == []


async def test_a_dead_node_of_a_cluster_stops_its_own_users_alone(cluster: Cluster) -> None:
    async with opened(cluster.url) as store:
        users = [f"user-{n}" for n in range(12)]
        with cluster.client() as client:
            ports = {u: client.get_node_from_key(f"recollect:{{{u}}}:").port for u in users}
        assert len(set(ports.values())) == 3
        for user in users:
            await store.history(user, "s").aadd_messages([HumanMessage("hello"), AIMessage("hello")])
        dead = cluster.nodes[1]
        dead.kill()
        with pytest.raises(StoreUnavailable):
            await store.history(next(u for u in users if ports[u] == dead.port), "s").info()
        dead.start()
        for user in users:
            await retried(lambda user=user: store.history(user, "s").info())
            assert len(await store.history(user, "s").aget_messages()) == 2


async def retried(work: Any) -> None:
    """Until it is not unavailable any more."""
    async with asyncio.timeout(10):
        while True:
            with suppress(StoreUnavailable):
                await work()
                return
            await asyncio.sleep(0.05)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    cluster = Cluster()
    try:
        cluster.start()
        yield cluster
    except NoServer as reason:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(reason))
    finally:
        cluster.remove()

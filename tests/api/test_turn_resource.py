"""A turn over real HTTP: asked for and let go, watched from anywhere, come back to, and told after a crash."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from tests.calls import call, said, text_in
from tests.live_server import Here, Live, langserve_warns, serve_here, start, wait_for
from tests.openai_stub import Gate, OpenAIStub

pytestmark = langserve_warns
ASYNC = {"Prefer": "respond-async"}
WORDS = "[[n 6]]"
REPLY = "w0 w1 w2 w3 w4 w5"


class Heard(NamedTuple):
    """One server-sent event."""

    name: str
    seq: int | None
    data: Any


def heard(lines: Iterable[str]) -> Generator[Heard]:
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        if line:
            fields[name] = value
        elif "event" in fields:
            data, seq = fields.get("data"), fields.get("id")
            yield Heard(fields["event"], int(seq) if seq else None, json.loads(data) if data else None)
            fields = {}


def text(events: Iterable[Heard]) -> str:
    return "".join(text_in(event.data) for event in events if event.name == "data")


def seqs(events: Iterable[Heard]) -> list[int | None]:
    return [event.seq for event in events if event.name == "data"]


@pytest.fixture(scope="module")
def stub() -> Iterator[OpenAIStub]:
    with OpenAIStub() as stub:
        yield stub


@pytest.fixture(scope="module", params=["file:", "memory:"])
def server(
    stub: OpenAIStub, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Here]:
    folder = tmp_path_factory.mktemp("turns")
    with serve_here(folder, openai_base_url=stub.base_url, history_url=request.param) as server:
        yield server


@pytest.fixture(scope="module")
def alice(server: Here) -> Iterator[httpx.Client]:
    with server.client("alice") as client:
        yield client


@pytest.fixture(scope="module")
def pair(stub: OpenAIStub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Here, Here]]:
    """Two servers that share a folder of files."""
    folder = tmp_path_factory.mktemp("pair")
    with (
        serve_here(folder, openai_base_url=stub.base_url) as one,
        serve_here(folder, openai_base_url=stub.base_url) as other,
    ):
        yield one, other


@contextmanager
def held(stub: OpenAIStub, after: int = 2) -> Iterator[Gate]:
    """Replies are held back after so many tokens, until they are released, or the block ends."""
    gate = stub.pause_after(after)
    try:
        yield gate
    finally:
        gate.release()
        stub.gate = None


def accepted(client: httpx.Client, session: str, words: str = WORDS, turn_id: str = "t") -> httpx.Response:
    """A turn that goes on by itself."""
    config = {"configurable": {"session_id": session, "turn_id": turn_id}}
    return client.post("/chat/invoke", json={"input": {"input": words}, "config": config}, headers=ASYNC)


def stream_of(client: httpx.Client, session: str, turn_id: str = "t", **query: Any) -> list[Heard]:
    response = client.get(f"/sessions/{session}/turns/{turn_id}/stream", params=query)
    assert response.status_code == 200, response.text
    return list(heard(response.text.split("\r\n")))


# A turn that is asked for, let go, and asked for later.


def test_a_background_turn_is_accepted_and_then_holds_its_reply(alice: httpx.Client, stub: OpenAIStub) -> None:
    with held(stub) as gate, ThreadPoolExecutor(1) as pool:
        response = accepted(alice, "back ground", turn_id="t 1")
        place = response.headers["location"]
        assert (response.status_code, place) == (202, "/sessions/back%20ground/turns/t%201")
        assert response.headers["preference-applied"] == "respond-async"
        assert response.json() == {"session_id": "back ground", "turn_id": "t 1"}
        assert alice.get(place).json()["status"] == "running"
        assert alice.get("/sessions/back ground").json()["running"] == "t 1"
        assert alice.get(place, params={"wait": 0.05}).json()["status"] == "running"
        waiting = pool.submit(alice.get, place, params={"wait": 30})
        gate.wait()
        gate.release()
        turn = waiting.result(60).json()
    assert (turn["status"], text_in(turn["output"][0]["data"])) == ("complete", REPLY)
    assert alice.get(place).json() == turn
    assert alice.get("/sessions/back ground").json()["running"] is None


def test_a_wait_elsewhere_ends_with_the_turn(pair: tuple[Here, Here], stub: OpenAIStub) -> None:
    with held(stub) as gate, pair[0].client() as here, pair[1].client() as there, ThreadPoolExecutor(1) as pool:
        place = accepted(here, "wait").headers["location"]
        waiting = pool.submit(there.get, place, params={"wait": 30})
        gate.wait()
        gate.release()
        assert waiting.result(60).json()["status"] == "complete"


def test_a_turn_that_is_refused_is_not_accepted(alice: httpx.Client) -> None:
    assert accepted(alice, "a/b").status_code == 422
    config = {"configurable": {"session_id": "s", "on_disconnect": "never"}}
    refused = alice.post("/chat/invoke", json={"input": {"input": "x"}, "config": config}, headers=ASYNC)
    assert (refused.status_code, "grace, finish, stop" in refused.text) == (422, True)


# What a turn says, and from where on.


@pytest.mark.parametrize("chain", ["chat", "tutor"])
def test_a_stream_numbers_what_it_says_and_names_its_turn(alice: httpx.Client, chain: str) -> None:
    response = call(alice, WORDS, f"named {chain}", chain=chain, way="stream")
    first, *events, end = heard(response.text.split("\r\n"))
    assert (first.name, end.name, text(events)) == ("metadata", "end", REPLY)
    assert first.data["session_id"] == f"named {chain}"
    assert seqs(events) == list(range(len(events)))
    (turn,) = alice.get(f"/sessions/named {chain}/turns").json()["turns"]
    assert first.data["turn_id"] == turn["turn_id"]
    assert first.data["started_at"] == turn["started_at"]
    assert set(first.data) == {"run_id", "session_id", "turn_id", "started_at"}


@pytest.mark.parametrize("chain", ["chat", "tutor"])
def test_a_turn_that_has_ended_is_replayed_after_every_event(alice: httpx.Client, chain: str) -> None:
    session = f"replay {chain}"
    response = call(alice, "[[slow 0.01]] " + WORDS, session, chain=chain, way="stream", turn_id="t")
    spoken = [event for event in heard(response.text.split("\r\n")) if event.name == "data"]
    for after in range(-1, len(spoken) + 1):
        headers = {"Last-Event-ID": str(after)} if after >= 0 else {}
        answer = alice.get(f"/sessions/{session}/turns/t/stream", headers=headers)
        first, *rest, end = heard(answer.text.split("\r\n"))
        assert (first.data["turn_id"], end.name) == ("t", "end")
        if rest and rest[0].data == {"restart": True}:
            assert (chain, text(rest)) == ("tutor", REPLY)  # some of what comes after the text was heard
        else:
            assert text(spoken[: after + 1]) + text(rest) == REPLY
        assert seqs(rest) == ([len(spoken) - 1] if after < len(spoken) - 1 else [])
        assert stream_of(alice, session, after=after)[1:] == [*rest, end]


@pytest.mark.parametrize("where", [0, 1])
def test_a_running_turn_is_watched_from_its_beginning_and_from_any_event(
    pair: tuple[Here, Here], stub: OpenAIStub, where: int
) -> None:
    session = f"watched {where}"
    with (
        held(stub) as gate,
        pair[0].client() as asking,
        pair[where].client() as watching,
        ThreadPoolExecutor(2) as pool,
    ):
        asked = pool.submit(call, asking, WORDS, session, way="stream", turn_id="t")
        gate.wait()
        wait_for(lambda: watching.get(f"/sessions/{session}/turns/t").status_code == 200, "the turn")
        assert watching.get(f"/sessions/{session}").json()["running"] == "t"
        place = f"/sessions/{session}/turns/t/stream"
        later = pool.submit(stream_of, watching, session, after=0)
        with watching.stream("GET", place, params={"live": True}) as whole:
            assert whole.status_code == 200
            gate.release()
            own, rest = list(heard(asked.result(60).text.split("\r\n"))), later.result(60)
            everything = list(heard(whole.read().decode().split("\r\n")))
    assert text(everything) == text(own) == REPLY
    assert {**everything[0].data, "run_id": own[0].data["run_id"]} == own[0].data
    assert text(own[1:2]) + text(rest) == REPLY
    assert (everything[-1].name, rest[-1].name) == ("end", "end")


def test_with_live_a_turn_that_does_not_run_is_204(alice: httpx.Client) -> None:
    call(alice, WORDS, "live", turn_id="t")
    response = alice.get("/sessions/live/turns/t/stream", params={"live": True})
    assert (response.status_code, response.content) == (204, b"")


def test_what_is_someone_elses_is_absent(server: Here, alice: httpx.Client, stub: OpenAIStub) -> None:
    with held(stub) as gate, server.client("bob") as bob, server.client(None) as nobody:
        accepted(alice, "mine")
        gate.wait()
        for path in ("/sessions/mine/turns/t", "/sessions/mine/turns/t/stream"):
            assert bob.get(path, params={"wait": 1}).status_code == 404
            assert nobody.get(path).status_code == 401
            assert alice.get(path.replace("turns/t", "turns/x")).status_code == 404
            assert alice.get(path.replace("mine", "other")).status_code == 404


@pytest.mark.parametrize("last", ["-1", "x", "1 2", "9" * 20, "²"])
def test_what_is_no_event_is_422(alice: httpx.Client, last: str) -> None:
    call(alice, WORDS, "no event", turn_id="t")
    headers = {b"Last-Event-ID": last.encode()}
    assert alice.get("/sessions/no event/turns/t/stream", headers=headers).status_code == 422


def test_who_comes_back_to_another_try_of_a_turn_is_told(alice: httpx.Client) -> None:
    call(alice, "[[fail 500]]", "anew", turn_id="t")
    began = alice.get("/sessions/anew/turns/t").json()["started_at"]
    (error,) = [event for event in stream_of(alice, "anew", started_at=began) if event.name == "error"]
    assert error.data["status_code"] == 502
    call(alice, WORDS, "anew", turn_id="t")
    again = alice.get("/sessions/anew/turns/t/stream", params={"after": 3, "started_at": began})
    assert (again.status_code, "begun anew" in again.json()["detail"]) == (409, True)
    began = alice.get("/sessions/anew/turns/t").json()["started_at"]
    assert text(stream_of(alice, "anew", started_at=began)) == REPLY


# A retry joins.


@pytest.mark.parametrize("way", ["stream", "invoke"])
@pytest.mark.parametrize("where", [0, 1])
def test_a_retry_of_a_running_turn_joins_it(pair: tuple[Here, Here], stub: OpenAIStub, where: int, way: str) -> None:
    session, asked = f"joined {where} {way}", len(stub.requests)
    with held(stub) as gate, pair[0].client() as here, pair[where].client() as again, ThreadPoolExecutor(2) as pool:
        first = pool.submit(call, here, WORDS, session, way="stream", turn_id="t")
        gate.wait()
        joining = pool.submit(call, again, WORDS, session, way=way, turn_id="t")
        gate.release()
        assert said(first.result(60), "stream") == said(joining.result(60), way) == REPLY
        if way == "stream":
            began = {next(heard(one.result().text.split("\r\n"))).data["started_at"] for one in (first, joining)}
            assert began == {here_turns(pair[0], session)[0]["started_at"]}
    assert len(stub.requests) == asked + 1
    assert len(here_turns(pair[where], session)) == 1


def here_turns(server: Live, session: str) -> list[dict[str, Any]]:
    with server.client() as client:
        return list(client.get(f"/sessions/{session}/turns").json()["turns"])


def test_a_client_that_was_cut_off_comes_back_for_the_rest(pair: tuple[Here, Here], stub: OpenAIStub) -> None:
    body = {"input": {"input": WORDS}, "config": {"configurable": {"session_id": "cut", "turn_id": "t"}}}
    with held(stub) as gate, pair[0].client() as client, pair[1].client() as back, ThreadPoolExecutor(1) as pool:
        first: list[Heard] = []
        with client.stream("POST", "/chat/stream", json=body) as response:
            for event in heard(response.iter_lines()):
                first.append(event)
                if event.name == "data":
                    break
        rest = pool.submit(stream_of, back, "cut", after=first[-1].seq)
        gate.release()
        assert text(first) + text(rest.result(60)) == REPLY
    (turn,) = here_turns(pair[0], "cut")
    assert turn["status"] == "complete"


def begin_and_leave(client: httpx.Client, session: str, watcher: Callable[[], None] = lambda: None) -> None:
    """Asks for a stream, and hangs up when it has said something, after `watcher` was called."""
    body = {"input": {"input": WORDS}, "config": {"configurable": {"session_id": session, "turn_id": "t"}}}
    with (
        client.stream("POST", "/chat/stream", json=body) as response,
        closing(heard(response.iter_lines())) as events,  # held: httpx hangs up when its iterator goes
    ):
        next(event for event in events if event.name == "data")
        watcher()


def test_a_turn_goes_on_for_who_listens_at_another_server(tmp_path: Path, stub: OpenAIStub) -> None:
    settings: dict[str, Any] = {"openai_base_url": stub.base_url, "grace_s": 0.05}
    with (
        held(stub) as gate,
        serve_here(tmp_path, **settings) as one,
        serve_here(tmp_path, **settings) as other,
        one.client() as asking,
        other.client() as watching,
        ThreadPoolExecutor(1) as pool,
    ):
        whole: list[Future[list[Heard]]] = []

        def watch() -> None:
            whole.append(pool.submit(stream_of, watching, "watched"))
            wait_for(lambda: list(tmp_path.rglob("*.heard")), "word that somebody listens")

        begin_and_leave(asking, "watched", watch)
        begin_and_leave(asking, "forsaken")
        wait_for(lambda: here_turns(one, "forsaken")[0]["status"] == "interrupted", "the end of the other turn")
        assert here_turns(one, "watched")[0]["status"] == "running"
        gate.release()
        assert text(whole[0].result(60)) == REPLY


# A server that dies.


def test_after_a_kill_what_was_sent_is_on_the_record_and_watchers_are_told_the_end(
    tmp_path: Path, stub: OpenAIStub
) -> None:
    words = "[[slow 0.06]] " + WORDS  # so that each word is an event
    body = {"input": {"input": words}, "config": {"configurable": {"session_id": "s", "turn_id": "t"}}}
    with (
        held(stub, after=3) as gate,
        serve_here(tmp_path, openai_base_url=stub.base_url) as other,
        start(tmp_path, OPENAI_BASE_URL=stub.base_url, OPENAI_API_KEY="none") as dying,
        dying.client() as client,
        other.client() as watcher,
        ThreadPoolExecutor(1) as pool,
    ):
        first: list[Heard] = []
        with client.stream("POST", "/chat/stream", json=body) as response:
            for event in heard(response.iter_lines()):
                first.append(event)
                if text(first) == "w0 w1 w2 ":
                    break
            gate.wait()
            watching = pool.submit(stream_of, watcher, "s")
            dying.kill()
        everything = watching.result(60)
        rest = stream_of(watcher, "s", after=0)
        turn = watcher.get("/sessions/s/turns/t").json()
        assert watcher.get("/sessions/s").json()["running"] is None
        gate.release()
        again = said(call(watcher, WORDS, "s", way="stream", turn_id="t"), "stream")
    assert len(first) > 2
    assert text(everything) == text(first[:2]) + text(rest) == text(first) == text_in(turn["output"][0]["data"])
    for events in (everything, rest):
        (error,) = [event for event in events if event.name == "error"]
        assert events[-1] is error
        assert (error.data["status_code"], "'t'" in error.data["message"]) == (503, True)
    assert (turn["status"], turn["finish_reason"], again) == ("interrupted", "crashed", REPLY)

"""What the model is shown over a long conversation: nothing wipes it, and what matters comes back."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from langchain_core.messages import AnyMessage

from chains import Chain
from histories.memory import MemoryStore
from tests.calls import call, error_of, said
from tests.live_server import langserve_warns, serve_here, wait_for
from tests.openai_stub import OpenAIStub, text_of
from tests.openai_stub_wire import Reply
from tests.stores import KINDS

pytestmark = langserve_warns

LOG = "\n".join(f"12:00:{n % 60:02} worker {n % 7} handled a request in {n} ms" for n in range(260))  # 12 kB
MONDAY = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _recall_has_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is what is recalled that is looked at here; a loaded machine takes longer than a turn waits for it."""
    monkeypatch.setattr("turns.recall.RECALL_S", 10.0)
    monkeypatch.setattr("turns.summary.RECALL_S", 10.0)


@pytest.fixture
def stub() -> Iterator[OpenAIStub]:
    with OpenAIStub() as stub:
        stub.reply = lambda messages: "All right."
        yield stub


@contextmanager
def serving(folder: Path, stub: OpenAIStub, **rest: Any) -> Iterator[tuple[httpx.Client, httpx.Client]]:
    """A server on the stub, which is a model that nobody has heard of, and two of its users."""
    places = {} if "history_url" in rest else {"store": MemoryStore()}
    with (
        serve_here(folder, openai_base_url=stub.base_url, model_name="small", **{**places, **rest}) as server,
        server.client() as alice,
        server.client("bob") as bob,
    ):
        yield alice, bob


def prompt(stub: OpenAIStub) -> list[str]:
    """The texts that the model was shown last."""
    return [text_of(message) for message in stub.requests[-1].messages]


@pytest.fixture(params=list(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def url(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return KINDS[kind](request, tmp_path).url or "memory:"


def test_a_name_outlives_a_paste_of_12_kb(url: str, stub: OpenAIStub, tmp_path: Path) -> None:
    with serving(tmp_path, stub, history_url=url) as (alice, _):
        for words in ("My name is Ada.", LOG, "Summarise it.", "And what is my name?"):
            said(call(alice, words, "s"))
    shown = prompt(stub)
    assert "My name is Ada." in shown
    assert any(text.startswith("12:00:00 worker 0") and "are left out here" in text for text in shown)
    assert shown[-1] == "And what is my name?"


def long_ago(turns: int, fact: str) -> dict[str, Any]:
    """An export with a fact in its third turn, then other things."""
    talk = ["How is the weather?", "What's for lunch?", fact]
    talk += [f"Let us talk about topic number {n}, with some words about it." for n in range(turns - 3)]
    return {
        "version": 1,
        "session_id": "s",
        "title": "Monday",
        "created_at": MONDAY.isoformat(),
        "turns": [
            {
                "turn_id": f"t{n}",
                "status": "complete",
                "chain": "chat",
                "started_at": (MONDAY + timedelta(minutes=n)).isoformat(),
                "input": [{"type": "human", "data": {"content": words}}],
                "output": [{"type": "ai", "data": {"content": "I see."}}],
            }
            for n, words in enumerate(talk)
        ],
    }


def test_what_was_said_two_hundred_turns_ago_is_there_when_it_matters(
    url: str, stub: OpenAIStub, tmp_path: Path
) -> None:
    with serving(tmp_path, stub, history_url=url) as (alice, bob):
        bob.post("/sessions/import", json=long_ago(5, "Our dog is called Bello.")).raise_for_status()
        alice.post("/sessions/import", json=long_ago(203, "We named our dogs Rex and Lou.")).raise_for_status()
        said(call(alice, "What name did I give the dog?", "s"))
        turn = alice.get("/sessions/s/turns?limit=1").json()["turns"][0]
    *window, memory, question = prompt(stub)
    assert question == "What name did I give the dog?"
    assert "Rex and Lou" in memory
    assert "Monday, 02 March 2026" in memory
    assert "Bello" not in memory
    assert not any("Rex" in text for text in window)
    assert {"session_id": "s", "turn_id": "t2"}.items() <= turn["recalled"][0].items()


def test_a_question_that_was_asked_forty_times_hides_no_fact(url: str, stub: OpenAIStub, tmp_path: Path) -> None:
    export = long_ago(300, "Our dog is called Rex.")
    for number, turn in enumerate(export["turns"][20:60]):
        turn["input"][0]["data"]["content"] = "What is the dog called?"
        turn["output"][0]["data"]["content"] = "I see." if number % 2 else f"I don't know, {number}."
    with serving(tmp_path, stub, history_url=url) as (alice, _):
        alice.post("/sessions/import", json=export).raise_for_status()
        said(call(alice, "What is the dog called?", "s"))
    memory = prompt(stub)[-2]
    assert "Rex" in memory
    assert 1 <= memory.count("What is the dog called?") <= 2


@pytest.mark.parametrize("message", [f"{LOG}\n\nWhat is our dog called?", f"What is our dog called? See:\n{LOG}"])
def test_who_pastes_a_log_is_understood_by_what_stands_around_it(
    message: str, url: str, stub: OpenAIStub, tmp_path: Path
) -> None:
    with serving(tmp_path, stub, history_url=url, window_tokens=12_000) as (alice, _):
        alice.post("/sessions/import", json=long_ago(1500, "Our dog is called Rex.")).raise_for_status()
        for number in range(8):  # the user's other sessions make these words less rare than the log's
            said(call(alice, f"What is the dog called, once more? {number}", "another"))
        said(call(alice, message, "s"))
    assert "Rex" in prompt(stub)[-2]
    assert prompt(stub)[-1] == message


def test_what_a_fork_has_taken_along_is_recalled_once(stub: OpenAIStub, tmp_path: Path) -> None:
    with serving(tmp_path, stub, recall="user") as (alice, _):
        alice.post("/sessions/import", json=long_ago(5, "Our dog is called Rex.")).raise_for_status()
        alice.post("/sessions/s/fork", json={"session_id": "f", "turn_id": "t4"}).raise_for_status()
        said(call(alice, "What is the dog called?", "another"))
    assert prompt(stub)[-2].count("Rex") == 1


def test_recall_reaches_over_all_sessions_or_none_as_is_said(stub: OpenAIStub, tmp_path: Path) -> None:
    for recall, found in (("user", True), ("session", False), ("off", False)):
        with serving(tmp_path, stub, recall=recall) as (alice, _):
            alice.post("/sessions/import", json=long_ago(5, "Our dog is called Rex.")).raise_for_status()
            said(call(alice, "What is the dog called?", "another"))
        assert any("Rex" in text for text in prompt(stub)) is found


def _bare(name: str, recall: Any) -> Chain:
    return Chain(name=name, build=lambda model: model, input_type=list[AnyMessage], recall=recall, description=name)


def test_what_a_chain_says_of_recall_goes_before_the_setting(stub: OpenAIStub, tmp_path: Path) -> None:
    chains = [_bare("off", "off"), _bare("here", "session"), _bare("everywhere", "user")]
    with serving(tmp_path, stub, chains=chains, recall="user") as (alice, _):
        alice.post("/sessions/import", json=long_ago(250, "Our dog is called Rex.")).raise_for_status()
        asked = [("off", "s", False), ("off", "t", False), ("here", "s", True), ("here", "u", False)]
        for chain, session, found in [*asked, ("everywhere", "v", True)]:
            question = {"type": "human", "content": "What is the dog called?"}
            body = {"input": [question], "config": {"configurable": {"session_id": session}}}
            alice.post(f"/{chain}/invoke", json=body).raise_for_status()
            assert any("Rex" in text for text in prompt(stub)) is found, (chain, session)


def test_a_turn_that_was_rewound_is_not_recalled(stub: OpenAIStub, tmp_path: Path) -> None:
    with serving(tmp_path, stub, recall="user") as (alice, _):
        alice.post("/sessions/import", json=long_ago(5, "Our dog is called Rex.")).raise_for_status()
        said(call(alice, "What is the dog called?", "another"))
        assert any("Rex" in text for text in prompt(stub))
        alice.post("/sessions/s/rewind", json={"turn_id": "t2"}).raise_for_status()
        said(call(alice, "What is the dog called?", "a third"))
    assert not any("Rex" in text for text in prompt(stub))


@pytest.mark.parametrize("kind", ["file", "memory"])
def test_what_is_meant_is_recalled_where_there_is_a_milvus(url: str, stub: OpenAIStub, tmp_path: Path) -> None:
    vectors = {"recall_url": f"milvus:{tmp_path / 'vectors.db'}", "embeddings": f"m@{stub.base_url}"}
    with serving(tmp_path, stub, history_url=url, recall="user", **vectors) as (alice, bob):
        said(call(bob, "My hound Bello barks.", "s"))
        said(call(alice, "My hound Rex barks.", "s"))
        wait_for(lambda: len(stub.embedded) >= 3, "the vectors")

        def memory() -> str:
            said(call(alice, "Which puppy?", f"t{len(stub.requests)}"))
            return next((text for text in prompt(stub) if "Rex barks" in text), "")

        assert "Bello" not in wait_for(memory, "what is meant")
        alice.delete("/sessions").raise_for_status()
        said(call(alice, "Which puppy?", "u"))
        assert not any("Rex" in text for text in prompt(stub))
        stub.embeddings_status = 500
        said(call(alice, "And the puppy?", "u"))


class CountingStore(MemoryStore):
    recalls = 0

    async def recall(self, *args: Any, **kwargs: Any) -> Any:
        self.recalls += 1
        return await super().recall(*args, **kwargs)


def test_nothing_is_looked_for_as_long_as_all_of_the_session_is_shown(stub: OpenAIStub, tmp_path: Path) -> None:
    store, looked = CountingStore(), list[tuple[int, bool]]()
    with serving(tmp_path, stub, store=store, window_tokens=800) as (alice, _):
        for n in range(16):
            said(call(alice, f"Question {n}: {'some more words ' * 12}", "s"))
            looked.append((store.recalls, any("Question 0:" in text for text in prompt(stub)[:-2])))
    assert any(shown for _, shown in looked)
    assert all(not recalls for recalls, shown in looked if shown)
    assert looked[-1][0] > 0


class SlowStore(MemoryStore):
    async def recall(self, *args: Any, **kwargs: Any) -> Any:
        import asyncio

        await asyncio.Event().wait()


class BrokenStore(MemoryStore):
    async def recall(self, *args: Any, **kwargs: Any) -> Any:
        raise ZeroDivisionError


@pytest.mark.parametrize("store", [SlowStore, BrokenStore])
def test_a_recall_that_fails_costs_nothing_but_itself(
    store: type[MemoryStore], stub: OpenAIStub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("turns.recall.RECALL_S", 0.25)
    with serving(tmp_path, stub, store=store(), recall="user") as (alice, _):
        assert said(call(alice, "Hello?", "s")) == "All right."


HARD = {
    "digits": "3141592653 " * 900,
    "base64": base64.b64encode(bytes(range(256)) * 40).decode(),
    "Chinese": "我们今天讨论一下这个问题。" * 400,
    "emoji": "🙂🚀" * 1500,
}


@pytest.mark.parametrize("says", [True, False])
def test_no_text_makes_a_session_unusable_on_a_model_that_refuses_what_is_too_long(
    says: bool, stub: OpenAIStub, tmp_path: Path
) -> None:
    stub.context = 2_000
    if says:
        stub.model["meta"] = {"n_ctx": 2_000}
    with serving(tmp_path, stub) as (alice, _):
        for session, text in HARD.items():
            for part in (text[:1000], text[:1000], text[:400] * 3):
                said_or_told(call(alice, part, session))
            for n in range(8):
                assert said(call(alice, f"{text[:300]} and question {n}", session)) == "All right."


def said_or_told(response: httpx.Response) -> None:
    """It was answered, or its sender was told that it is too long."""
    if response.status_code != 200:
        status, told = error_of(response)
        assert status == 413
        assert "longer than the model can read" in told


def test_a_message_of_many_times_the_window_is_answered_or_413_and_the_session_goes_on(
    stub: OpenAIStub, tmp_path: Path
) -> None:
    stub.context = 2_000
    with serving(tmp_path, stub) as (alice, _):
        for times in (1, 10, 100, 1000):
            said(call(alice, f"My name is Ada {times}.", str(times)))
            said_or_told(call(alice, "word " * 700 * times, str(times), way="stream"))
            assert said(call(alice, "What is my name?", str(times))) == "All right."
            assert f"My name is Ada {times}." in prompt(stub)


def test_a_model_with_less_context_than_was_thought_is_asked_again_once_and_then_shown_less(
    stub: OpenAIStub, tmp_path: Path
) -> None:
    stub.context = 2_000
    with serving(tmp_path, stub) as (alice, _):
        counts = []
        for n in range(24):
            before = len(stub.requests)
            assert said(call(alice, f"Question {n}: " + "some more words " * 40, "s")) == "All right."
            counts.append(len(stub.requests) - before)
    assert max(counts) == 2
    assert counts.count(2) == 1


AGENT = Chain(name="bare", build=lambda model: model, input_type=list[AnyMessage], description="A bare model.")


def test_a_tools_answer_is_taken_after_a_long_question_and_fifty_results_of_20_kb_wipe_nothing(
    stub: OpenAIStub, tmp_path: Path
) -> None:
    stub.context = 4_000
    replies = iter([*[Reply(None, tool_calls=[("look", {"page": n})]) for n in range(50)]])
    stub.reply = lambda messages: next(replies, "Done.")
    with serving(tmp_path, stub, chains=[AGENT]) as (alice, _):
        config = {"configurable": {"session_id": "s"}}

        def ask(message: dict[str, Any]) -> httpx.Response:
            return alice.post("/bare/invoke", json={"input": [message], "config": config})

        ask({"type": "human", "content": "word " * 2000}).raise_for_status()
        for _ in range(50):
            ask({"type": "tool", "content": "result " * 200, "tool_call_id": "call_0"}).raise_for_status()
        told = ask({"type": "tool", "content": "result " * 3000, "tool_call_id": "nobody's"})
        assert error_of(told)[0] == 422
        last = ask({"type": "human", "content": "What was found?"})
    assert last.json()["output"]["content"] == "Done."


def test_who_serves_the_model_is_asked_once(stub: OpenAIStub, tmp_path: Path) -> None:
    stub.model["max_model_len"] = 2_000
    with serve_here(tmp_path, openai_base_url=stub.base_url, model_name="small", store=MemoryStore()) as server:
        assert stub.times_asked_for_models == 0
        with server.client() as alice:
            for n in range(3):
                said(call(alice, str(n), "s"))
    assert stub.times_asked_for_models == 1

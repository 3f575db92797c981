"""A chain that is built late: by its first call and no sooner, once, and with what is wrong with it told then."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable, RunnableLambda

from chains import Chain
from tests.echo_model import EchoModel
from tests.live_server import langserve_warns, serve_here
from turns.later import Later

pytestmark = langserve_warns


def late(build: Callable[[BaseChatModel], Any]) -> Chain:
    return Chain(name="late", build=build, input_type=str, output_type=str, memory=False, late=True)


@pytest.mark.parametrize("endpoint", ["invoke", "batch", "stream", "stream_log", "stream_events"])
def test_it_is_built_by_its_first_call_in_another_thread(tmp_path: Path, endpoint: str) -> None:
    built = list[str]()

    def build(model: BaseChatModel) -> Runnable[Any, Any]:
        built.append(threading.current_thread().name)
        return RunnableLambda(lambda text: text.upper())

    with serve_here(tmp_path, model=EchoModel(), chains=[late(build)]) as server, server.client() as client:
        assert client.get("/late/input_schema").status_code == 200
        assert built == []
        body = {"inputs": ["hello"]} if endpoint == "batch" else {"input": "hello"}
        for _ in range(2):
            answer = client.post(f"/late/{endpoint}", json=body)
            assert answer.status_code == 200, answer.text
            assert "HELLO" in answer.text
    assert len(built) == 1
    assert built[0].startswith("recollect-chains")


def test_what_keeps_it_from_being_built_is_told_and_the_next_call_tries_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tries = list[int]()

    def build(model: BaseChatModel) -> Runnable[Any, Any]:
        tries.append(1)
        if len(tries) == 1:
            raise KeyError("MY_KEY")
        return RunnableLambda(lambda text: text.upper())

    with serve_here(tmp_path, model=EchoModel(), chains=[late(build)]) as server, server.client() as client:
        failed = client.post("/late/invoke", json={"input": "hello"})
        assert failed.status_code == 502, failed.text
        assert "MY_KEY" not in failed.text
        assert "build fails: KeyError: 'MY_KEY'" in caplog.text
        assert client.post("/late/invoke", json={"input": "hello"}).json()["output"] == "HELLO"


def test_many_at_once_build_it_once() -> None:
    built, begun = list[int](), threading.Barrier(8)

    def build() -> Runnable[Any, Any]:
        built.append(1)
        return RunnableLambda(lambda text: text)

    later = Later(build)

    def ask() -> None:
        begun.wait(60)
        assert later.invoke("hello") == "hello"

    asking = [threading.Thread(target=ask) for _ in range(8)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join(60)
    assert built == [1]

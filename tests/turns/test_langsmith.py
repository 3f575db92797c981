"""LangSmith sees runs when its variables are set; without them nobody but the model hears anything."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.calls import STREAMS, call, said
from tests.langsmith_stub import LangSmithStub
from tests.live_server import ROOT, start, wait_for
from tests.openai_stub import OpenAIStub

SERVER = ROOT / "server.py"


@pytest.fixture(scope="module")
def stub() -> Iterator[OpenAIStub]:
    with OpenAIStub() as stub:
        yield stub


def test_a_traced_server_sends_the_run_with_the_history_in_it_and_what_its_user_thinks_of_it(
    stub: OpenAIStub, tmp_path: Path
) -> None:
    with LangSmithStub() as langsmith:
        with start(tmp_path, server=SERVER, OPENAI_BASE_URL=stub.base_url, **langsmith.environment()) as process:
            with process.client() as client:
                said(call(client, "one", "s", chain="tutor"))
                said(call(client, "two", "s", chain="tutor", way="stream"), "stream")
                (*_, turn) = client.get("/sessions/s/turns").json()["turns"]
                place = f"/sessions/s/turns/{turn['turn_id']}/feedback"
                assert client.put(place, json={"score": 1}).status_code == 204
                wait_for(lambda: langsmith.feedback, "the feedback")
                assert client.put(place, json={"score": -1, "comment": "Wrong."}).status_code == 204
                (told,) = langsmith.feedback.values()
                wait_for(lambda: told["score"] == -1, "the change of mind")
                assert "run_id" not in client.get("/sessions/s/export").text

            def is_second_turn(run: dict[str, object]) -> bool:
                asked = json.dumps(run.get("inputs"))
                return run.get("run_type") == "llm" and bool(run.get("outputs")) and "two" in asked

            run = langsmith.wait_for(is_second_turn)
            root = langsmith.wait_for(lambda run: run.get("id") == told["run_id"])
        assert (told["key"], told["comment"]) == ("user_score", "Wrong.")
        assert root.get("parent_run_id") is None
        assert "one | two" in json.dumps(root["outputs"])
        asked = json.dumps(run["inputs"])
        assert asked.index("math") < asked.index("one") < asked.index("You said: one") < asked.index("two")
        assert "one | two" in json.dumps(run["outputs"])
        assert langsmith.api_keys == {langsmith.environment()["LANGSMITH_API_KEY"]}
    assert "Traceback" not in process.output


def test_a_collector_that_is_gone_does_not_matter(stub: OpenAIStub, tmp_path: Path) -> None:
    with LangSmithStub() as langsmith:
        gone = langsmith.environment()
    with start(tmp_path, server=SERVER, OPENAI_BASE_URL=stub.base_url, **gone) as process, process.client() as client:
        assert "one" in said(call(client, "one", "s"))
        assert said(call(client, "two", "s", way="stream"), "stream").endswith("one | two")
        process.kill()  # it would try for a while to send the last runs


# Run by the server's Python before anything else: notes whom blocking sockets and look-ups are for.
WATCH = """
import os, sys

def note(event, values):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        with open(os.environ["CALLS"], "a") as calls:
            print(event, values[1] if event != "socket.getaddrinfo" else values[:2], file=calls)

sys.addaudithook(note)
"""


def test_without_the_variables_no_call_goes_out(stub: OpenAIStub, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(WATCH)
    calls = tmp_path / "calls.txt"
    calls.touch()
    with LangSmithStub() as langsmith:
        # Where the collector is, is known; but nobody turned tracing on.
        known = {name: value for name, value in langsmith.environment().items() if name != "LANGSMITH_TRACING"}
        watched = {**known, "PYTHONPATH": str(tmp_path), "CALLS": str(calls)}
        with (
            start(tmp_path, server=SERVER, OPENAI_BASE_URL=stub.base_url, **watched) as process,
            process.client() as client,
        ):
            for way in ("invoke", "batch", *STREAMS):
                said(call(client, "one", "s", way=way), way)
            connections = psutil.Process(process.process.pid).net_connections("inet")
            peers = {one.raddr.port for one in connections if one.status == psutil.CONN_ESTABLISHED}
            mine = {one.laddr.port for one in psutil.Process().net_connections("inet")}
            assert peers <= mine, "only this process is talked to: the model, and the client"
        assert langsmith.calls == []
    noted = [line for line in calls.read_text().splitlines() if "127.0.0.1" not in line]
    assert noted == []

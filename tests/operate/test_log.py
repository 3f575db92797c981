"""The log's lines: how they are written, and what becomes of them when they can't be."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from api.ops import logs
from tests.calls import call
from tests.live_server import launch, wait_for
from tests.openai_stub import OpenAIStub

log = logging.getLogger("recollect.requests")
FIELDS: list[dict[str, Any]] = [
    {"status": 200, "duration_ms": 1.25, "user": None},
    {"route": "/ü\n\x00", "half": "\ud800", "huge": 2**80, "other": Path("/x"), "nothing": ""},
    {"level": "debug", "event": "forged", "request_id": "of its own"},
]


@pytest.fixture
def heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Sets the log up as a server has it, on a file in the place of standard error; gives what is in it."""
    root, threshold = logging.getLogger(), logging.getLogger("recollect").level
    before = root.handlers[:]
    with (tmp_path / "log").open("w") as file:
        monkeypatch.setattr("sys.stderr", file)
        logs.configure("json", "info")

        def read() -> list[dict[str, Any]]:
            for handler in root.handlers:
                handler.flush()
            return [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]

        yield read
        logs.configure("json", "info", StringIO())
    root.handlers[:] = before
    logging.getLogger("recollect").setLevel(threshold)
    logging.captureWarnings(False)


@pytest.mark.parametrize("fields", FIELDS, ids=["plain", "hostile", "names of its own"])
def test_an_event_has_the_same_line_whoever_else_listens(
    heard: Callable[[], list[dict[str, Any]]], fields: dict[str, Any]
) -> None:
    for requested in (None, "0123"):
        token = logs.request_id.set(requested)
        logs.event(log, logging.INFO, "request", None, **fields)
        other = logging.StreamHandler(StringIO())
        log.addHandler(other)
        logs.event(log, logging.INFO, "request", None, **fields)
        log.removeHandler(other)
        logs.request_id.reset(token)
        assert "request" in other.stream.getvalue()
        alone, together = heard()[-2:]
        assert {**alone, "time": together["time"]} == together
        assert list(alone) == list(together)


def test_times_are_those_of_the_clock_to_the_millisecond(heard: Callable[[], list[dict[str, Any]]]) -> None:
    before = time.time()
    logs.event(log, logging.INFO, "request")
    (line,) = heard()
    at = datetime.fromisoformat(line["time"]).timestamp()
    assert before - 0.001 <= at <= time.time()


@pytest.fixture(scope="module")
def stub() -> Iterator[OpenAIStub]:
    with OpenAIStub() as stub:
        yield stub


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_log_that_takes_nothing_costs_nobody_their_turn(stub: OpenAIStub, tmp_path: Path, form: str) -> None:
    with (
        Path("/dev/full").open("wb") as full,
        launch(tmp_path, errors=full, OPENAI_BASE_URL=stub.base_url, RECOLLECT_LOG_FORMAT=form) as process,
        process.client() as client,
    ):
        assert call(client, "one", "s").status_code == 200
        stub.fail_with(401)
        assert call(client, "two", "s").status_code == 502  # it is logged with its traceback
        assert call(client, "three", "s").status_code == 200
        assert client.get("/nowhere").status_code == 404


@pytest.mark.usefixtures("heard")
def test_a_log_that_was_full_goes_on_and_says_how_many_lines_it_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with os.fdopen(writing, "w") as full, os.fdopen(reading, "rb", 0) as pipe:
        monkeypatch.setattr("sys.stderr", full)
        logs.configure("json", "info")
        for number in range(20):  # a pipe holds 64 KiB
            log.warning("%s %s", number, "x" * 6000)
        text = pipe.read(1 << 20)
        log.warning("room again")
        text += pipe.read(1 << 20)
        torn, whole = 0, list[dict[str, Any]]()
        for line in text.decode().splitlines():
            if line.endswith("}"):
                whole.append(json.loads(line))
            else:
                torn += 1
        numbers = [int(line["event"].split()[0]) for line in whole[:-2]]
        assert torn <= 1
        assert 5 < len(numbers) < 15
        assert numbers == list(range(len(numbers)))
        assert whole[-2]["event"] == "lines of the log were lost"
        assert whole[-2]["lines"] == 20 - len(numbers)
        assert whole[-1]["event"] == "room again"
        logs.configure("json", "info", StringIO())


def test_a_log_that_is_rotated_by_a_copy_goes_on_at_its_beginning(stub: OpenAIStub, tmp_path: Path) -> None:
    place = tmp_path / "log"
    with (
        place.open("wb") as file,
        launch(tmp_path, errors=file, OPENAI_BASE_URL=stub.base_url, RECOLLECT_LOG_FORMAT="json") as process,
        process.client() as client,
    ):
        client.get("/me")
        wait_for(lambda: '"/me"' in place.read_text(), "its line")
        os.truncate(place, 0)
        client.get("/healthz")
        wait_for(lambda: '"/healthz"' in place.read_text(), "the next line")
        lines = [json.loads(line) for line in place.read_text().splitlines()]
        assert [line["route"] for line in lines if line["event"] == "request"] == ["/healthz"]


def test_where_a_chain_failed_is_legible_whatever_people_said() -> None:
    def last_word(state: dict[str, Any]) -> str:
        return str(state["messages"][-1])

    said = "I have 2 messages, a secret, and last_word in test_log.py; return str(state"
    failures: list[Callable[[], Any]] = [
        lambda: last_word({}),
        lambda: int(said[:25]),
        lambda: compile(said[:25], "code", "exec"),
    ]
    texts = []
    for fail in failures:
        with pytest.raises((KeyError, ValueError, SyntaxError)) as raised:
            fail()
        texts.append(str(logs.in_words(raised.value, [said], content=False)))
    assert not any("secret" in text for text in texts)
    assert all(f'File "{__file__}", line ' in text for text in texts)
    assert 'return str(state["messages"][-1])' in texts[0]
    assert "KeyError: '[words]'" in texts[0]

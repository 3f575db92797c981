"""Titles by the model: `RECOLLECT_TITLES=model`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.calls import call, said
from tests.live_server import Here, langserve_warns, serve_here, wait_for
from tests.openai_stub import OpenAIStub
from turns.titles import title_in

pytestmark = langserve_warns
ASKED = "tell me all about the tides of the sea"


@pytest.fixture
def stub() -> Iterator[OpenAIStub]:
    with OpenAIStub() as stub:
        stub.reply = lambda messages: '"Tides."' if "titles" in str(messages[0]["content"]) else "They come and go."
        yield stub


@pytest.fixture
def server(stub: OpenAIStub, tmp_path: Path) -> Iterator[Here]:
    with serve_here(tmp_path, openai_base_url=stub.base_url, history_url="memory:", titles="model") as server:
        yield server


def title(server: Here) -> str:
    with server.client() as client:
        return str(client.get("/sessions/s").json()["title"])


def asked_for_titles(stub: OpenAIStub) -> int:
    return sum("titles" in str(request.body["messages"][0]["content"]) for request in stub.requests)


def test_a_conversation_gets_its_title_when_it_has_its_first_answer(server: Here, stub: OpenAIStub) -> None:
    with server.client() as client:
        said(call(client, ASKED, "s"))
        wait_for(lambda: title(server) == "Tides", "the title")
        said(call(client, "and the moon?", "s"))
        said(call(client, "a third", "s"))
        assert (title(server), asked_for_titles(stub)) == ("Tides", 1)


def test_a_title_that_its_user_gave_stays(server: Here, stub: OpenAIStub) -> None:
    with server.client() as client:

        def reply(messages: Sequence[Mapping[str, Any]]) -> str:
            if "titles" in str(messages[0]["content"]):
                client.patch("/sessions/s", json={"title": "Mine"})
            return "Tides"

        stub.reply = reply
        said(call(client, ASKED, "s"))
        wait_for(lambda: asked_for_titles(stub), "the model to be asked")
        said(call(client, "and the moon?", "s"))
        assert title(server) == "Mine"


def test_a_model_that_makes_no_title_costs_nothing(server: Here, stub: OpenAIStub) -> None:
    stub.reply = lambda messages: " \n" if "titles" in str(messages[0]["content"]) else "They come and go."
    with server.client() as client:
        said(call(client, ASKED, "s"))
        wait_for(lambda: asked_for_titles(stub), "the model to be asked")
        assert "They come" in said(call(client, "and the moon?", "s"))
        assert title(server) == ASKED


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("Title: **The Tides**\n\nIt is about tides.", "The Tides"),
        ("<think>Hm. Tides?</think>\n« Les marées »", "Les marées"),
        ("<think>never closed", ""),
        ("潮の満ち引き。", "潮の満ち引き"),
        ("word " * 40, "word word word word word word word word word word word word…"),
        ("\u202e\x00", ""),
    ],
)
def test_a_title_is_found_in_what_a_model_says(answer: str, found: str) -> None:
    assert title_in(answer) == found

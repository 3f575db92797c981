"""docs/streams.md: its Python does what it says, over connections that break."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from typing_extensions import override

from tests.live_server import ROOT, langserve_warns, serve_here
from tests.openai_stub import OpenAIStub

pytestmark = langserve_warns
PAGE = (ROOT / "docs" / "streams.md").read_text()
(SNIPPET,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


class Cut(httpx.SyncByteStream):
    """The start of a body."""

    def __init__(self, whole: Any, parts: int) -> None:
        self._whole, self._parts = whole, parts

    @override
    def __iter__(self) -> Iterator[bytes]:
        for number, part in enumerate(self._whole):
            if number == self._parts:
                raise httpx.ReadError("cut")
            yield part

    @override
    def close(self) -> None:
        self._whole.close()


class Cutting(httpx.HTTPTransport):
    """Breaks the first three streams off, the first of all before its first word."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    @override
    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = super().handle_request(request)
        self.asked.append(f"{request.method} {request.url.path}")
        parts = len(self.asked) - 1
        if parts < 3:
            response.stream = Cut(response.stream, parts)
        return response


def test_the_python_of_the_page_goes_on_with_a_stream_that_is_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cutting = Cutting()

    def cut(client: httpx.Client) -> httpx.Client:
        return httpx.Client(headers=client.headers, transport=cutting)

    with OpenAIStub() as stub, serve_here(tmp_path, openai_base_url=stub.base_url) as server:
        script = SNIPPET.replace("http://127.0.0.1:8000", server.url).replace(
            "Tell me a story.", "[[slow 0.1]] [[n 9]]"
        )
        script = script.replace("\nfor chunk in", "\nchain.sync_client = cut(chain.sync_client)\nfor chunk in")
        exec(compile(script, "streams.md", "exec"), {"KEY": server.key("alice"), "cut": cut})
        with server.client() as alice:
            (turn,) = alice.get("/sessions/stories/turns").json()["turns"]
    assert capsys.readouterr().out == "w0 w1 w2 w3 w4 w5 w6 w7 w8"
    place = f"GET /sessions/stories/turns/{turn['turn_id']}/stream"
    assert (cutting.asked[:2], set(cutting.asked[2:])) == (["POST /chat/stream"] * 2, {place})


def test_the_python_of_the_page_is_as_short_as_it_says() -> None:
    body = SNIPPET.split('"""\n', 1)[1].split("\n\nchain =")[0]
    assert len(body.splitlines()) <= 26

"""What every response says beside its body, and pages that need no internet."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.browser import chromium, person
from tests.echo_model import EchoModel
from tests.live_server import Here, langserve_warns, serve_here

pytestmark = langserve_warns
PATHS = [
    "/",
    "/login",
    "/healthz",
    "/docs",
    "/redoc",
    "/docs/swagger-ui.css",
    "/sessions",
    "/me",
    "/nothing",
    "/web/app.js",
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    with serve_here(tmp_path_factory.mktemp("headers"), model=EchoModel()) as server:
        yield server


def test_every_response_forbids_sniffing_and_framing_and_is_kept_by_nobody_unless_it_says_so(server: Here) -> None:
    with server.client() as client, server.client(None) as nobody:
        answers = [client.get(path) for path in [*PATHS, "/chat/playground/?new", "/openapi.json"]]
        answers += [nobody.get("/sessions"), client.post("/chat/invoke", content="{"), client.delete("/chat/invoke")]
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert "cache-control" in answer.headers
        assert "http" not in answer.headers["content-security-policy"]
        assert "strict-transport-security" not in answer.headers
    for path in ("/sessions", "/me", "/login"):
        assert next(answer for answer in answers if answer.url.path == path).headers["cache-control"] == "no-store"


def test_head_is_answered_wherever_get_is(server: Here) -> None:
    with server.client() as client:
        for path in [*PATHS, "/chat/input_schema", "/chains", "/openapi.json"]:
            get, head = client.get(path), client.head(path)
            assert (head.status_code, head.content) == (get.status_code, b""), path
            assert head.headers["content-type"] == get.headers["content-type"]


def test_a_wrong_method_is_told_all_the_right_ones(server: Here) -> None:
    with server.client() as client:
        assert client.put("/sessions/s").headers["allow"].split(", ") >= ["DELETE", "GET", "HEAD", "PATCH"]
        assert client.patch("/sessions").headers["allow"] == "DELETE, GET, HEAD"
        assert client.get("/chat/invoke").headers["allow"] == "POST"


def test_no_page_asks_anything_of_another_origin(server: Here) -> None:
    with chromium() as browser, person(browser, server) as alice:
        for path, shown in (("/docs", "/chat/invoke"), ("/redoc", "Recollect")):
            page = alice.open(path)
            page.get_by_text(shown).first.wait_for()

"""Behind a company's proxy: under /ai, with https in front, and with a front end on another origin."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from langchain_core.runnables import RunnableConfig
from langserve import RemoteRunnable
from playwright.sync_api import Browser, expect
from typing_extensions import override

from auth.links import Links
from tests.browser import WAIT_MS, ask, chromium, replies
from tests.calls import call
from tests.echo_model import EchoModel
from tests.live_server import Here, langserve_warns, serve_here
from tests.nginx import proxied, trusting
from tests.openai_stub import OpenAIStub

pytestmark = langserve_warns
ORIGIN = "https://front.example"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    with (
        OpenAIStub() as stub,
        serve_here(
            tmp_path_factory.mktemp("proxied"), openai_base_url=stub.base_url, root_path="/ai", cors_origins=ORIGIN
        ) as server,
    ):
        yield server


@pytest.fixture(scope="module")
def place(server: Here, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """The public URL, and the folder of its certificate."""
    folder = tmp_path_factory.mktemp("nginx") / "nginx"
    with proxied(folder, server.url, "/ai") as url:
        yield url, folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


def test_page_playgrounds_sign_in_and_documentation_stay_under_the_prefix(
    server: Here, place: tuple[str, Path], browser: Browser
) -> None:
    url, _ = place
    origin = url.removesuffix("/ai")
    context = browser.new_context(ignore_https_errors=True, locale="en-GB")
    context.set_default_timeout(WAIT_MS)
    outside, errors = list[str](), list[str]()
    context.on("request", lambda request: None if _is_inside(request.url, url) else outside.append(request.url))
    context.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page = context.new_page()
    page.goto(f"{url}/login?token={Links(server.data_dir).create('alice')}")
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_selector("#who:has-text('alice')", state="attached")
    (cookie,) = context.cookies()
    port = origin.rpartition(":")[2]
    assert (cookie["name"], cookie["path"], cookie["secure"]) == (f"__Secure-recollect-{port}-ai", "/ai", True)
    ask(page, "hello")
    assert replies(page)[-1].endswith("hello")
    links = page.eval_on_selector_all("a[href]", "all => all.map(one => one.href)")
    assert [link for link in links if not _is_inside(link, url)] == []
    for path in ("/chat/playground/", "/tutor/playground/"):
        page.goto(url + path)
        expect(page.locator("body")).to_contain_text("Playground", timeout=WAIT_MS)
    page.goto(f"{url}/docs")
    page.get_by_text("/chat/invoke").first.wait_for()
    page.goto(f"{url}/redoc")
    page.get_by_role("heading", name="Who am I?").first.wait_for()
    page.goto(url)
    page.locator("#account summary").click()
    page.get_by_role("button", name="Sign out").click()
    page.get_by_label("API key").wait_for()
    assert page.url == f"{url}/login"
    assert {cookie["name"] for cookie in context.cookies()} <= {"recollect_playground"}  # it opens nothing
    context.close()
    assert (outside, errors) == ([], [])


def _is_inside(address: str, url: str) -> bool:
    return address.startswith((f"{url}/", "data:", "blob:")) or address == url


def test_langserves_client_and_redirects_work_under_the_prefix(server: Here, place: tuple[str, Path]) -> None:
    url, folder = place
    config: RunnableConfig = {"configurable": {"session_id": "remote"}}
    remote: RemoteRunnable[Any, Any] = RemoteRunnable(
        f"{url}/chat", headers=server.headers("alice"), verify=trusting(folder)
    )
    assert str(remote.invoke({"input": "one"}, config)).endswith("one")
    assert "".join(remote.stream({"input": "two"}, config)).endswith("one | two")
    with httpx.Client(verify=trusting(folder), headers=server.headers("alice")) as client:
        assert client.get(f"{url}/chat/playground").headers["location"].startswith("/ai/chat/c/")
        assert client.get(f"{url}/openapi.json").json()["servers"] == [{"url": "/ai"}]
        answer = client.get(f"{url}/me")
        assert answer.json() == {"user_id": "alice"}
        assert answer.headers["strict-transport-security"].startswith("max-age=")
        assert client.get(f"{server.url}/me").json() == {"user_id": "alice"}  # without the proxy, and its prefix


def test_a_proxy_may_leave_the_prefix_on(server: Here, tmp_path: Path) -> None:
    folder = tmp_path / "nginx"
    with proxied(folder, server.url, "/ai", stripped=False) as url, httpx.Client(verify=trusting(folder)) as client:
        assert client.get(f"{url}/me", headers=server.headers("alice")).json() == {"user_id": "alice"}
        assert client.get(f"{url}/login").text.count('"/ai/login') == 2


def test_only_a_trusted_proxy_is_believed(tmp_path: Path) -> None:
    forged = {"X-Forwarded-Proto": "https"}
    for trusted, believed in (("10.0.0.1", False), ("127.0.0.0/8", True)):
        with serve_here(tmp_path, model=EchoModel(), trusted_proxies=trusted) as server, server.client() as client:
            assert ("strict-transport-security" in client.get("/me", headers=forged).headers) is believed


def test_a_front_end_of_another_origin_streams_with_a_key_and_never_with_a_cookie(server: Here) -> None:
    asked = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST"}
    asked["Access-Control-Request-Headers"] = "authorization,content-type"
    with server.client() as client, server.client(None) as nobody:
        may = nobody.options("/chat/stream", headers=asked)
        assert (may.status_code, may.headers["access-control-allow-origin"]) == (200, ORIGIN)
        assert "access-control-allow-credentials" not in may.headers
        client.headers["Origin"] = ORIGIN
        streamed = call(client, "one", "cors", way="stream")
        assert streamed.headers["access-control-allow-origin"] == ORIGIN
        assert "event: end" in streamed.text
        assert re.search("x-request-id", streamed.headers["access-control-expose-headers"], re.IGNORECASE)
        foreign = nobody.options("/chat/stream", headers={**asked, "Origin": "https://evil.example"})
        assert "access-control-allow-origin" not in foreign.headers


FRONT = """<!doctype html><title>front</title><script>
async function turn(url, options) {
  const response = await fetch(url + "/chat/stream", {
    method: "POST", ...options,
    body: JSON.stringify({input: {input: "one"}, config: {configurable: {session_id: "front"}}}),
  });
  let pieces = 0, text = "";
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let piece; !(piece = await reader.read()).done; pieces++) window.heard = text += piece.value;
  return {status: response.status, id: response.headers.get("x-request-id"), pieces, text};
}
</script>"""
BEGIN = "([url, options]) => { window.whole = turn(url, options); }"
TURN = "([url, options]) => turn(url, options).catch(error => String(error))"


class _FrontPage(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(FRONT.encode())

    @override
    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: it is no part of what is tested."""


@pytest.fixture
def front() -> Iterator[str]:
    """A front end's page, on an origin of its own."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _FrontPage) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_address[1]}"
        serving.shutdown()


def test_a_page_of_another_origin_streams_a_turn_in_a_browser_and_no_cookie_helps_it(
    front: str, browser: Browser, tmp_path: Path
) -> None:
    json_ = {"Content-Type": "application/json"}
    with (
        OpenAIStub() as stub,
        serve_here(tmp_path / "data", openai_base_url=stub.base_url, root_path="/ai", cors_origins=front) as server,
        proxied(tmp_path / "nginx", server.url, "/ai") as url,
        browser.new_context(ignore_https_errors=True) as context,
    ):
        context.set_default_timeout(WAIT_MS)
        page = context.new_page()
        page.goto(f"{url}/login?token={Links(server.data_dir).create('alice')}")
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_selector("#who:has-text('alice')", state="attached")

        page.goto(front)
        gate = stub.pause_after(3)
        page.evaluate(BEGIN, [url, {"headers": server.headers("bob") | json_}])
        gate.wait()
        page.wait_for_function("window.heard?.includes('event: data')")  # while the model still speaks
        gate.release()
        told = page.evaluate("window.whole")
        assert told["status"] == 200
        assert told["id"]
        assert told["pieces"] > 1
        assert "event: end" in told["text"]
        # Alice's browser holds a cookie of that host, and the front end asks for it to be sent.
        assert "Failed to fetch" in page.evaluate(TURN, [url, {"headers": json_, "credentials": "include"}])
        assert "Failed to fetch" in page.evaluate(TURN, [url, {"credentials": "include"}])  # without a preflight
        told = page.evaluate(TURN, [url, {"headers": server.headers("bob") | {"X-Own": "x"}}])
        assert "Failed to fetch" in told  # a header that is not on the list
        with server.client("alice") as client:
            assert client.get("/sessions").json()["sessions"] == []
        with server.client("bob") as client:
            assert [one["session_id"] for one in client.get("/sessions").json()["sessions"]] == ["front"]

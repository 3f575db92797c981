"""The page's search, where there is more to look through than a search has time for."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from playwright.sync_api import Route, expect

from tests.browser import ask, chromium, person, titles
from tests.live_server import langserve_warns, serve_here
from tests.openai_stub import OpenAIStub

pytestmark = langserve_warns


def test_a_search_that_ran_out_of_time_goes_on_by_itself_until_it_finds_something(tmp_path: Path) -> None:
    asked = list[str]()

    def late(route: Route) -> None:
        """As a server answers that has looked through some of many conversations."""
        query = parse_qs(urlsplit(route.request.url).query)
        if "q" not in query:
            route.fallback()
            return
        asked.append(query.get("cursor", [""])[0])
        if len(asked) < 3:
            route.fulfill(content_type="application/json", body=json.dumps({"sessions": [], "next": f"c{len(asked)}"}))
        else:
            route.continue_(url=route.request.url.replace("cursor=c2", "cursor="))

    with (
        OpenAIStub() as stub,
        serve_here(tmp_path, openai_base_url=stub.base_url, history_url="memory:") as server,
        chromium() as browser,
        person(browser, server) as alice,
    ):
        ask(alice.page, "a slow snail")
        alice.page.get_by_role("link", name="New").click()
        ask(alice.page, "a quick fox")
        alice.page.route("**/sessions?**", late)
        alice.page.get_by_label("Search conversations").fill("snail")
        expect(alice.page.locator("#list li")).to_have_count(1)
        assert titles(alice.page) == ["a slow snail"]
        assert asked[:3] == ["", "c1", "c2"]

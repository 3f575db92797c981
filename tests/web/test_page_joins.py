"""The chat page in a real browser: a reply that is being written is followed from wherever its reader is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.browser import ask, chromium, person, replies
from tests.live_server import Here, langserve_warns, serve_here
from tests.openai_stub import OpenAIStub

pytestmark = langserve_warns
WHOLE = "You said: long story. I have seen 1 user messages: long story"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def stub() -> Iterator[OpenAIStub]:
    with OpenAIStub() as stub:
        yield stub


@pytest.fixture
def server(stub: OpenAIStub, tmp_path: Path) -> Iterator[Here]:
    with serve_here(tmp_path, openai_base_url=stub.base_url) as server:
        yield server


def writes(page: Page) -> None:
    expect(page.locator(".reply .words")).to_have_text(re.compile("^You said"))
    expect(page.get_by_text("Writing…")).to_be_visible()


def has_all(page: Page) -> None:
    expect(page.locator(".reply .rendered")).to_have_text(WHOLE)
    expect(page.locator("#turns > li")).to_have_count(1)
    expect(page.get_by_text("Interrupted")).to_be_hidden()
    expect(page.locator("#send")).to_be_visible()


def test_a_reload_another_tab_and_another_device_follow_a_reply_to_its_end(
    browser: Browser, server: Here, stub: OpenAIStub
) -> None:
    with person(browser, server) as alice, person(browser, server) as phone:
        gate = stub.pause_after(3)
        ask(alice.page, "long story", wait=False)
        gate.wait()
        writes(alice.page)
        place = alice.page.evaluate("location.pathname + location.hash")
        tab, other = alice.open(place), phone.open(place)
        alice.page.reload()
        for page in (alice.page, tab, other):
            writes(page)
        gate.release()
        for page in (alice.page, tab, other):
            has_all(page)


def test_a_tab_that_is_still_opening_does_not_mind_what_another_one_tells_it(browser: Browser, server: Here) -> None:
    with person(browser, server) as alice:
        ask(alice.page, "one")
        held, tab = list[Route](), alice.context.new_page()
        tab.route("**/chains", lambda route: held.append(route))
        with tab.expect_request("**/chains"):
            tab.goto(alice.page.evaluate("location.pathname + location.hash"))
        tab.evaluate("new BroadcastChannel('recollect').onmessage = () => document.body.classList.add('told')")
        ask(alice.page, "two")
        tab.wait_for_selector("body.told")
        held[0].continue_()
        expect(tab.locator(".reply .rendered")).to_have_count(2)


def test_a_tab_that_is_open_follows_what_another_one_asks_and_may_stop_it(
    browser: Browser, server: Here, stub: OpenAIStub
) -> None:
    with person(browser, server) as alice:
        ask(alice.page, "one")
        tab = alice.open(alice.page.evaluate("location.pathname + location.hash"))
        expect(tab.locator(".reply .rendered")).to_have_count(1)
        gate = stub.pause_after(3)
        ask(alice.page, "two", wait=False)
        gate.wait()
        expect(tab.locator("#turns > li").nth(1).locator(".words").last).to_have_text(re.compile("^You said"))
        tab.locator("#stop").click()
        for page in (tab, alice.page):
            expect(page.get_by_text("Interrupted")).to_be_visible()
            expect(page.locator("#send")).to_be_visible()
        gate.release()
        assert replies(tab)[1].startswith("You said")


def end_of_the_turn(server: Here) -> None:
    """Returns when the one turn that there is has ended."""
    with server.client() as client:
        session = client.get("/sessions").json()["sessions"][0]["session_id"]
        (turn,) = client.get(f"/sessions/{session}/turns").json()["turns"]
        assert client.get(f"/sessions/{session}/turns/{turn['turn_id']}?wait=10").json()["status"] == "complete"


def test_who_was_offline_hears_the_rest_and_nothing_twice(browser: Browser, server: Here, stub: OpenAIStub) -> None:
    with person(browser, server, quiet=False) as alice:
        gate = stub.pause_after(3)
        ask(alice.page, "long story", wait=False)
        gate.wait()
        writes(alice.page)
        alice.context.set_offline(True)
        gate.release()
        end_of_the_turn(server)
        alice.context.set_offline(False)
        has_all(alice.page)
        expect(alice.page.locator("#banner")).to_be_hidden()


def test_who_wakes_from_sleep_without_the_old_connection_has_the_whole_reply(
    browser: Browser, server: Here, stub: OpenAIStub
) -> None:
    with person(browser, server, quiet=False) as alice:
        gate = stub.pause_after(3)
        ask(alice.page, "long story", wait=False)
        gate.wait()
        writes(alice.page)
        lid = alice.context.new_cdp_session(alice.page)
        lid.send("Page.setWebLifecycleState", {"state": "frozen"})
        alice.context.set_offline(True)
        gate.release()
        end_of_the_turn(server)
        alice.context.set_offline(False)
        lid.send("Page.setWebLifecycleState", {"state": "active"})
        has_all(alice.page)

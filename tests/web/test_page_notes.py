"""Notes about a person, on the page: what is noted in another place meanwhile stays."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import Browser, Page, Route, expect

from tests.browser import Person, chromium, person
from tests.live_server import Here, langserve_warns, serve_here
from tests.openai_stub import OpenAIStub

pytestmark = langserve_warns


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def stub() -> Iterator[OpenAIStub]:
    with OpenAIStub() as stub:
        yield stub


@pytest.fixture(scope="module")
def server(stub: OpenAIStub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    with serve_here(tmp_path_factory.mktemp("notes"), openai_base_url=stub.base_url) as server:
        yield server


@pytest.fixture
def alice(browser: Browser, server: Here, stub: OpenAIStub, request: pytest.FixtureRequest) -> Iterator[Person]:
    stub.reply = lambda messages: f"Reply to {messages[-1]['content']}"
    with person(browser, server, request.node.name[:60], quiet=False) as alice:
        yield alice


@pytest.fixture
def page(alice: Person) -> Page:
    return alice.page


def accessible(page: Page) -> None:
    found = Axe().run(page).response["violations"]
    assert found == [], json.dumps(found, indent=1)[:3000]


def test_notes_about_a_person_are_shown_added_and_deleted(page: Page, server: Here, alice: Person) -> None:
    with server.client(alice.user) as client:
        assert client.put("/memory", json={"notes": ["I am a <b>vegetarian</b>."]}).status_code == 200
        page.locator("#account").evaluate("one => { one.open = true; }")
        page.get_by_role("button", name="Notes about you").click()
        expect(page.locator("#notes-list li span")).to_have_text(["I am a <b>vegetarian</b>."])
        client.put("/memory", json={"notes": ["I am a <b>vegetarian</b>.", "noted meanwhile"]})
        page.get_by_label("A new note").fill("Call me Ada.")
        page.keyboard.press("Enter")
        expect(page.locator("#notes-list li span")).to_have_text(
            ["I am a <b>vegetarian</b>.", "noted meanwhile", "Call me Ada."]
        )
        accessible(page)
        page.get_by_role("button", name="Delete the note: noted meanwhile").click()
        expect(page.locator("#notes-list li")).to_have_count(2)
        page.get_by_role("button", name="Delete all notes").click()
        expect(page.get_by_text("Nothing is noted.")).to_be_visible()
        assert client.get("/memory").json() == {"notes": []}
        client.put("/memory", json={"notes": ["noted by an agent"]})
        page.get_by_role("button", name="Undo").click()
        all_notes = ["I am a <b>vegetarian</b>.", "Call me Ada.", "noted by an agent"]
        expect(page.locator("#notes-list li span")).to_have_text(all_notes)
        page.get_by_role("button", name="Delete all notes").click()
        page.get_by_role("button", name="Close").click()
        expect(page.locator("#toast")).to_be_visible()  # still: the dialog that it came from is closed
        page.get_by_role("button", name="Undo").click()
        expect(page.locator("#toast")).not_to_have_class("shown")


def test_a_note_that_comes_while_another_is_added_stays(page: Page, server: Here, alice: Person) -> None:
    with server.client(alice.user) as client:
        page.locator("#account").evaluate("one => { one.open = true; }")
        page.get_by_role("button", name="Notes about you").click()
        meanwhile = ["noted by an agent"]

        def late(route: Route) -> None:
            if route.request.method == "PUT" and meanwhile:
                client.put("/memory", json={"notes": [meanwhile.pop()]}).raise_for_status()
            route.continue_()

        page.route("**/memory", late)
        page.get_by_label("A new note").fill("Call me Ada.")
        page.keyboard.press("Enter")
        expect(page.locator("#notes-list li span")).to_have_text(["noted by an agent", "Call me Ada."])

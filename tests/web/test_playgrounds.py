"""LangServe's playgrounds in a real browser: signed in, in a session of their own, which the server remembers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest
from playwright.sync_api import Browser, Page, expect

from auth.middleware import Auth
from tests.browser import WAIT_MS, chromium
from tests.echo_model import EchoModel
from tests.live_server import Here, langserve_warns, serve_here, wait_for

pytestmark = langserve_warns
expect.set_options(timeout=WAIT_MS)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def the_model() -> EchoModel:
    return EchoModel(prompts=[])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, the_model: EchoModel) -> Iterator[Here]:
    with serve_here(tmp_path_factory.mktemp("playgrounds"), model=the_model) as server:
        yield server


@pytest.fixture
def page(browser: Browser, server: Here) -> Iterator[Page]:
    """A page of a browser that signed in by a one-time link. Nothing in it may go wrong unseen."""
    context = browser.new_context(base_url=server.url)
    context.set_default_timeout(WAIT_MS)
    errors: list[str] = []
    context.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    context.on("weberror", lambda error: errors.append(str(error.error)))
    page = context.new_page()
    page.goto(f"/login?token={Auth(server.data_dir).links.create('alice', None)}")
    page.get_by_role("button", name="Sign in").click()
    yield page
    assert errors == []
    context.close()


def visit(page: Page, path: str) -> None:
    """Opens a playground and waits for the schemas, without which it sends its input under no name."""
    page.goto(path, wait_until="networkidle")


def ask_tutor(page: Page, text: str) -> None:
    page.get_by_label("Ability").fill("math")
    page.get_by_label("Question").fill(text)
    page.get_by_role("button", name="Start").click()


def ask_chat(page: Page, text: str) -> None:
    box = page.get_by_placeholder("Send a message...")
    box.fill(text)

    def sent() -> bool:
        box.press("Enter")
        return box.input_value() == ""

    wait_for(sent, "the message to be taken, which none is before the last reply has ended")


def texts(page: Page) -> list[str]:
    """What is in the text fields: the chat playground shows each message in one."""
    return [str(box.input_value()) for box in page.locator("textarea").all()]


def expect_reply(page: Page, text: str) -> None:
    expect(page.locator("body")).to_contain_text(text)


def test_the_default_playground_remembers_over_turns_and_reloads(page: Page) -> None:
    visit(page, "/tutor/playground/")
    ask_tutor(page, "one")
    expect_reply(page, "one.")
    ask_tutor(page, "two")
    expect_reply(page, "one, two.")
    page.reload(wait_until="networkidle")
    ask_tutor(page, "three")
    expect_reply(page, "one, two, three.")


def test_the_chat_playground_remembers_over_turns_and_reloads(page: Page) -> None:
    visit(page, "/chat/playground/")
    ask_chat(page, "one")
    expect_reply(page, "one.")
    ask_chat(page, "two")
    expect_reply(page, "one, two.")
    page.reload(wait_until="networkidle")
    ask_chat(page, "three")
    expect_reply(page, "one, two, three.")


def test_a_browser_goes_on_where_it_was_in_either_playground(page: Page) -> None:
    visit(page, "/chat/playground/")
    ask_chat(page, "one")
    expect_reply(page, "one.")
    visit(page, "/tutor/playground/")
    ask_tutor(page, "two")
    expect_reply(page, "one, two.")
    visit(page, "/chat/playground/")
    ask_chat(page, "three")
    expect_reply(page, "one, two, three.")


@pytest.mark.parametrize(("chain", "ask"), [("tutor", ask_tutor), ("chat", ask_chat)])
def test_a_new_session_knows_nothing_and_an_old_one_can_be_named(page: Page, chain: str, ask: object) -> None:
    assert callable(ask)
    name = f"a session of mine {uuid4()}"
    visit(page, f"/{chain}/playground/?session_id={name}")
    ask(page, "my secret is blue")
    expect_reply(page, "blue.")
    visit(page, f"/{chain}/playground/?new")
    ask(page, "two")
    expect_reply(page, "two.")
    expect(page.locator("body")).not_to_contain_text("blue")
    visit(page, f"/{chain}/playground/?session_id={name}")
    ask(page, "three")
    expect_reply(page, "my secret is blue, three.")


def test_the_form_shows_the_session_and_starts_without_errors(page: Page, server: Here) -> None:
    visit(page, "/tutor/playground/?session_id=holidays")
    expect(page.get_by_label("Session")).to_have_value("holidays")
    expect(page.get_by_label("Ability")).to_have_value("math")
    expect(page.get_by_role("button", name="Start")).to_be_enabled()
    expect(page.locator("body")).not_to_contain_text("Validation Errors")
    expect(page.locator("body")).not_to_contain_text(re.compile("user.?id", re.IGNORECASE))


def test_a_turn_of_the_default_playground_is_made_in_the_session_that_the_form_shows(page: Page, server: Here) -> None:
    visit(page, "/tutor/playground/?session_id=first")
    page.get_by_label("Session").fill("another one")
    page.wait_for_url(re.compile("/tutor/c/[^/]+/playground"))
    ask_tutor(page, "one")
    expect_reply(page, "one.")
    with server.client("alice") as client:
        assert client.get("/sessions/another%20one").json()["turns"] == 1
        assert client.get("/sessions/first").status_code == 404


@pytest.mark.parametrize(("chain", "ask"), [("tutor", ask_tutor), ("chat", ask_chat)])
def test_a_playground_tells_its_session_and_its_past_and_leads_to_a_new_one(page: Page, chain: str, ask: Any) -> None:
    name = f'<b>my & "own" {uuid4()}'
    visit(page, f"/{chain}/playground/?session_id={quote(name)}")
    bar = page.locator("#recollect-bar")
    expect(bar.locator("b")).to_have_text(name)
    expect(bar.get_by_text("What was said in it")).to_be_hidden()
    ask(page, "one")
    expect(bar.get_by_text("What was said in it (1)")).to_be_visible()
    page.reload(wait_until="networkidle")
    bar.get_by_text("What was said in it (1)").click()
    expect(bar.locator("li")).to_have_text(["You: one", "Reply: one."])
    bar.get_by_role("link", name="New conversation").click()
    expect(bar.locator("b")).to_have_text(re.compile("^playground-"))
    expect(bar.get_by_text("What was said in it")).to_be_hidden()


def test_a_playground_says_why_there_is_no_reply(page: Page, server: Here, the_model: EchoModel) -> None:
    visit(page, "/chat/playground/?new")

    async def fail(words: int) -> None:
        raise ValueError("a secret of the model's")

    the_model.pause = fail
    try:
        ask_chat(page, "one")
        why = re.compile("^No reply: The chain failed|^No reply: The model")
        expect(page.get_by_role("alert")).to_have_text(why)
        expect(page.get_by_placeholder(why)).to_be_visible()
        expect(page.locator("body")).not_to_contain_text("secret")
    finally:
        the_model.pause = None
    page.reload(wait_until="networkidle")
    ask_chat(page, "two")
    expect_reply(page, "two.")
    expect(page.get_by_role("alert")).to_be_hidden()


def test_who_is_not_signed_in_is_asked_for_a_key_and_led_on(browser: Browser, server: Here) -> None:
    context = browser.new_context(base_url=server.url)
    page = context.new_page()
    visit(page, "/chat/playground/")
    page.get_by_label("API key").fill("rk_wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("not one of this server's API keys")
    page.get_by_label("API key").fill(server.key("bob"))
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(re.compile("/chat/c/[^/]+/playground"))
    ask_chat(page, "hello")
    expect_reply(page, "hello.")
    context.close()


def test_two_users_of_one_browser_do_not_meet(page: Page, browser: Browser, server: Here, tmp_path: Path) -> None:
    visit(page, "/chat/playground/?session_id=ours")
    ask_chat(page, "my secret is blue")
    expect_reply(page, "blue.")
    page.context.clear_cookies(name="recollect")
    page.goto(f"/login?token={Auth(server.data_dir).links.create('bob', None)}")
    page.get_by_role("button", name="Sign in").click()
    visit(page, "/chat/playground/?session_id=ours")
    ask_chat(page, "hello")
    expect_reply(page, "hello.")
    expect(page.locator("body")).not_to_contain_text("blue")

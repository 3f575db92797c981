"""The chat page in a real browser: what people do on it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browser import Person, ask, chromium, person, replies, titles
from tests.live_server import Here, langserve_warns, serve_here, wait_for
from tests.openai_stub import OpenAIStub

pytestmark = langserve_warns


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
    with serve_here(tmp_path, openai_base_url=stub.base_url, history_url="memory:") as server:
        yield server


@pytest.fixture
def alice(browser: Browser, server: Here) -> Iterator[Person]:
    with person(browser, server, permissions=["clipboard-read", "clipboard-write"]) as alice:
        yield alice


@pytest.fixture
def page(alice: Person) -> Page:
    return alice.page


def act(page: Page, name: str, turn: int = -1) -> None:
    page.locator("#turns > li").nth(turn).get_by_role("button", name=name, exact=True).click()


def clipboard(page: Page) -> str:
    return str(page.evaluate("navigator.clipboard.readText()"))


def test_a_conversation_is_kept_and_goes_on_on_another_device(
    page: Page, alice: Person, browser: Browser, server: Here
) -> None:
    ask(page, "one")
    ask(page, "two")
    assert replies(page)[1] == "You said: two. I have seen 2 user messages: one | two"
    with person(browser, server) as elsewhere:
        elsewhere.page.get_by_role("link", name="one").click()
        expect(elsewhere.page.get_by_role("heading", name="one")).to_be_visible()
        ask(elsewhere.page, "three")
        assert "one | two | three" in replies(elsewhere.page)[-1]
    page.evaluate("dispatchEvent(new Event('focus'))")
    expect(page.locator("#turns > li")).to_have_count(3)


def test_two_people_see_only_their_own(page: Page, browser: Browser, server: Here) -> None:
    ask(page, "a secret of Alice")
    address = page.url
    with person(browser, server, "bob", quiet=False) as bob:
        assert titles(bob.page) == []
        bob.page.goto(address)
        bob.page.reload()
        expect(bob.page.locator("#turns > li")).to_have_count(0)
        bob.page.get_by_label("Search conversations").fill("secret")
        expect(bob.page.get_by_text("Nothing was found.")).to_be_visible()
        assert "secret" not in bob.page.locator("body").inner_text()


def test_a_reply_is_shown_as_it_comes(page: Page, stub: OpenAIStub) -> None:
    gate = stub.pause_after(3)
    ask(page, "tell me", wait=False)
    gate.wait()
    expect(page.locator(".reply .words")).to_have_text(re.compile("^You said"))
    expect(page.get_by_text("Writing…")).to_be_visible()
    gate.release()
    expect(page.locator(".reply .rendered")).to_have_text("You said: tell me. I have seen 1 user messages: tell me")
    expect(page.locator("#said")).to_have_text(re.compile("^Reply: You said: tell me"))


def test_a_stopped_reply_is_kept_and_can_be_asked_for_again(page: Page, stub: OpenAIStub) -> None:
    gate = stub.pause_after(3)
    ask(page, "long story", wait=False)
    gate.wait()
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_text("Interrupted")).to_be_visible()
    kept = replies(page)[0]
    assert kept
    assert "You said: long story".startswith(kept.strip())
    gate.release()
    act(page, "Try again")
    expect(page.locator(".reply .rendered")).to_have_text(
        "You said: long story. I have seen 1 user messages: long story"
    )
    expect(page.get_by_text("Interrupted")).to_be_hidden()


def test_a_failed_turn_says_why_and_can_be_tried_again(alice: Person, page: Page, stub: OpenAIStub) -> None:
    stub.fail_with(400)
    ask(page, "hello", wait=False)
    expect(page.locator(".mark.failed")).to_have_text("Failed")
    expect(page.locator(".trouble")).to_have_text(re.compile("The model"))
    [logged] = alice.errors
    assert "502" in logged
    alice.errors.clear()
    act(page, "Try again")
    expect(page.locator(".reply .rendered")).to_have_text("You said: hello. I have seen 1 user messages: hello")
    expect(page.locator("#turns > li")).to_have_count(1)


def versions(page: Page) -> list[str]:
    return [text.replace("\n", "") for text in page.locator(".versions:visible").all_inner_texts()]


def test_a_question_is_edited_and_what_was_there_can_be_gone_back_to(page: Page) -> None:
    for text in ("one", "two", "three"):
        ask(page, text)
    act(page, "Edit", 1)
    expect(page.get_by_text("What is there now stays, with the turn after it")).to_be_visible()
    page.get_by_role("textbox", name="Your message, changed").fill("zwei")
    page.get_by_role("button", name="Ask again").click()
    expect(page.locator("#turns > li").nth(1).locator(".reply .rendered")).to_contain_text("one | zwei")
    expect(page.locator("#turns > li")).to_have_count(2)
    expect(page.locator(".versions:visible")).to_contain_text("2 / 2")
    page.get_by_role("button", name="Version before").click()
    expect(page.locator("#turns > li")).to_have_count(3)
    expect(page.locator(".you .words").nth(1)).to_have_text("two")


def test_a_reply_is_regenerated_and_a_model_that_fails_costs_nothing(
    alice: Person, page: Page, stub: OpenAIStub
) -> None:
    ask(page, "roll the dice")
    ask(page, "and then")
    stub.reply = lambda messages: f"a six, after {len(messages)} messages"
    act(page, "Regenerate", 0)
    expect(page.locator(".reply .rendered")).to_have_text("a six, after 2 messages")
    page.get_by_role("button", name="Version before").click()
    expect(page.locator("#turns > li")).to_have_count(2)
    stub.fail_with(400)
    act(page, "Regenerate", 0)
    expect(page.locator("#what")).to_contain_text("What was there is shown again.")
    expect(page.locator("#turns > li")).to_have_count(2)
    expect(page.locator(".reply .rendered").first).to_contain_text("You said: roll the dice")
    alice.errors.clear()


def test_a_page_that_has_not_seen_all_changes_nothing(page: Page, alice: Person) -> None:
    ask(page, "one")
    act(page, "Regenerate")
    expect(page.locator(".versions:visible")).to_contain_text("2 / 2")
    other = alice.open(page.url)
    other.locator(".rendered").wait_for()
    page.evaluate("BroadcastChannel.prototype.postMessage = () => {}")
    ask(page, "two")
    other.get_by_role("button", name="Version before").click()
    expect(other.locator("#what")).to_contain_text("moved on")
    expect(other.locator("#turns > li")).to_have_count(2)
    assert "412" in alice.errors.pop()


def test_one_turn_is_deleted_and_comes_back_with_undo(page: Page, server: Here) -> None:
    for text in ("one", "two"):
        ask(page, text)
    act(page, "Delete this turn", 0)
    expect(page.locator("#turns > li")).to_have_count(1)
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#turns > li")).to_have_count(2)
    act(page, "Delete this turn", 0)
    page.goto("about:blank")
    with server.client() as client:
        wait_for(lambda: client.get("/sessions").json()["sessions"][0]["turns"] == 1, "the turn to be gone")


def test_what_is_thought_of_a_reply_is_kept(page: Page) -> None:
    ask(page, "one")
    act(page, "Good reply")
    expect(page.get_by_role("button", name="Good reply")).to_have_attribute("aria-pressed", "true")
    act(page, "Bad reply")
    page.get_by_role("dialog").get_by_role("textbox").fill("It is wrong.")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Bad reply")).to_have_attribute("aria-pressed", "true")
    page.reload()
    expect(page.get_by_role("button", name="Bad reply")).to_have_attribute("aria-pressed", "true")


def test_a_branch_leaves_the_conversation_as_it_was(page: Page) -> None:
    ask(page, "one")
    ask(page, "two")
    act(page, "Branch", 0)
    expect(page.get_by_role("heading", name="Branch of one")).to_be_visible()
    expect(page.locator("#turns > li")).to_have_count(1)
    ask(page, "drei")
    assert "one | drei" in replies(page)[-1]
    page.get_by_role("link", name=re.compile("^one")).click()
    expect(page.locator("#turns > li")).to_have_count(2)


def test_replies_and_code_are_copied_as_they_were_written(page: Page, stub: OpenAIStub) -> None:
    stub.reply = lambda _: "Some **bold**:\n\n```python\nprint(1 < 2)\n```\n"
    ask(page, "code, please")
    page.get_by_role("button", name="Copy code").click()
    wait_for(lambda: clipboard(page) == "print(1 < 2)\n", "the code")
    act(page, "Copy")
    wait_for(lambda: clipboard(page).startswith("Some **bold**:"), "the reply")


def test_the_form_of_a_chain_comes_from_its_schema_and_is_remembered(page: Page, stub: OpenAIStub) -> None:
    page.locator("#chain").select_option("tutor")
    page.get_by_label("Ability").fill("Italian cooking")
    ask(page, "Pasta?", chain="tutor")
    assert "Italian cooking" in stub.requests[-1].body["messages"][0]["content"]
    page.reload()
    expect(page.get_by_label("Ability")).to_have_value("Italian cooking")
    expect(page.locator(".meta")).to_have_text(re.compile(r"^tutor · .+ · \d+\.\d s · \d+ tokens$"))
    expect(page.locator(".usage")).to_have_attribute("title", re.compile(r"\d+ tokens read, \d+ tokens written"))


def test_what_a_chain_needs_is_asked_for_before_anything_is_sent(page: Page, stub: OpenAIStub) -> None:
    page.locator("#chain").select_option("tutor")
    page.get_by_label("Ability").fill("")
    ask(page, "Pasta?", chain="tutor", wait=False)
    expect(page.get_by_label("Ability")).to_be_focused()
    expect(page.get_by_label("Message", exact=True)).to_have_value("Pasta?")
    assert stub.requests == []


def test_search_finds_what_was_said(page: Page) -> None:
    for text in ("the quick fox", "a slow snail"):
        ask(page, text)
        page.get_by_role("link", name="New").click()
    page.get_by_label("Search conversations").fill("snail")
    expect(page.locator("#list li")).to_have_count(1)
    assert titles(page) == ["a slow snail"]
    page.get_by_label("Search conversations").fill("")
    expect(page.locator("#list li")).to_have_count(2)


def test_a_conversation_is_renamed(page: Page) -> None:
    ask(page, "hello")
    page.get_by_role("button", name="Rename hello").click()
    page.get_by_role("textbox", name="New title").fill("Greetings")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Greetings")).to_be_visible()
    page.reload()
    expect(page.locator("#list .name")).to_have_text("Greetings")


def test_a_deleted_conversation_comes_back_with_undo_and_goes_without(page: Page, server: Here) -> None:
    ask(page, "hello")
    page.get_by_role("button", name="Delete hello").click()
    expect(page.locator("#list li")).to_have_count(0)
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#list li")).to_have_count(1)
    with server.client() as client:
        assert len(client.get("/sessions").json()["sessions"]) == 1
        page.locator("#list li").hover()
        page.get_by_role("button", name="Delete hello").click()
        page.goto("about:blank")  # closing the page closes the way back
        wait_for(lambda: client.get("/sessions").json()["sessions"] == [], "the conversation to be gone")


def test_all_conversations_are_deleted_after_a_question(page: Page, server: Here) -> None:
    ask(page, "hello")
    page.get_by_text("alice", exact=True).click()
    for button in ("Cancel", "OK"):
        page.get_by_role("button", name="Delete all conversations…").click()
        page.get_by_role("dialog").get_by_role("button", name=button).click()
    expect(page.get_by_text("No conversations yet.")).to_be_visible()
    expect(page.locator("#turns > li")).to_have_count(0)


def test_what_is_exported_can_be_imported(page: Page, tmp_path: Path) -> None:
    ask(page, "hello")
    with page.expect_download() as exported:
        page.get_by_role("link", name="Markdown").click()
    assert "> hello" in exported.value.path().read_text()
    with page.expect_download() as exported:
        page.get_by_role("link", name="JSON").click()
    exported.value.save_as(tmp_path / "hello.json")
    assert json.loads((tmp_path / "hello.json").read_text())["title"] == "hello"
    page.get_by_text("alice", exact=True).click()
    page.get_by_label("Import conversations").set_input_files(tmp_path / "hello.json")
    expect(page.locator("#list li")).to_have_count(2)
    expect(page.locator("#turns > li")).to_have_count(1)


def test_all_conversations_go_out_in_one_file_and_come_in_again(page: Page, tmp_path: Path) -> None:
    for text in ("one", "two"):
        ask(page, text)
        page.get_by_role("link", name="New").click()
    page.locator("#account").evaluate("one => { one.open = true; }")
    with page.expect_download() as exported:
        page.get_by_role("link", name="Export all conversations").click()
    exported.value.save_as(tmp_path / "all.jsonl")
    assert len((tmp_path / "all.jsonl").read_text().splitlines()) == 2
    page.get_by_label("Import conversations").set_input_files(tmp_path / "all.jsonl")
    expect(page.locator("#list li")).to_have_count(4)


def test_many_conversations_of_another_program_come_in_from_one_file(page: Page, alice: Person, tmp_path: Path) -> None:
    said = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]
    chats = [{"chat": {"title": f"Chat {n}", "messages": said}} for n in range(3)]
    (tmp_path / "chats.json").write_text(json.dumps([*chats, {"chat": {"title": "Nothing", "messages": []}}]))
    page.locator("#account").evaluate("one => { one.open = true; }")
    page.get_by_label("Import conversations").set_input_files(tmp_path / "chats.json")
    expect(page.locator("#what")).to_contain_text("3 conversations are here. 1 could not come along")
    expect(page.locator("#list li")).to_have_count(3)
    expect(page.locator(".reply .rendered")).to_have_text("Because.")
    assert "422" in alice.errors.pop()


def test_two_tabs_on_one_conversation_agree(page: Page, alice: Person, stub: OpenAIStub) -> None:
    ask(page, "one")
    other = alice.open(page.url)
    expect(other.locator("#turns > li")).to_have_count(1)
    gate = stub.pause_after(3)
    ask(page, "two", wait=False)
    gate.wait()
    expect(other.get_by_text("Writing…")).to_be_visible()
    other.get_by_role("button", name="Stop").click()
    expect(other.get_by_text("Interrupted")).to_be_visible()
    expect(page.get_by_text("Interrupted")).to_be_visible()
    wait_for(lambda: replies(page) == replies(other), "the same in both")
    gate.release()
    ask(other, "three")
    expect(page.locator("#turns > li")).to_have_count(3)


def test_a_reply_goes_on_while_another_conversation_is_looked_at(page: Page, stub: OpenAIStub) -> None:
    ask(page, "first")
    page.get_by_role("link", name="New").click()
    gate = stub.pause_after(3)
    ask(page, "second", wait=False)
    gate.wait()
    page.get_by_role("link", name=re.compile("^first")).click()
    expect(page.get_by_role("heading", name="first")).to_be_visible()
    gate.release()
    page.get_by_role("link", name=re.compile("^second")).click()
    expect(page.locator(".reply .rendered")).to_contain_text("You said: second")


def test_signing_out_leads_to_the_sign_in_page(page: Page) -> None:
    page.get_by_text("alice", exact=True).click()
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("API key")).to_be_visible()


def test_the_playgrounds_and_the_documentation_are_linked(page: Page) -> None:
    page.get_by_text("alice", exact=True).click()
    hrefs = [link.get_attribute("href") for link in page.locator("#account a").all()]
    assert hrefs == ["agent/playground/", "chat/playground/", "tutor/playground/", "docs", "export"]


def test_everything_can_be_done_with_the_keyboard(page: Page) -> None:
    page.reload()
    page.keyboard.press("Tab")
    page.get_by_role("link", name="Skip to the message box").focus()
    page.keyboard.press("Enter")
    page.keyboard.type("by hand")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("in two lines")
    page.keyboard.press("Enter")
    page.locator(".reply .rendered").wait_for()
    assert page.locator(".you .words").inner_text() == "by hand\nin two lines"
    page.locator("#list a").focus()
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name=re.compile("^Rename"))).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("textbox", name="New title")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_on_a_phone_the_conversations_are_in_a_drawer(browser: Browser, server: Here) -> None:
    with person(browser, server, viewport={"width": 390, "height": 800}, has_touch=True, is_mobile=True) as alice:
        ask(alice.page, "hello")
        expect(alice.page.locator("#side")).to_be_hidden()
        alice.page.get_by_role("button", name="Conversations").tap()
        expect(alice.page.get_by_role("link", name=re.compile("^hello"))).to_be_visible()
        alice.page.keyboard.press("Escape")
        expect(alice.page.locator("#side")).to_be_hidden()
        expect(alice.page.get_by_role("button", name="Conversations")).to_be_focused()
        assert alice.page.evaluate("document.documentElement.scrollWidth <= innerWidth")

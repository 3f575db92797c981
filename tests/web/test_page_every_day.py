"""The page as it is used every day: nothing that was typed is lost, and all that a chain asks for can be said."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any

import pytest
from langchain_core.runnables import RunnableLambda
from playwright.sync_api import Browser, Page, Route, expect
from pydantic import BaseModel, Field

from chains import Chain, load_chains
from tests.browser import Person, ask, chromium, person, replies
from tests.live_server import Here, langserve_warns, serve_here, wait_for
from tests.openai_stub import OpenAIStub

pytestmark = langserve_warns


class Tone(StrEnum):
    KIND = "kind"
    STERN = "stern"


class Place(BaseModel):
    city: str
    floor: int | None = None


class Order(BaseModel):
    input: str
    size: int = Field(ge=2, le=9, description="From two to nine.")
    tone: Tone = Tone.KIND
    hot: bool = False
    tags: list[str] = []
    place: Place
    note: str | None = Field(None, title="Note", max_length=1000)
    even: Annotated[int, Field(multiple_of=2)] = 4
    history: list[Any] = []


def told(value: dict[str, Any]) -> str:
    if value["size"] == 8:
        raise ValueError("eight is out of stock")
    return str({name: value[name] for name in ("size", "tone", "hot", "tags", "place", "note", "even")})


ORDER = Chain(
    name="order",
    build=lambda _: RunnableLambda(told),
    input_type=Order,
    output_type=str,
    input_messages_key="input",
    history_messages_key="past",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def the_stub() -> Iterator[OpenAIStub]:
    with OpenAIStub() as stub:
        yield stub


@pytest.fixture
def stub(the_stub: OpenAIStub) -> OpenAIStub:
    the_stub.gate = None
    the_stub.reply = lambda messages: f"Reply to {messages[-1]['content']}"
    return the_stub


@pytest.fixture(scope="module")
def server(the_stub: OpenAIStub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    folder = tmp_path_factory.mktemp("everyday")
    with serve_here(folder, openai_base_url=the_stub.base_url, chains=[*load_chains(), ORDER]) as server:
        yield server


@pytest.fixture
def alice(browser: Browser, server: Here, stub: OpenAIStub, request: pytest.FixtureRequest) -> Iterator[Person]:
    with person(browser, server, request.node.name[:60], quiet=False) as alice:
        yield alice


@pytest.fixture
def page(alice: Person) -> Page:
    return alice.page


def box(page: Page) -> Any:
    return page.get_by_label("Message", exact=True)


def in_sight(page: Page, selector: str) -> bool:
    inside = """(item) => {
        const [a, b] = [item, document.querySelector("#log")].map((one) => one.getBoundingClientRect());
        return a.bottom > b.top && a.top < b.bottom;
    }"""
    return bool(page.locator(selector).evaluate(inside))


def test_what_is_sent_while_scrolled_up_is_shown_and_a_button_leads_to_the_latest(page: Page, stub: OpenAIStub) -> None:
    stub.reply = lambda _: "line\n\n" * 60
    ask(page, "one")
    page.locator("#log").evaluate("log => { log.scrollTop = 0; }")
    latest = page.get_by_role("button", name="Latest")
    latest.click()
    expect(latest).to_be_hidden()
    page.locator("#log").evaluate("log => { log.scrollTop = 0; }")
    latest.wait_for()
    ask(page, "two")
    wait_for(lambda: in_sight(page, "#turns > li:last-child .foot"), "the end of the reply to be in sight")


def test_a_draft_belongs_to_its_conversation_and_outlives_a_reload_but_not_the_sign_out(
    page: Page, browser: Browser, server: Here, alice: Person
) -> None:
    ask(page, "first")
    box(page).fill("a draft of the first")
    page.get_by_role("link", name="New").click()
    expect(box(page)).to_have_value("")
    box(page).fill("a draft of a new one")
    page.get_by_role("link", name=re.compile("^first")).click()
    expect(box(page)).to_have_value("a draft of the first")
    page.reload()
    expect(box(page)).to_have_value("a draft of the first")
    page.get_by_role("link", name="New").click()
    expect(box(page)).to_have_value("a draft of a new one")
    page.locator("#chain").select_option("tutor")
    page.get_by_label("Ability").fill("a secret ability")
    page.locator("#account").evaluate("one => { one.open = true; }")
    page.get_by_role("button", name="Sign out").click()
    page.get_by_label("API key").wait_for()
    assert "draft" not in page.evaluate("JSON.stringify(localStorage)")
    page.get_by_label("API key").fill(server.key("bob"))
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_selector("#who:has-text('bob')", state="attached")
    expect(box(page)).to_have_value("")
    page.locator("#chain").select_option("tutor")
    expect(page.get_by_label("Ability")).to_have_value("math")


def test_a_question_that_could_not_be_sent_is_kept_with_try_again(page: Page, alice: Person) -> None:
    ask(page, "first")
    page.route("**/chat/stream", lambda route: route.fulfill(status=413, json={"detail": "The body is too large."}))
    ask(page, "a precious question", wait=False)
    expect(page.locator(".mark.unsent")).to_have_text("Not sent")
    expect(page.locator(".trouble:visible")).to_have_text("The body is too large.")
    page.get_by_role("link", name="New").click()
    expect(page.locator("#turns > li")).to_have_count(0)
    page.get_by_role("link", name=re.compile("^first")).click()
    expect(page.get_by_text("a precious question")).to_be_visible()
    page.reload()
    expect(page.locator(".mark.unsent")).to_have_text("Not sent")
    page.unroute("**/chat/stream")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#turns > li").last.locator(".rendered")).to_have_text("Reply to a precious question")
    expect(page.locator("#turns > li")).to_have_count(2)


def test_a_sign_in_that_ended_costs_nothing_that_was_typed(page: Page, alice: Person, server: Here) -> None:
    ask(page, "first")
    alice.context.clear_cookies()
    ask(page, "asked too late", wait=False)
    page.get_by_label("API key").fill(server.key(alice.user))
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_text("asked too late")).to_be_visible()
    page.get_by_role("button", name="Try again").click()
    expect(page.locator("#turns > li").last.locator(".rendered")).to_have_text("Reply to asked too late")


def test_enter_that_ends_a_word_of_an_input_method_sends_nothing(page: Page, stub: OpenAIStub) -> None:
    before = len(stub.requests)
    box(page).fill("日本")
    press = """(box, options) => box.dispatchEvent(
        new KeyboardEvent("keydown", { key: "Enter", cancelable: true, bubbles: true, ...options }))"""
    assert box(page).evaluate(press, {"keyCode": 229})
    assert box(page).evaluate(press, {"isComposing": True})
    assert len(stub.requests) == before
    assert not box(page).evaluate(press, {"keyCode": 13})
    page.locator(".rendered").wait_for()


def test_enter_on_a_phone_is_a_new_line(browser: Browser, server: Here, stub: OpenAIStub) -> None:
    with person(browser, server, "phone", viewport={"width": 390, "height": 800}, has_touch=True, is_mobile=True) as p:
        box(p.page).fill("one")
        box(p.page).press("Enter")
        expect(box(p.page)).to_have_value("one\n")
        p.page.get_by_role("button", name="Send").tap()
        p.page.locator(".rendered").wait_for()


def test_a_chain_asks_for_numbers_choices_lists_and_nested_fields(page: Page) -> None:
    page.locator("#chain").select_option("order")
    expect(page.get_by_text("From two to nine.")).to_be_visible()
    expect(page.get_by_label("History")).to_have_count(0)
    page.get_by_label("Size").fill("1")
    page.get_by_label("City").fill("Oslo")
    ask(page, "go", chain="order", wait=False)
    expect(page.get_by_label("Size")).to_be_focused()
    page.get_by_label("Size").fill("3")
    page.get_by_label("Tone").select_option("stern")
    page.get_by_label("Hot").check()
    for tag in ("a", "b"):
        page.get_by_role("group", name="Tags").get_by_role("button", name="Add").click()
        page.keyboard.type(tag)
    page.get_by_label("Floor").fill("7")
    ask(page, "go", chain="order")
    said = replies(page)[0]
    for part in ("'size': 3", "STERN", "'hot': True", "['a', 'b']", "'floor': 7", "'note': None", "'even': 4"):
        assert part in said.replace("Tone.STERN: 'stern'", "STERN").replace("'tone': 'stern'", "STERN"), said
    page.reload()
    expect(page.get_by_label("Size")).to_have_value("3")
    expect(page.get_by_role("textbox", name="Tags 2")).to_have_value("b")


def test_what_the_server_says_of_a_field_stands_at_that_field(page: Page) -> None:
    page.locator("#chain").select_option("order")
    page.get_by_label("Size").fill("3")
    page.get_by_label("City").fill("Oslo")
    page.get_by_label("City").evaluate("box => { box.required = false; box.value = ''; }")
    ask(page, "keep me", chain="order", wait=False)
    expect(page.locator(".wrong:visible")).to_have_text("Field required")
    expect(page.get_by_label("City")).to_have_attribute("aria-invalid", "true")
    expect(box(page)).to_have_value("keep me")
    expect(page.locator("#turns > li")).to_have_count(0)


def test_each_paragraph_and_title_finds_its_own_direction(page: Page, stub: OpenAIStub) -> None:
    stub.reply = lambda _: (
        "English first.\n\nمرحبا بالعالم\n\n- واحد\n- two\n\n> שלום\n\n1. one\n\n| عربي | b |\n|---|---|\n| 1 | 2 |\n"
    )
    ask(page, "👨‍👩‍👧 می‌خواهم क्षत्रिय")
    assert page.locator("#list .name").inner_text() == "👨‍👩‍👧 می‌خواهم क्षत्रिय"
    directions = (
        page.locator(".reply .words")
        .locator("p, li, ul, ol, blockquote, table")
        .evaluate_all("all => all.map((one) => `${one.localName} ${getComputedStyle(one).direction}`)")
    )
    assert directions == [
        *("p ltr", "p rtl", "ul rtl", "li rtl", "li ltr"),
        *("blockquote rtl", "p rtl", "ol ltr", "li ltr", "table rtl"),
    ]


def test_any_conversation_has_its_title_in_the_heading_and_the_tab(page: Page, server: Here, alice: Person) -> None:
    ask(page, "an old one")
    address = page.url
    page.get_by_label("Search conversations").fill("nothing of this name")
    expect(page.get_by_text("Nothing was found.")).to_be_visible()
    page.goto("about:blank")
    page.route("**/sessions?*", lambda route: route.fulfill(json={"sessions": [], "next": None}))
    page.goto(address)
    expect(page.get_by_role("heading", name="an old one")).to_be_visible()
    expect(page).to_have_title(re.compile("an old one"))


def test_the_theme_can_be_chosen_and_stays(page: Page) -> None:
    def paper() -> Any:
        return page.evaluate("getComputedStyle(document.body).backgroundColor")

    light = paper()
    page.keyboard.press("Control+k")
    page.get_by_role("combobox", name="What to do, or where to go").fill("dark")
    page.keyboard.press("Enter")
    wait_for(lambda: paper() != light, "the dark theme")
    page.reload()
    assert paper() != light


def test_commands_and_conversations_are_found_by_their_letters(page: Page) -> None:
    ask(page, "the tides of the sea")
    page.keyboard.press("Control+Shift+o")
    expect(page.locator("#turns > li")).to_have_count(0)
    page.keyboard.press("Control+k")
    page.keyboard.type("tides")
    expect(page.get_by_role("option", name="the tides of the sea")).to_be_visible()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="the tides of the sea")).to_be_visible()


def test_all_conversations_come_back_with_undo(page: Page, server: Here) -> None:
    ask(page, "keep me")
    page.locator("#account").evaluate("one => { one.open = true; }")
    page.get_by_role("button", name="Delete all conversations…").click()
    page.get_by_role("dialog").get_by_role("button", name="OK").click()
    expect(page.get_by_text("No conversations yet.")).to_be_visible()
    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#list li")).to_have_count(1)
    expect(page.locator("#list h2")).to_have_text("Today")


def test_a_print_has_the_whole_conversation(page: Page, stub: OpenAIStub) -> None:
    stub.reply = lambda _: "line\n\n" * 60
    ask(page, "one")
    page.emulate_media(media="print")
    assert page.evaluate("document.documentElement.scrollHeight") > 2000
    assert not page.locator("#composer").is_visible()


def test_a_double_click_on_send_asks_once_and_stops_nothing(page: Page, stub: OpenAIStub) -> None:
    before, gate = len(stub.requests), stub.pause_after(2)
    box(page).fill("a long story")
    page.locator("#send").dblclick()
    gate.wait()
    expect(page.locator(".mark")).to_have_text("Writing…")
    gate.release()
    expect(page.locator(".rendered")).to_have_text("Reply to a long story")
    assert len(stub.requests) == before + 1
    expect(page.locator("#toast")).not_to_have_class("shown")


def test_a_sign_out_in_another_tab_leaves_no_draft_of_this_one(page: Page, alice: Person) -> None:
    ask(page, "first")
    other = alice.open(page.url)
    other.locator(".rendered").wait_for()
    box(page).fill("a secret draft")
    other.locator("#account").evaluate("one => { one.open = true; }")
    other.get_by_role("button", name="Sign out").click()
    page.get_by_label("API key").wait_for()
    assert "secret" not in page.evaluate("JSON.stringify(localStorage)")


def test_a_draft_of_200_kilobytes_is_kept_whole(page: Page) -> None:
    long = "one more word " * 15_000
    box(page).fill(long)
    page.reload()
    expect(box(page)).to_have_value(long)


def test_enter_before_the_page_is_ready_loses_nothing(page: Page) -> None:
    held = list[Route]()
    page.route("**/chains", lambda route: held.append(route))
    page.goto("about:blank")
    with page.expect_request("**/chains"):
        page.goto("/", wait_until="commit")
    box(page).fill("an early bird")
    box(page).press("Enter")
    expect(page.locator("#what")).to_have_text("")
    held[0].continue_()
    page.locator("#who:not(:empty)").wait_for(state="attached")
    expect(page.locator("#chain")).to_have_value("chat")
    expect(box(page)).to_have_value("an early bird")
    box(page).press("Enter")
    expect(page.locator(".rendered")).to_have_text("Reply to an early bird")


def test_at_four_times_the_size_nothing_is_beyond_the_edge_and_long_lines_are_printed(
    page: Page, stub: OpenAIStub
) -> None:
    stub.reply = lambda _: f"```python\nx = '{'a' * 400}'\n```\n"
    ask(page, "wide")
    page.set_viewport_size({"width": 320, "height": 256})
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.emulate_media(media="print")
    assert page.locator(".code pre").evaluate("one => one.scrollWidth <= one.clientWidth")

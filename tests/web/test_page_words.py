"""Replies on the page: read while they are written, Markdown with all that belongs to it, steps of agents."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, ToolMessage
from langchain_core.runnables import RunnableGenerator
from playwright.sync_api import Browser, Page, Route, expect
from pydantic import BaseModel

from chains import Chain, load_chains
from tests.browser import ask, chromium, person
from tests.live_server import Here, langserve_warns, serve_here, wait_for
from tests.openai_stub import OpenAIStub

pytestmark = langserve_warns

LONG = "\n\n".join(
    f"## Part {n}\n\nSome **bold** text and `code` of part {n}.\n\n- one\n- two\n\n```python\nprint({n})\n```"
    for n in range(12)
)
WATCH = """() => {
    window.moved = 0;
    window.gone = [];
    const done = (node) => node?.nodeType === 1 && node.closest(".reply .words > :not(.open)");
    const shifted = (entry) => entry.sources.some(({ node }) => done(node));
    const note = (node) => done(node) && window.gone.push(node.outerHTML);
    new PerformanceObserver((list) => {
        for (const entry of list.getEntries()) if (shifted(entry)) window.moved += entry.value;
    }).observe({ type: "layout-shift", buffered: false });
    new MutationObserver((changes) => {
        for (const { removedNodes } of changes) removedNodes.forEach(note);
    }).observe(document.querySelector("#turns"), { childList: true, subtree: true });
}"""


async def agent(_: AsyncIterator[Any]) -> AsyncIterator[Any]:
    yield AIMessageChunk(content="", id="1", additional_kwargs={"reasoning_content": "I should look. "})
    yield AIMessageChunk(
        content="", id="1", tool_call_chunks=[{"id": "c1", "name": "weather", "args": '{"city":', "index": 0}]
    )
    yield AIMessageChunk(
        content="", id="1", tool_call_chunks=[{"id": None, "name": None, "args": '"Oslo"}', "index": 0}]
    )
    yield ToolMessage("22 degrees and sunny", tool_call_id="c1", id="2")
    yield AIMessage("It is **22** degrees.", id="3")


class Asked(BaseModel):
    input: str


AGENT = Chain(
    name="looker",
    build=lambda _: RunnableGenerator(agent),
    input_type=Asked,
    output_type=list[Any],
    input_messages_key="input",
    history_messages_key="past",
)


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
    folder = tmp_path_factory.mktemp("words")
    with serve_here(folder, openai_base_url=stub.base_url, chains=[*load_chains(), AGENT]) as server:
        yield server


@pytest.fixture(scope="module")
def the_page(browser: Browser, server: Here) -> Iterator[Page]:
    with person(browser, server) as alice:
        yield alice.page


@pytest.fixture
def page(the_page: Page, stub: OpenAIStub) -> Page:
    stub.delay_s, stub.gate = 0, None
    the_page.goto("/#/")
    the_page.locator("#turns > li").first.wait_for(state="detached")
    return the_page


def test_a_block_that_has_ended_is_shown_as_it_stays_while_the_next_one_is_written(
    page: Page, stub: OpenAIStub
) -> None:
    stub.reply = lambda _: LONG
    gate = stub.pause_after(80)
    page.evaluate(WATCH)
    ask(page, "go", wait=False)
    page.locator(".words > h2").nth(2).wait_for()
    expect(page.locator(".words > .open")).to_have_count(1)
    gate.release()
    page.locator(".rendered").wait_for()
    expect(page.locator(".words > h2")).to_have_count(12)
    expect(page.locator(".words .open")).to_have_count(0)
    assert page.evaluate("window.gone") == []
    assert page.evaluate("window.moved") == 0


def test_mathematics_code_tasks_and_addresses_are_what_they_are(page: Page, stub: OpenAIStub) -> None:
    stub.reply = lambda _: (
        r"Let \(a^2\) be \[x = \frac{1}{2}\] $$y$$" + "\n\n- [x] done\n- [ ] open\n\nsee https://example.org/a_b.\n\n"
        "```python\ndef f(): ...\n```\n"
    )
    ask(page, "go")
    assert page.locator(".words math").count() == 3
    assert page.locator(".words math[display=block]").count() == 2
    expect(page.get_by_role("img", name="done")).to_be_visible()
    expect(page.get_by_role("link", name="https://example.org/a_b")).to_have_attribute(
        "href", "https://example.org/a_b"
    )
    expect(page.locator(".code .k")).to_have_text("def")
    expect(page.locator(".code .head")).to_contain_text("python")


def test_a_reply_of_any_length_is_rendered(page: Page, server: Here) -> None:
    long = "\n\n".join(f"Paragraph **{n}** of many" for n in range(3000)) + "\n\n" + "x" * 60_000
    turn = {"turn_id": "t", "status": "complete", "chain": "chat", "started_at": "2026-01-01T10:00:00Z"}
    said = {
        "input": [{"type": "human", "data": {"content": "go"}}],
        "output": [{"type": "ai", "data": {"content": long}}],
    }
    whole = {"version": 1, "session_id": "long", "title": "Long", "created_at": "2026-01-01T10:00:00Z"}
    with server.client() as client:
        assert client.post("/sessions/import", json={**whole, "turns": [{**turn, **said}]}).status_code == 201
    page.goto("/#/long")
    page.locator(".rendered").wait_for()
    expect(page.locator(".words p strong")).to_have_count(3000)


@pytest.mark.parametrize("status", [408, 429, 503])
def test_a_rendering_that_a_busy_server_refuses_is_tried_again(
    browser: Browser, server: Here, stub: OpenAIStub, status: int
) -> None:
    stub.reply = lambda _: "some **bold** words"
    refused: list[str] = []

    def refuse_once(route: Route) -> None:
        if refused:
            route.continue_()
        else:
            refused.append(route.request.url)
            route.fulfill(status=status, json={"detail": "Too busy."})

    with person(browser, server, quiet=False) as someone:
        someone.page.route("**/render", refuse_once)
        ask(someone.page, "go", wait=False)
        expect(someone.page.locator(".rendered strong")).to_have_text("bold")
    assert len(refused) == 1


def test_an_agents_steps_are_shown_in_order_live_and_from_the_record(page: Page) -> None:
    ask(page, "go", chain="looker")
    for _ in ("live", "from the record"):
        expect(page.locator(".parts > *")).to_have_count(3)
        expect(page.locator(".parts > .step summary")).to_have_text(["Reasoning", "weather · done"])
        expect(page.locator(".parts > .words")).to_have_text("It is 22 degrees.")
        page.locator(".step").nth(1).locator("summary").click()
        expect(page.locator(".step").nth(1)).to_contain_text('"city"')
        expect(page.locator(".step").nth(1)).to_contain_text("22 degrees and sunny")
        page.reload()


def test_the_agent_that_ships_is_talked_to_and_shows_its_tools(page: Page, stub: OpenAIStub) -> None:
    stub.reply = lambda _: "It is **noon**."
    ask(page, "what time is it? [[tool clock]]", chain="agent")
    expect(page.locator(".parts > .step summary")).to_have_text(["clock · done"])
    expect(page.locator(".parts > .words")).to_have_text("It is noon.")
    expect(page.locator("#attach-label")).to_be_visible()


def test_a_model_that_refuses_is_not_one_that_said_nothing(page: Page) -> None:
    ask(page, "[[refuse]]", wait=False)
    expect(page.locator(".mark")).to_have_text("The model refused.")
    page.reload()
    expect(page.locator(".mark")).to_have_text("The model refused.")


def test_a_reply_of_nothing_says_so(page: Page, stub: OpenAIStub) -> None:
    stub.reply = lambda _: " "
    ask(page, "go", wait=False)
    wait_for(lambda: page.locator(".mark").inner_text() == "The model said nothing.", "the mark")

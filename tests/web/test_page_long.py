"""Long replies on the page: what is in sight is rendered first, the rest soon, and one text holds up no other."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Request, Route, expect

from api.page_budget import Budget
from api.page_markdown import render
from tests.browser import chromium, person
from tests.live_server import Here, langserve_warns, serve_here
from tests.web.test_page_speed import CATEGORIES, main_thread

pytestmark = langserve_warns

PART = (
    "## Part {n}\n\nSome **bold** words of part {n}, and so on and on.\n\n"
    "1. one\n\n   ```sh\n   # no heading\n   ```\n\n"
    "2. two\n\nIn between:\n```python\ndef f{n}(x):\n\n    return x\n# no heading either\n\nNo paragraph\n```\n\n"
    "| a | b |\n|---|---|\n| {n} | 2 |\n\n> a quote\nthat goes on\n\n\\[\nx = {n}\n\\]\n\n    ```\n\n"
)
LONG = "".join(PART.format(n=n) for n in range(750))
"""Some 200 kB."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    with serve_here(tmp_path_factory.mktemp("long"), openai_base_url="http://127.0.0.1:1") as server:
        yield server


@pytest.fixture
def page(browser: Browser, server: Here) -> Iterator[Page]:
    with person(browser, server, quiet=False) as alice:
        yield alice.page


def put_there(server: Here, session_id: str, *replies: str) -> None:
    """A conversation of alice's in which these were said."""
    at = "2026-01-01T10:00:00Z"

    def turn(place: int, reply: str) -> dict[str, Any]:
        said = {"input": "human", "output": "ai"}
        texts = {"input": "go", "output": reply}
        messages = {name: [{"type": kind, "data": {"content": texts[name]}}] for name, kind in said.items()}
        return {"turn_id": f"t{place}", "status": "complete", "chain": "chat", "started_at": at, **messages}

    whole = {"version": 1, "session_id": session_id, "title": session_id, "created_at": at}
    turns = [turn(place, reply) for place, reply in enumerate(replies)]
    with server.client() as client:
        assert client.post("/sessions/import", json={**whole, "turns": turns}).status_code == 201


class Calls:
    """Each call of `/render`: held until it is let go, if `held`; answered by a status, if `status` gives one."""

    def __init__(self, page: Page, held: bool = False, status: Callable[[list[str]], int | None] | None = None) -> None:
        self.seen, self.waiting, self.held = list[list[str]](), list[Route](), held
        self.status = status or (lambda _: None)
        page.route("**/render", self._on_call)

    def _on_call(self, route: Route, request: Request) -> None:
        texts = json.loads(request.post_data or "")["texts"]
        self.seen.append(texts)
        status = self.status(texts)
        if status is not None:
            route.fulfill(status=status, json={"detail": "No."})
        elif self.held:
            self.waiting.append(route)
        else:
            route.continue_()

    def let_go(self, page: Page) -> None:
        while not self.waiting:
            page.wait_for_timeout(20)
        self.waiting.pop(0).continue_()


def without_spaces(html: str) -> str:
    return re.sub(r"\s+", "", html)


def test_of_a_long_reply_what_is_in_sight_is_rendered_first_and_all_of_it_as_in_one_piece(
    page: Page, server: Here
) -> None:
    assert 190_000 < len(LONG) < 250_000
    put_there(server, "long", LONG)
    calls = Calls(page, held=True)
    page.goto("/#/long")
    calls.let_go(page)
    expect(page.locator(".words h2").last).to_have_text("Part 749")
    expect(page.locator(".words pre").last).to_be_in_viewport()
    assert page.locator(".words h2").count() < 120
    assert (
        str(page.locator(".reply .words").text_content()).count("Some **bold**") > 400
    )  # the rest can be read meanwhile
    page.locator("#log").evaluate("log => { log.scrollTop = 0; }")
    calls.let_go(page)  # it was asked for before
    calls.let_go(page)
    expect(page.locator(".words h2").first).to_have_text("Part 0")
    expect(page.locator(".words h2 >> nth=0")).to_be_in_viewport()
    calls.held = False
    calls.let_go(page)
    page.locator(".rendered").wait_for()
    assert max(sum(map(len, texts)) for texts in calls.seen) <= 20_000  # others wait for no more than that
    shown = page.locator(".reply .words").evaluate(
        """words => {
            const all = words.cloneNode(true);
            for (const box of all.querySelectorAll(".code")) box.replaceWith(box.querySelector("pre"));
            for (const box of all.querySelectorAll(".piece")) box.replaceWith(...box.childNodes);
            for (const pre of all.querySelectorAll("pre")) pre.removeAttribute("tabindex");
            return all.innerHTML;
        }"""
    )
    whole = page.evaluate(
        "html => Object.assign(document.createElement('p'), { innerHTML: html }).innerHTML",
        render(LONG, Budget(60)).html,
    )
    assert without_spaces(shown) == without_spaces(whole)


def test_two_hundred_kilobytes_are_opened_without_a_stop(browser: Browser, page: Page, server: Here) -> None:
    put_there(server, "quick", LONG)
    calls = Calls(page)
    browser.start_tracing(page=page, categories=CATEGORIES)
    page.goto("/#/quick")
    page.locator(".rendered").wait_for()
    tasks = main_thread(browser.stop_tracing())
    print(sorted((task.ms for task in tasks), reverse=True)[:5])
    assert max(task.ms for task in tasks) < 100  # it was 600, and a second of them
    assert sum(task.ms for task in tasks) < 1000
    assert len(calls.seen) <= 12


def test_long_code_stays_one_block_and_a_long_table_one_with_its_head(page: Page, server: Here) -> None:
    code = "".join(f"line {n} <b>\n\n# {n}\n\n" for n in range(4000))
    rows = "".join(f"| {n} | **b** |\n" for n in range(2500))
    listed = "".join(f"{n}. item **{n}**\n" for n in range(1, 2001))
    put_there(server, "code", f"Before\n\n```text\n{code}```\n\nAfter\n\n| a | b |\n|---|---|\n{rows}\n{listed}\n\nEnd")
    page.goto("/#/code")
    page.locator(".rendered").wait_for()
    expect(page.locator(".words pre")).to_have_count(1)
    expect(page.locator(".words .head")).to_contain_text("text")
    assert page.locator(".words pre").evaluate("pre => pre.textContent") == code
    assert page.locator(".words p").all_text_contents() == ["Before", "After", "End"]
    assert page.locator(".words td strong").count() == 2500
    assert set(page.locator(".words th").all_text_contents()) == {"a", "b"}
    numbers = "lists => lists.flatMap((list) => [...list.children].map((_, place) => list.start + place))"
    assert page.locator(".words ol").evaluate_all(numbers) == list(range(1, 2001))


def any_markdown(seed: int) -> list[str]:
    some = random.Random(seed)
    blocks = [*re.split(r"(?<=\n)\n(?=\S)", PART.replace("{n}", "7")), "- a\n```\ncode\n\nWord\n```\n", "$$\na\n$$\n"]
    blocks += [
        "~~~\n```\nnot\n\nword\n~~~\n",
        "Title\n-----\n",
        "1. item\n\n   ```sh\n   a\n\n   # b\n   ```\n",
        "* a\n- b\n",
    ]
    ends = ["\nPlain words\n\n", "\n", "# Head\n"]  # a list goes on over an empty line: it has a piece of its own
    return ["".join(some.choice(blocks) + some.choice(ends[::2]) for _ in range(12)) for _ in range(150)]


def test_pieces_of_any_markdown_look_as_the_whole_does(page: Page) -> None:
    texts = any_markdown(13)
    cut = (
        "async texts => { const { cut } = await import('/web/pieces.js'); return texts.map((text) => cut(text, 150)); }"
    )
    found = page.evaluate(cut, texts)
    assert sum(map(len, found)) > 3 * len(texts)
    for text, pieces in zip(texts, found, strict=True):
        assert "".join(piece["text"] for piece in pieces) == text
        parts = "".join(render(piece["source"], Budget(60)).html for piece in pieces)
        assert without_spaces(parts) == without_spaces(render(text, Budget(60)).html), text


def test_a_long_list_that_is_written_stays_quick_and_whole(page: Page, server: Here) -> None:
    """A list is one block until it has ended: all of it is text."""
    item = "- some words of a list that is very long indeed, number {n}\n"
    page.evaluate(
        """async () => {
            const { Words } = await import("/web/words.js");
            const words = new Words({ json: () => new Promise(() => {}), render: () => new Promise(() => {}) });
            const item = document.createElement("li");
            const element = item.appendChild(document.createElement("div"));
            document.querySelector("#turns").append(item);
            Object.assign(window, { words, element });
        }"""
    )
    took = page.evaluate(
        """item => {
            let text = "";
            const took = [];
            for (let n = 0; n < 4000; n++) {
                text += item.replace("{n}", n);
                if (n % 10) continue;
                const begun = performance.now();
                window.words.show(window.element, text, false);
                window.element.getBoundingClientRect();
                took.push(performance.now() - begun);
            }
            window.words.show(window.element, text, false);
            return took;
        }""",
        item,
    )
    assert page.locator("#turns .open").evaluate_all("all => all.map((one) => one.textContent).join('')") == "".join(
        item.replace("{n}", str(n)) for n in range(4000)
    )
    print(sorted(took[-100:])[50], sorted(took[:100])[50])
    assert sorted(took[-100:])[50] < 16  # milliseconds: a frame has no more


@pytest.mark.parametrize("status", [403, 413, 422])
def test_a_text_that_the_server_refuses_holds_up_no_other(page: Page, server: Here, status: int) -> None:
    put_there(
        server, f"refused{status}", *(f"This is **{n}**" for n in range(20)), "A **poisoned** one", "The **last**"
    )
    calls = Calls(page, status=lambda texts: status if any("poison" in text for text in texts) else None)
    page.goto(f"/#/refused{status}")
    expect(page.locator(".rendered strong")).to_have_count(21)
    expect(page.locator("#turns > li").nth(20).locator(".words").last).to_have_text("A **poisoned** one")
    page.wait_for_timeout(500)
    assert sum(any("poison" in text for text in texts) for texts in calls.seen) == 2  # among others, and by itself


def test_what_waits_while_nobody_is_signed_in_is_rendered_afterwards(page: Page, server: Here) -> None:
    put_there(server, "away", *(f"This is **{n}**" for n in range(5)))
    signed_in = list[bool]()
    calls = Calls(page, status=lambda _: None if signed_in else 401)
    page.goto("/#/away")
    while not calls.seen:
        page.wait_for_timeout(20)
    signed_in.append(True)
    page.evaluate("dispatchEvent(new Event('focus'))")
    expect(page.locator(".rendered strong")).to_have_count(5)

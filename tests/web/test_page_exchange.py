"""What goes into the page and out of it: shared links, files beside a message, conversations of any size, sources."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableLambda
from playwright.sync_api import Browser, FilePayload, Page, expect
from pydantic import BaseModel

from chains import Chain, load_chains
from tests.browser import Person, ask, chromium, person, replies
from tests.live_server import Here, langserve_warns, serve_here, wait_for
from tests.openai_stub import OpenAIStub

pytestmark = langserve_warns
PICTURE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
SOURCES = [
    Document("Tides follow the moon.", metadata={"title": "On tides", "source": "https://e.example/tides"}),
    Document("The sea is salt.", metadata={"source": "notes.txt"}),
]


class Question(BaseModel):
    input: str


RAG = Chain(
    name="library",
    build=lambda _: RunnableLambda(lambda value: {"answer": f"See [1]. {value['input']}", "context": SOURCES}),
    input_type=Question,
    output_type=dict[str, Any],
    input_messages_key="input",
    history_messages_key="past",
    output_messages_key="answer",
)
LOOKER = Chain(
    name="looker",
    build=lambda _: RunnableLambda(lambda messages: AIMessage(f"I see {kinds(messages[-1])}.")),
    input_type=list[HumanMessage],
    output_type=AIMessage,
)


def kinds(message: Any) -> str:
    if isinstance(message.content, str):
        return "text"
    return ", ".join(block["type"] for block in message.content)


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
    folder = tmp_path_factory.mktemp("exchange")
    chains = [*load_chains(), RAG, LOOKER]
    with serve_here(folder, openai_base_url=stub.base_url, chains=chains, recall="user") as server:
        yield server


@pytest.fixture
def alice(browser: Browser, server: Here, stub: OpenAIStub, request: pytest.FixtureRequest) -> Iterator[Person]:
    stub.reply = lambda messages: f"Reply to {messages[-1]['content']}"
    permissions = ["clipboard-read", "clipboard-write"]
    with person(browser, server, request.node.name[:60], quiet=False, permissions=permissions) as alice:
        yield alice


@pytest.fixture
def page(alice: Person) -> Page:
    return alice.page


def accessible(page: Page) -> None:
    found = Axe().run(page).response["violations"]
    assert found == [], json.dumps(found, indent=1)[:3000]


def turn(number: int, said: str = "Say", output: str = "Reply") -> dict[str, Any]:
    at = "2026-01-01T10:00:00Z"
    return {
        "turn_id": f"t{number}",
        "status": "complete",
        "chain": "chat",
        "started_at": at,
        "ended_at": at,
        "input": [{"type": "human", "data": {"content": f"{said} {number}"}}],
        "output": [{"type": "ai", "data": {"content": f"{output} {number}"}}],
        "kind": "text",
    }


def conversation(session_id: str, turns: list[dict[str, Any]]) -> dict[str, Any]:
    at = "2026-01-01T10:00:00Z"
    return {"version": 1, "session_id": session_id, "title": f"Talk {session_id}", "created_at": at, "turns": turns}


# Shared links.


def test_a_conversation_is_read_by_a_link_without_a_sign_in_until_it_is_revoked(
    page: Page, browser: Browser, server: Here, stub: OpenAIStub
) -> None:
    stub.reply = lambda _: "Some **bold** and\n\n```python\nx = 1\n```\n"
    ask(page, "<b>first</b>")
    page.get_by_role("button", name="Share").click()
    page.get_by_role("button", name="Make a link to this conversation").click()
    expect(page.get_by_role("dialog", name="Shared links").get_by_role("listitem")).to_have_count(1)
    link = page.get_by_role("textbox", name="The link").input_value()
    assert re.fullmatch(re.escape(server.url) + r"/shared#rs_[\w-]{43}", link)
    wait_for(lambda: page.evaluate("navigator.clipboard.readText()") == link, "the link on the clipboard")
    accessible(page)
    page.get_by_role("button", name="Close", exact=True).click()
    ask(page, "second, in private")
    stranger = browser.new_context(base_url=server.url)
    asked: list[str] = []
    stranger.on("request", lambda request: asked.append(request.url))
    reader = stranger.new_page()
    reader.goto(link)
    expect(reader.get_by_role("heading", level=1)).to_have_text("<b>first</b>")
    expect(reader.locator(".reply strong")).to_have_text("bold")
    expect(reader.locator("#turns > li")).to_have_count(1)
    assert reader.locator("textarea, input, form, #turns button").count() == 0
    assert not any("rs_" in url.partition("#")[0] for url in asked)
    assert stranger.cookies() == []
    accessible(reader)
    page.locator("#account").evaluate("one => { one.open = true; }")
    page.get_by_role("button", name="Shared links").click()
    page.get_by_role("button", name=re.compile("^Revoke the link to")).click()
    expect(page.get_by_text("Nothing is shared.")).to_be_visible()
    reader.reload()
    expect(reader.get_by_role("status")).to_contain_text("it was revoked")
    expect(reader.locator("#turns > li")).to_have_count(0)
    stranger.close()


# Files beside a message.


def files(page: Page) -> list[str]:
    return page.locator("#attached span").all_inner_texts()


def drop(page: Page, name: str, kind: str, content: bytes, event: str = "drop") -> None:
    give = """([name, kind, content, event]) => {
        const data = new DataTransfer();
        data.items.add(new File([Uint8Array.from(atob(content), (c) => c.charCodeAt(0))], name, { type: kind }));
        const options = { bubbles: true, cancelable: true };
        document.querySelector("#text").dispatchEvent(event === "paste"
            ? new ClipboardEvent("paste", { clipboardData: data, ...options })
            : new DragEvent("drop", { dataTransfer: data, ...options }));
    }"""
    page.evaluate(give, [name, kind, base64.b64encode(content).decode(), event])


def test_pictures_and_text_files_go_with_a_message_by_button_paste_and_drop(page: Page, server: Here) -> None:
    expect(page.locator("#attach")).to_be_attached()
    page.locator("#chain").select_option("chat")
    expect(page.locator("#attach-label")).to_be_hidden()
    page.locator("#chain").select_option("looker")
    expect(page.locator("#attach-label")).to_be_visible()
    page.locator("#attach").set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": PICTURE})
    drop(page, "b.txt", "text/plain", b"in a ``` file", "paste")
    drop(page, "c.md", "", b"# dropped")
    expect(page.locator("#attached li")).to_have_count(3)
    assert files(page) == ["a.png", "b.txt", "c.md"]
    expect(page.locator("#attached img")).to_have_count(1)
    page.get_by_role("button", name="Remove c.md").click()
    ask(page, "what is it?", chain="looker")
    assert replies(page) == ["I see text, image_url, text."]
    expect(page.locator("#attached li")).to_have_count(0)
    expect(page.locator(".you img")).to_have_count(1)
    page.reload()
    expect(page.locator(".you img")).to_have_count(1)
    expect(page.locator(".you .words")).to_contain_text("in a ``` file")
    with page.expect_download() as exported:
        page.get_by_role("link", name="JSON").click()
    content = json.loads(exported.value.path().read_text())["turns"][0]["input"][0]["data"]["content"]
    assert content[1]["image_url"]["url"] == f"data:image/png;base64,{base64.b64encode(PICTURE).decode()}"
    assert content[2]["text"] == "b.txt\n````\nin a ``` file\n````"


def test_files_that_are_too_large_too_many_or_of_another_kind_are_refused_with_a_reason(page: Page) -> None:
    page.locator("#chain").select_option("looker")
    for name, kind, content, why in (
        ("big.png", "image/png", b"x" * 2_000_001, "big.png is too large: a picture has at most 2 MB."),
        ("big.txt", "text/plain", b"x" * 200_001, "big.txt is too large: a text file has at most 200 kB."),
        (
            "film.mp4",
            "video/mp4",
            b"\xff\xfe\x00",
            "film.mp4 is neither a picture (PNG, JPEG, GIF, WebP) nor a text file.",
        ),
    ):
        drop(page, name, kind, content)
        expect(page.locator("#what")).to_have_text(why)
    six: list[FilePayload] = [{"name": f"{n}.txt", "mimeType": "text/plain", "buffer": b"x"} for n in range(6)]
    page.locator("#attach").set_input_files(six)
    expect(page.locator("#what")).to_have_text("At most 5 files go with one message.")
    expect(page.locator("#attached li")).to_have_count(5)


def test_a_file_that_the_chain_does_not_take_is_refused_with_a_reason_and_the_draft_stays(page: Page) -> None:
    page.locator("#chain").select_option("chat")
    expect(page.locator("#attach-label")).to_be_hidden()
    page.locator("#text").fill("a draft")
    for event in ("paste", "drop"):
        page.locator("#what").evaluate("one => { one.textContent = ''; }")
        drop(page, "a.png", "image/png", PICTURE, event)
        expect(page.locator("#what")).to_have_text("This chain takes no files: nothing was attached.")
    expect(page.locator("#text")).to_have_value("a draft")


def drag(page: Page, where: str, path: Path, text: str) -> None:
    """Lets a file and a text go over an element, as a person does with the mouse: the browser does the rest."""
    box = page.locator(where).bounding_box()
    assert box is not None
    items = [{"mimeType": "text/plain", "data": text}]
    data = {"items": items if text else [], "files": [str(path)], "dragOperationsMask": 1}
    cdp = page.context.new_cdp_session(page)
    for kind in ("dragEnter", "dragOver", "drop"):
        cdp.send("Input.dispatchDragEvent", {"type": kind, "x": box["x"] + 40, "y": box["y"] + 9, "data": data})
    cdp.detach()


@pytest.mark.parametrize("where", ["#log", "#text", "#side"])
def test_a_file_dropped_with_a_text_where_none_is_taken_leaves_the_page_where_it_is_and_the_text_in_it(
    page: Page, where: str, tmp_path: Path
) -> None:
    (tmp_path / "dragged.txt").write_text("What the file holds")
    page.locator("#chain").select_option("chat")
    expect(page.locator("#attach-label")).to_be_hidden()
    page.locator("#text").fill("My draft: ")
    drag(page, where, tmp_path / "dragged.txt", "and some words")
    expect(page.locator("#text")).to_have_value("My draft: and some words")
    expect(page.locator("#what")).to_have_text("This chain takes no files: nothing was attached.")
    drag(page, where, tmp_path / "dragged.txt", "")
    expect(page.locator("#what")).to_have_text("This chain takes no files: nothing was attached.")
    page.locator("#chain").select_option("looker")
    expect(page.locator("#attach-label")).to_be_visible()
    drag(page, where, tmp_path / "dragged.txt", " and more")
    expect(page.locator("#text")).to_have_value("My draft: and some words and more")
    drag(page, where, tmp_path / "dragged.txt", "https://e.example/picture.png")
    expect(page.locator("#attached li")).to_have_count(2)
    page.locator("#chain").select_option("chat")
    expect(page.locator("#attached")).to_be_hidden()
    page.locator("#chain").select_option("looker")
    assert files(page) == ["dragged.txt", "dragged.txt"]  # they waited for a chain that takes them
    page.reload()
    expect(page.locator("#text")).to_have_value("My draft: and some words and more")


def test_cells_of_a_table_are_pasted_as_their_text(page: Page) -> None:
    page.locator("#chain").select_option("looker")
    expect(page.locator("#attach-label")).to_be_visible()
    page.evaluate(
        """() => {
            const data = new DataTransfer();
            data.items.add(new File(["x"], "image.png", { type: "image/png" }));
            data.setData("text/html", "<table></table>");
            data.setData("text/plain", "a\tb");
            const event = new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true });
            window.isLeftToTheBrowser = document.querySelector("#text").dispatchEvent(event);
        }"""
    )
    assert page.evaluate("window.isLeftToTheBrowser")
    expect(page.locator("#attached")).to_be_hidden()


def test_each_file_of_many_is_refused_for_its_own_reason(page: Page) -> None:
    page.locator("#chain").select_option("looker")
    files: list[FilePayload] = [
        {"name": name, "mimeType": "video/mp4", "buffer": b"\xff\xfe\x00"} for name in ("a.mp4", "b.mp4")
    ]
    page.locator("#attach").set_input_files(files)
    expect(page.locator("#what")).to_contain_text("a.mp4 is neither")
    expect(page.locator("#what")).to_contain_text("b.mp4 is neither")


# Conversations of any size.


def test_what_is_exported_comes_back_whatever_its_size(page: Page, server: Here, alice: Person, tmp_path: Path) -> None:
    whole = conversation("large", [turn(n, output="word " * 200) for n in range(5000)])
    path = tmp_path / "large.json"
    path.write_text(json.dumps(whole))
    assert path.stat().st_size > 5_000_000
    page.locator("#account").evaluate("one => { one.open = true; }")
    page.get_by_label("Import conversations").set_input_files(path)
    expect(page.get_by_role("heading", name="Talk large")).to_be_visible()
    with page.expect_download() as exported:
        page.get_by_role("link", name="Export all conversations").click()
    (line,) = exported.value.path().read_text().splitlines()
    came = json.loads(line)
    assert len(came["turns"]) == 5000
    (tmp_path / "all.jsonl").write_text(line + "\n")
    page.get_by_label("Import conversations").set_input_files(tmp_path / "all.jsonl")
    expect(page.locator("#list li")).to_have_count(2)
    with server.client(alice.user) as client:
        assert {one["turns"] for one in client.get("/sessions").json()["sessions"]} == {5000}


# Nothing is sent on top of what was not seen.


def test_a_stale_tab_sends_nothing_and_loses_nothing(page: Page, alice: Person) -> None:
    ask(page, "one")
    stale = alice.open(page.url)
    stale.locator(".rendered").wait_for()
    for one in (page, stale):
        one.evaluate("BroadcastChannel.prototype.postMessage = () => {}")
    ask(page, "two")
    ask(stale, "on top of one", wait=False)
    expect(stale.locator(".trouble:visible")).to_contain_text("moved on")
    expect(stale.locator("#turns > li")).to_have_count(3)
    expect(stale.locator(".you .words")).to_have_text(["one", "two", "on top of one"])
    stale.get_by_role("button", name="Try again").click()
    expect(stale.locator(".reply .rendered").last).to_have_text("Reply to on top of one")
    page.locator("#turns > li").first.get_by_role("button", name="Edit").click()
    page.get_by_role("textbox", name="Your message, changed").fill("eins")
    page.get_by_role("button", name="Ask again").click()
    expect(page.locator("#what")).to_contain_text("moved on")
    expect(page.get_by_label("Message", exact=True)).to_have_value("eins")
    expect(page.locator(".you .words")).to_have_text(["one", "two", "on top of one"])
    assert all("412" in error for error in alice.errors)


# Found again.


def test_a_hit_leads_to_its_turn_in_a_long_conversation(page: Page, server: Here, alice: Person) -> None:
    turns = [turn(n) for n in range(300)]
    turns[40]["output"][0]["data"]["content"] = "Le café du coin"
    with server.client(alice.user) as client:
        assert client.post("/sessions/import", json=conversation("77 days", turns)).status_code == 201
    page.reload()
    page.get_by_label("Search conversations").fill("COIN cafe\u0301")
    expect(page.locator("#list .when")).to_contain_text("café du coin")
    page.locator("#list a").click()
    found = page.locator("#turns > li[data-turn='t40']")
    expect(found).to_be_in_viewport()
    expect(page.locator("#turns > li").first).to_have_attribute("data-turn", re.compile("^t[0-9]+$"))
    page.get_by_label("Search conversations").fill("days 77")
    expect(page.locator("#list .name")).to_have_text("Talk 77 days")


def test_sources_stand_as_footnotes_under_an_answer(page: Page) -> None:
    ask(page, "why tides?", chain="library")
    for _ in ("live", "from the record"):
        expect(page.locator(".sources > li")).to_have_count(2)
        expect(page.get_by_role("link", name="On tides")).to_have_attribute("href", "https://e.example/tides")
        page.locator(".sources summary").first.click()
        expect(page.locator(".sources")).to_contain_text("Tides follow the moon.")
        page.reload()


def test_what_was_recalled_from_elsewhere_is_shown_and_led_to(page: Page) -> None:
    ask(page, "My parrot is called Zanzibar and it speaks Portuguese.")
    page.get_by_role("link", name="New").click()
    ask(page, "What is my parrot Zanzibar called, and does it speak Portuguese?")
    page.get_by_text("1 earlier turn was recalled").click()
    page.locator(".recalled a").click()
    expect(page.locator("#turns > li")).to_have_count(1)
    expect(page.locator(".you .words")).to_have_text("My parrot is called Zanzibar and it speaks Portuguese.")


def test_who_is_offline_keeps_what_was_typed_and_asked(page: Page, alice: Person) -> None:
    ask(page, "one")
    page.get_by_label("Message", exact=True).fill("asked in a tunnel")
    alice.context.set_offline(True)
    page.get_by_label("Message", exact=True).press("Enter")
    expect(page.locator("#banner")).to_contain_text("The connection was lost.")
    expect(page.locator(".you .words")).to_have_text(["one", "asked in a tunnel"])
    alice.context.set_offline(False)
    expect(page.locator("#turns > li").nth(1).locator(".rendered")).to_contain_text("asked in a tunnel")
    expect(page.locator("#banner")).to_be_hidden()

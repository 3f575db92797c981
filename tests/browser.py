"""People in a real browser: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, expect, sync_playwright

from auth.links import Links
from tests.live_server import Live

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PROGRAMS = ("chromium-headless-shell", "chromium")
"""The same browser without and with the parts that only a screen needs, which take twice the processor time."""

WAIT_MS = 60_000
expect.set_options(timeout=WAIT_MS)


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser, until the end of the block. Where it is missing the test is skipped; in CI it fails."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None and os.environ.get("CI") != "true":
        pytest.skip("Chromium is not installed (Debian: apt install chromium)")
    gc.collect()  # what tests before have left must not be looked through while the server here is at work: that takes
    gc.freeze()  # a second, longer than it has for a text
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program or PROGRAMS[-1], args=FLAGS)
        yield browser
        browser.close()


class Person:
    """Somebody who signed in by a one-time link, in a browser profile of their own.

    What goes wrong in the background is noted.
    """

    def __init__(self, browser: Browser, server: Live, user: str, **options: Any) -> None:
        self.user, self.origin = user, server.url
        self.errors, self.foreign = list[str](), list[str]()
        self.context: BrowserContext = browser.new_context(base_url=server.url, locale="en-GB", **options)
        self.context.set_default_timeout(WAIT_MS)
        self.context.on("console", self._on_console)
        self.context.on("weberror", lambda error: self.errors.append(str(error.error)))
        self.context.on("request", self._on_request)
        self.page = self.open(f"/login?token={Links(server.data_dir).create(user)}")
        self.page.get_by_role("button", name="Sign in").click()
        self.page.wait_for_selector(f"#who:has-text('{user}')", state="attached")

    def open(self, path: str = "/") -> Page:
        """Another tab."""
        page = self.context.new_page()
        page.goto(path)
        return page

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.errors.append(message.text)

    def _on_request(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob") and f"{parts.scheme}://{parts.netloc}" != self.origin:
            self.foreign.append(request.url)


@contextmanager
def person(
    browser: Browser, server: Live, user: str = "alice", *, quiet: bool = True, **options: Any
) -> Iterator[Person]:
    """A person until the end of the block, in which no error is logged (if `quiet`) and no other origin is asked."""
    someone = Person(browser, server, user, **options)
    try:
        yield someone
        assert someone.foreign == [], someone.foreign
        assert not quiet or someone.errors == [], someone.errors
    finally:
        someone.context.close()


def ask(page: Page, text: str, *, wait: bool = True, chain: str = "chat") -> None:
    """Types a message and sends it; returns when the whole reply is shown (if `wait`)."""
    if page.locator("#chain").input_value() != chain:
        page.locator("#chain").select_option(chain)
    turns = page.locator("#turns > li").count()
    box = page.get_by_label("Message", exact=True)
    box.fill(text)
    box.press("Control+Enter")  # on a phone, Enter alone is a new line
    if wait:
        page.locator("#turns > li").nth(turns).locator(".rendered").wait_for()
        page.locator("#send").wait_for()


def replies(page: Page) -> list[str]:
    return page.locator("#turns .reply .words").all_inner_texts()


def titles(page: Page) -> list[str]:
    return page.locator("#list .name").all_inner_texts()

"""Markdown to HTML for the page, whoever wrote it."""

from __future__ import annotations

import html
import threading
import time
from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_core import StateCore
from markdown_it.rules_inline import StateInline
from markdown_it.rules_inline.balance_pairs import link_pairs

_MOST_DELIMITERS: Final = 2000
"""More `*`, `_` and `~` in one paragraph than these stay what they are."""

_CALL_S: Final = 1.0
_TEXT_S: Final = 0.3
"""How much of a processor's time all texts of a call may take, and one of them. A long reply takes a twentieth."""

_bound = threading.local()


def render(text: str) -> str:
    """HTML without raw HTML, scripts, images, styles, or links to anything but the web and mail."""
    return render_all([text])[0]


def render_all(texts: Sequence[str]) -> list[str]:
    """The same of several. One that takes too long, as texts made for that do, is shown as it is."""
    end = time.thread_time() + _CALL_S
    return [_rendered(text, min(end, time.thread_time() + _TEXT_S)) for text in texts]


def _rendered(text: str, end: float) -> str:
    _bound.end = end
    try:
        _look_at_the_clock()
        return str(_MARKDOWN.render(text))
    except _TooLong:
        return f"<p>{html.escape(text)}</p>\n".replace("\n", "<br>\n")


class _TooLong(Exception):
    pass


def _look_at_the_clock(*state: object) -> bool:
    """A rule that never applies, tried before all others."""
    if time.thread_time() > _bound.end:
        raise _TooLong
    return False


def _pair_delimiters(state: StateInline) -> None:
    """markdown-it's own rule takes a time that grows with the square of their number where they don't match."""
    _look_at_the_clock()
    if len(state.delimiters) > _MOST_DELIMITERS:
        state.delimiters.clear()
    link_pairs(state)


def _safe_link(url: str) -> bool:
    try:
        return urlsplit(url).scheme.lower() in ("http", "https", "mailto")
    except ValueError:
        return False


def _harmless(state: StateCore) -> None:
    """Links tell no other site where they come from, and leave the page open; tables are aligned by class."""
    for token in state.tokens:
        style = token.attrs.pop("style", None)
        if style is not None:
            token.attrSet("class", str(style).removeprefix("text-align:"))
        for inner in token.children or ():
            if inner.type == "link_open":
                inner.attrSet("rel", "noopener noreferrer nofollow")
                inner.attrSet("target", "_blank")


def _markdown() -> MarkdownIt:
    markdown = MarkdownIt("commonmark", {"html": False, "breaks": True}, renderer_cls=RendererHTML)
    markdown.enable(["table", "strikethrough"])
    markdown.disable(["image", "html_block", "html_inline"])  # an image would tell its host who reads, and when
    markdown.validateLink = _safe_link  # type: ignore[method-assign]  # markdown-it's own way to set it
    markdown.core.ruler.push("harmless", _harmless)
    markdown.block.ruler.before("table", "clock", _look_at_the_clock)
    markdown.inline.ruler.before("text", "clock", _look_at_the_clock)
    markdown.inline.ruler2.at("balance_pairs", _pair_delimiters)
    return markdown


_MARKDOWN = _markdown()

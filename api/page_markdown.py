"""Markdown to HTML for the page, whoever wrote it."""

from __future__ import annotations

from urllib.parse import urlsplit

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_core import StateCore


def render(text: str) -> str:
    """HTML without raw HTML, scripts, images, styles, or links to anything but the web and mail."""
    return str(_MARKDOWN.render(text))


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
    return markdown


_MARKDOWN = _markdown()

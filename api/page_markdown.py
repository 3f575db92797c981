"""Markdown to HTML for the page, whoever wrote it, block by block, and within a bound."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from html import escape
from typing import Any, Final, NamedTuple
from unicodedata import bidirectional
from urllib.parse import urlsplit

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_core import StateCore
from markdown_it.rules_inline import StateInline
from markdown_it.rules_inline.balance_pairs import link_pairs
from markdown_it.token import Token

from api.page_budget import Budget, TooSlow
from api.page_code import highlight
from api.page_math import math

_MOST_DELIMITERS: Final = 2000
"""More `*`, `_` and `~` in one paragraph than these stay what they are."""

_CALL_S: Final = 1.0
_TEXT_S: Final = 0.5
"""How much of a processor's time all texts of a call may take, and one of them. A page's longest piece takes a tenth
of a second on a slow machine."""

_BLOCKS = frozenset(f"{name}_open" for name in ("heading", "paragraph", "td", "th"))
"""They find their direction by themselves: `dir="auto"`."""

_AROUND = ("blockquote", "bullet_list", "list_item", "ordered_list", "table")
"""They are told theirs: `auto` does not look into what finds its own."""

_RUNS: Final = {"L": "ltr", "R": "rtl", "AL": "rtl"}
"""Unicode's classes of the letters that have a direction."""


class Rendered(NamedTuple):
    """HTML, and how many lines of the text it is made of."""

    html: str
    lines: int


def render_all(texts: Sequence[str], *, is_open: bool = False) -> list[Rendered]:
    """Renders texts, in bounded time. One that takes too long, as texts made for that do, is shown as it is."""
    call = Budget(_CALL_S)
    return [render(text, call.part(_TEXT_S), is_open) for text in texts]


def render(text: str, budget: Budget, is_open: bool = False) -> Rendered:
    """HTML without raw HTML, scripts, images, styles, or links to anything but the web and mail.

    Of a text that is still being written (`is_open`), only the blocks that nothing can change any more.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    env: dict[str, Any] = {"open": is_open, "budget": budget}
    lines = text.count("\n") if is_open else text.count("\n") + 1
    source = "\n".join(text.split("\n")[:lines]) if is_open else text
    try:
        budget.check()
        blocks = list(_blocks(_markdown().parse(source, env)))
        if is_open:
            lines = _finished(blocks, source, lines)
        html = "".join(_html(block, env) for block in blocks if not is_open or _last_line(block) <= lines)
    except (TooSlow, RecursionError):
        return Rendered(_plain(source), lines)
    return Rendered(html, lines)


def _blocks(tokens: Sequence[Token]) -> Iterator[list[Token]]:
    block: list[Token] = []
    depth = 0
    for token in tokens:
        block.append(token)
        depth += token.nesting
        if depth == 0:
            yield block
            block = []


def _last_line(block: list[Token]) -> int:
    return block[0].map[1] if block[0].map else 0


def _finished(blocks: list[list[Token]], source: str, lines: int) -> int:
    """How many lines belong to blocks that have ended: all before the last block, and that, if it is a closed fence."""
    if not blocks or blocks[-1][0].map is None:
        return 0
    first, last = blocks[-1][0].map
    if blocks[-1][0].type == "fence" and last - first > 1:
        closing = source.split("\n")[last - 1].strip()
        if closing.startswith(blocks[-1][0].markup) and not closing.strip(blocks[-1][0].markup[0]):
            return min(last, lines)
    return int(first)


def _html(block: list[Token], env: dict[str, Any]) -> str:
    env["budget"].check()
    markdown = _markdown()
    return str(markdown.renderer.render(block, markdown.options, env))


def _plain(text: str) -> str:
    return f'<pre dir="auto">{escape(text)}</pre>'


def _safe_link(url: str) -> bool:
    try:
        return urlsplit(url).scheme.lower() in ("http", "https", "mailto")
    except ValueError:
        return False


def _harmless(state: StateCore) -> None:
    """Links tell no other site where they come from; tables are aligned by class; each block finds its direction."""
    for token in state.tokens:
        style = token.attrs.pop("style", None)
        if style is not None:
            token.attrSet("class", str(style).removeprefix("text-align:"))
        if token.type in _BLOCKS:
            token.attrSet("dir", "auto")
        for inner in token.children or ():
            if inner.type == "link_open":
                inner.attrSet("rel", "noopener noreferrer nofollow")
                inner.attrSet("target", "_blank")


def _directions(state: StateCore) -> None:
    """What stands around other blocks runs as the first text in it does."""
    waiting: list[Token] = []
    for token in state.tokens:
        name, _, end = token.type.rpartition("_")
        if name in _AROUND and end == "open":
            waiting.append(token)
        elif name in _AROUND and end == "close" and waiting and waiting[-1].type == f"{name}_open":
            waiting.pop().attrSet("dir", "auto")
        elif token.children and waiting and (direction := _direction(token.children)):
            for around in waiting:
                around.attrSet("dir", direction)
            waiting.clear()


def _direction(tokens: Sequence[Token]) -> str | None:
    """How a text runs, by its first letter."""
    letters = (letter for token in tokens if token.type == "text" for letter in token.content)
    return next((found for letter in letters if (found := _RUNS.get(bidirectional(letter)))), None)


def _tasks(state: StateCore) -> None:
    """`[ ]` and `[x]` at the beginning of a list's item are boxes."""
    for before, paragraph, inline in zip(state.tokens, state.tokens[1:], state.tokens[2:], strict=False):
        if before.type != "list_item_open" or paragraph.type != "paragraph_open" or not inline.children:
            continue
        first, mark = inline.children[0], inline.content[:4].lower()
        if first.type == "text" and mark in ("[ ] ", "[x] "):
            first.content = first.content[4:]
            inline.children.insert(0, Token("task", "", 0, meta={"done": mark == "[x] "}))
            before.attrJoin("class", "task")


def _task(_: Any, tokens: list[Token], place: int, options: Any, env: Any) -> str:
    label, sign = ("done", "☑") if tokens[place].meta["done"] else ("to do", "☐")
    return f'<span role="img" aria-label="{label}">{sign}</span> '


def _fence(_: Any, tokens: list[Token], place: int, options: Any, env: Any) -> str:
    language = (tokens[place].info.split() or [""])[0][:30]
    code = highlight(tokens[place].content, language, env["budget"])
    return f'<pre data-language="{escape(language)}"><code>{code}</code></pre>\n'


def _on_time(state: Any, *_: Any) -> bool:
    """A rule that matches nothing, and is asked wherever the parser is: the only way to leave it early."""
    if "budget" in state.env:
        state.env["budget"].check()
    return False


def _pair_delimiters(state: StateInline) -> None:
    """markdown-it's own rule takes a time that grows with the square of their number where they don't match."""
    _on_time(state)
    if len(state.delimiters) > _MOST_DELIMITERS:
        state.delimiters.clear()
    link_pairs(state)


@cache
def _markdown() -> MarkdownIt:
    markdown = MarkdownIt(
        "commonmark", {"html": False, "breaks": True, "linkify": True, "maxNesting": 20}, renderer_cls=RendererHTML
    )
    markdown.enable(["table", "strikethrough", "linkify"])
    markdown.disable(["image", "html_block", "html_inline"])  # an image would tell its host who reads, and when
    markdown.validateLink = _safe_link  # type: ignore[method-assign]  # markdown-it's own way to set it
    if markdown.linkify is not None:
        markdown.linkify.set({"fuzzy_link": False})  # or `setup.py` would lead to Paraguay
    markdown.use(math)
    markdown.block.ruler.before("table", "on_time", _on_time, {"alt": []})
    markdown.inline.ruler.before("text", "on_time", _on_time)
    markdown.inline.ruler2.at("balance_pairs", _pair_delimiters)
    markdown.core.ruler.push("tasks", _tasks)
    markdown.core.ruler.push("harmless", _harmless)
    markdown.core.ruler.push("directions", _directions)
    markdown.add_render_rule("fence", _fence)
    markdown.add_render_rule("task", _task)
    return markdown

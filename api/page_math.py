r"""Mathematics in Markdown: `\(a\)`, `\[x\]`, `$a$` and `$$x$$`, as MathML, which browsers draw themselves."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from html import escape, unescape
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token

MAX_FORMULA = 2_000
"""Characters. A longer one is shown as it was written: the time that one takes grows with its depth."""

_ENDS = {"\\(": "\\)", "\\[": "\\]", "$$": "$$", "$": "$"}
_DOLLAR = re.compile(r"\$(?=[^\s$])([^$\n]*[^\s$\\])\$(?!\d)")
"""As in Pandoc: no space inside the dollars, no digit after them, or prices would be formulas."""

_ELEMENTS = """math mi mn mo ms mspace mtext menclose merror mfenced mfrac mpadded mphantom mroot mrow msqrt mstyle
    mmultiscripts mover mprescripts msub msubsup msup munder munderover mtable mtd mtr"""
_PROPERTIES = """accent columnalign columnlines columnspacing display displaystyle fence form largeop linebreak
    linethickness lspace mathcolor mathvariant maxsize minsize movablelimits notation rowlines rowspacing rspace
    scriptlevel separator stretchy symmetric width height depth voffset xmlns"""
_TAGS, _ATTRIBUTES = frozenset(_ELEMENTS.split()), frozenset(_PROPERTIES.split())


def math(markdown: MarkdownIt) -> None:
    """A plugin of markdown-it's."""
    markdown.inline.ruler.before("escape", "math", _inline)
    markdown.block.ruler.before("fence", "math", _block, {"alt": ["paragraph", "reference", "blockquote", "list"]})
    markdown.add_render_rule("math_inline", _renderer("inline"))
    markdown.add_render_rule("math_block", _renderer("block"))


def _inline(state: StateInline, silent: bool) -> bool:
    found = _formula(state.src, state.pos, state.posMax)
    if found is None:
        return False
    formula, end, block = found
    if not silent:
        state.push("math_block" if block else "math_inline", "math", 0).content = formula
    state.pos = end
    return True


def _formula(text: str, start: int, limit: int) -> tuple[str, int, bool] | None:
    """What stands there, where it ends, and whether it wants a line of its own."""
    opening = text[start : start + 2]
    if opening not in _ENDS:
        found = _DOLLAR.match(text, start, min(limit, start + MAX_FORMULA)) if opening.startswith("$") else None
        return None if found is None else (found[1], found.end(), False)
    end = text.find(_ENDS[opening], start + 2, min(limit, start + 2 + MAX_FORMULA))
    formula = text[start + 2 : end].strip() if end > 0 else ""
    return (formula, end + 2, opening != "\\(") if formula else None


def _block(state: StateBlock, start: int, end: int, silent: bool) -> bool:
    begin = state.bMarks[start] + state.tShift[start]
    opening = state.src[begin : begin + 2]
    if opening not in ("$$", "\\[") or state.is_code_block(start):
        return False
    lines: list[str] = []
    for line in range(start, end):
        left = begin + 2 if line == start else state.bMarks[line]
        text = state.src[left : state.eMarks[line]]
        lines.append(text)
        if _ENDS[opening] in text:
            return _closed(state, start, line + 1, "\n".join(lines), _ENDS[opening], silent)
    # Of a text that is not all there yet, nothing after an open formula is certain.
    return bool(state.env.get("open")) and _taken(state, start, end, "\n".join(lines), silent)


def _closed(state: StateBlock, start: int, end: int, text: str, ending: str, silent: bool) -> bool:
    formula, _, rest = text.partition(ending)
    return not rest.strip() and bool(formula.strip()) and _taken(state, start, end, formula.strip(), silent)


def _taken(state: StateBlock, start: int, end: int, formula: str, silent: bool) -> bool:
    if not silent:
        token = state.push("math_block", "math", 0)
        token.block, token.content, token.map = True, formula, [start, end]
        state.line = end
    return True


def _renderer(display: str) -> Callable[..., str]:
    def render(_: Any, tokens: list[Token], place: int, options: Any, env: Any) -> str:
        budget = env.get("budget")
        if budget is not None:
            budget.check()
        drawn = _mathml(tokens[place].content, display)
        return f'<p class="formula">{drawn}</p>' if tokens[place].block else drawn

    return render


def _mathml(formula: str, display: str) -> str:
    """MathML; of a formula that is none, its text."""
    from latex2mathml.converter import convert_to_element  # 0.1 s, which no start needs

    try:
        if len(formula) > MAX_FORMULA:
            raise ValueError
        return "".join(_markup(convert_to_element(formula, display=display)))
    except Exception:  # noqa: BLE001 - latex2mathml has no base of its errors: it may be an IndexError
        return f"<code>{escape(formula)}</code>"


def _markup(element: Any) -> Iterator[str]:
    """The element as HTML. The library's own writing escapes nothing, and lets links and styles through."""
    known = element.tag in _TAGS
    if known:
        attributes = (f' {name}="{escape(str(value))}"' for name, value in element.items() if name in _ATTRIBUTES)
        yield f"<{element.tag}{''.join(attributes)}>"
    yield escape(unescape(element.text or ""))
    for child in element:
        yield from _markup(child)
    if known:
        yield f"</{element.tag}>"
    yield escape(unescape(element.tail or ""))

"""Code with its words marked for colours, by Pygments."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from itertools import groupby
from typing import Any

from api.page_budget import Budget

MAX_CODE = 20_000
"""Characters. Longer code is shown without colours: Pygments takes a millisecond for each thousand."""

_CLASSES = {"Keyword": "k", "String": "s", "Number": "n", "Comment": "c", "Function": "f", "Class": "f", "Tag": "k"}
_CLASSES |= {"Decorator": "f", "Builtin": "b", "Attribute": "b", "Constant": "n", "Deleted": "k", "Inserted": "s"}


def highlight(code: str, language: str, budget: Budget) -> str:
    """The code as HTML: escaped, and with `<span class>` where its language is known."""
    if not language or len(code) > MAX_CODE or budget.spent:
        return escape(code)
    lexer = _lexer(language)
    return escape(code) if lexer is None else "".join(_marked(lexer, code, budget))


def _lexer(language: str) -> Any:
    from pygments.lexers import get_lexer_by_name  # imported when the first code is shown, not when the server starts
    from pygments.util import ClassNotFound

    try:
        return get_lexer_by_name(language, stripnl=False, ensurenl=False)
    except ClassNotFound:
        return None


def _marked(lexer: Any, code: str, budget: Budget) -> Iterator[str]:
    for name, words in groupby(_named(lexer, code, budget), key=lambda pair: pair[0]):
        text = escape("".join(word for _, word in words))
        yield f'<span class="{name}">{text}</span>' if name else text


def _named(lexer: Any, code: str, budget: Budget) -> Iterator[tuple[str, str]]:
    for kind, word in lexer.get_tokens(code):
        budget.check()
        yield next((_CLASSES[part] for part in reversed(kind) if part in _CLASSES), ""), word

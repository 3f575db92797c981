"""What a search compares: words, folded so that case, accents and widths make no difference; and how well a text fits.

Every store cuts texts up with these functions, whatever index it keeps, so that all of them find the same.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from histories.model import Hit

K = TypeVar("K")

_SNIPPET: Final = 160
_HITS: Final = 3
_K1, _B = 1.2, 0.75
"""BM25's usual parameters: how soon more of a word counts no more, and how much a text's length counts."""

#: Scripts without spaces between words: each of their characters is a word of its own. So is a symbol or an emoji.
_SINGLE: Final = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD: Final = re.compile(rf"[{_SINGLE}]|[^\W_{_SINGLE}]+|[\u2190-\u2bff\U0001f000-\U0001faff]")


@dataclass(frozen=True, slots=True)
class Text(Generic[K]):
    """A text that can be found, and what it is called."""

    key: K
    text: str


def fold(text: str) -> str:
    """The text without differences of case, accent and width (NFKD, case folded, no combining marks)."""
    if text.isascii():
        return text.lower()
    decomposed = unicodedata.normalize("NFKD", text).casefold()
    return "".join(c for c in unicodedata.normalize("NFKD", decomposed) if not unicodedata.combining(c))


def words(text: str) -> list[str]:
    """The words of a text, folded, in their order."""
    return _WORD.findall(fold(text))


def hits(query: str, title: str, texts: Sequence[Text[str]]) -> list[Hit] | None:
    """Where the query's words stand, newest first (at most three), if each begins a word of a text or of the title.

    None if one of them does not, or if the query has no words.
    """
    wanted = set(words(query))
    if not wanted:
        return None
    missing, found = {word for word in wanted if not _has(title, word)}, list[Hit]()
    for text in reversed(texts):
        there = {word for word in wanted if _has(text.text, word)}
        missing -= there
        if there and len(found) < _HITS:
            found.append(Hit(text.key, snippet(text.text, there)))
    return None if missing else found


def _has(text: str, word: str) -> bool:
    return any(other.startswith(word) for other in words(text))


def snippet(text: str, wanted: Iterable[str]) -> str:
    """Some of the text around the first of these (folded) words that stands in it, on one line."""
    flat, wanted = " ".join(text.split()), tuple(wanted)
    at = next((m.start() for m in re.finditer(r"\S+", flat) if any(w.startswith(wanted) for w in words(m[0]))), 0)
    start = max(0, at - _SNIPPET // 3)
    end = start + _SNIPPET
    return ("…" if start else "") + flat[start:end].strip() + ("…" if end < len(flat) else "")


def rank(query: str, texts: Sequence[Text[K]]) -> list[tuple[K, float]]:
    """The keys of the texts that have a word of the query, with their BM25 score, best first."""
    wanted, counts = set(words(query)), [Counter(words(text.text)) for text in texts]
    if not texts:
        return []
    average = max(1.0, sum(count.total() for count in counts) / len(texts))
    rarity = {word: _rarity(sum(word in count for count in counts), len(texts)) for word in wanted}
    scores = []
    for text, count in zip(texts, counts, strict=True):
        norm = _K1 * (1 - _B + _B * count.total() / average)
        score = sum(rarity[word] * count[word] * (_K1 + 1) / (count[word] + norm) for word in wanted if count[word])
        if score > 0:
            scores.append((text.key, score))
    return sorted(scores, key=lambda scored: scored[1], reverse=True)


def _rarity(texts_with: int, texts: int) -> float:
    return math.log(1 + (texts - texts_with + 0.5) / (texts_with + 0.5))

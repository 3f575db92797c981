"""What a search compares: words, folded so that case, accents and widths make no difference; and how well a text fits.

Every store cuts texts up with these functions, whatever index it keeps, so that all of them find the same.
"""

from __future__ import annotations

import math
import re
import unicodedata
from array import array
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from heapq import nlargest
from operator import itemgetter
from typing import Final, Generic, TypeVar

from histories.model import Hit

K = TypeVar("K")

_SNIPPET: Final = 160
_HITS: Final = 3
_LOOKED_AT: Final = 4_000
"""In how many places a ranking looks up words, the rarest ones first: some milliseconds."""

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
    """Where the query's words stand, if each begins a word of a text or of the title: three texts at most, those with
    all of the words first, then those with any, each the newest first.

    None if one of them does not, or if the query has no words.
    """
    return found_in(query, title, reversed(texts))


def found_in(query: str, title: str, newest_first: Iterable[Text[str]]) -> list[Hit] | None:
    """The same for texts that come newest first: no more of them are asked for than an answer needs."""
    wanted = set(words(query))
    if not wanted:
        return None
    missing, whole, others = {word for word in wanted if not _has(title, word)}, list[Hit](), list[Hit]()
    for text in newest_first:
        there = {word for word in wanted if _has(text.text, word)}
        missing -= there
        found = whole if there == wanted else others
        if there and len(found) < _HITS:
            found.append(Hit(text.key, snippet(text.text, there)))
        if not missing and len(whole) == _HITS:
            break
    return None if missing else [*whole, *others][:_HITS]


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
    """The keys of the texts that have a telling word of the query, with their BM25 score, best first."""
    index = Index[K]()
    for text in texts:
        index.add(text.key, text.text)
    return index.rank(query)


class Index(Generic[K]):
    """Which texts have which words, so that a ranking looks at those alone that have one of the query.

    Words count as they are stemmed, and those that every text has, as "the", not at all.
    """

    def __init__(self) -> None:
        # A place is a text's number and, in its last byte, how often the word stands there: a word takes four bytes.
        self._places: dict[str, array[int]] = {}
        self._numbers: dict[K, int] = {}
        self._keys: list[K] = []
        self._sizes = array("I")
        self._total = 0

    def __contains__(self, key: K) -> bool:
        return key in self._numbers

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, key: K, text: str) -> None:
        """A text, under a key that is new."""
        counts, number = Counter(terms(text)), len(self._keys)
        self._numbers[key] = number
        self._keys.append(key)
        self._sizes.append(size := counts.total())
        self._total += size
        for term, count in counts.items():
            self._places.setdefault(term, array("I")).append(number << 8 | min(count, 255))

    def rank(self, query: str, among: Container[K] | None = None, limit: int | None = None) -> list[tuple[K, float]]:
        """The keys of those that have a word of the query, with their BM25 score, best first; those `among` alone.

        The rarest words are looked at first, and no more of the others than make a question's time bounded.
        """
        scores: dict[int, float] = {}
        grow, looked_at = _K1 * _B / max(1.0, self._total / max(1, len(self._keys))), 0
        places = [found for term in set(terms(query)) if (found := self._places.get(term))]
        for found in sorted(places, key=len):
            looked_at += len(found)
            if scores and looked_at > _LOOKED_AT:
                break
            weight = _rarity(len(found), len(self._keys)) * (_K1 + 1)
            for place in found:
                number, count = place >> 8, place & 255
                score = weight * count / (count + _K1 * (1 - _B) + grow * self._sizes[number])
                scores[number] = scores.get(number, 0.0) + score
        ranked = [(self._keys[number], score) for number, score in scores.items()]
        kept = ranked if among is None else [one for one in ranked if one[0] in among]
        return nlargest(len(kept) if limit is None else limit, kept, key=itemgetter(1))


def _rarity(texts_with: int, texts: int) -> float:
    return math.log(1 + (texts - texts_with + 0.5) / (texts_with + 0.5))


def terms(text: str) -> list[str]:
    """The words of a text that tell what it is about, stemmed; all of them, if none does.

    A stem is the beginning of most words that it stands for: an index of whole words can look for those that begin so.
    """
    found = words(text)
    return [_stem(word) for word in found if word not in _STOP] or found


@lru_cache(maxsize=50_000)
def _stem(word: str) -> str:
    """An English word without its endings: enough that a question meets what was said. Others stay what they are."""
    word = _IRREGULAR.get(word, word)
    if len(word) < 4 or not word.isascii():
        return word
    if word.endswith("ies"):
        word = word[:-3] + "y"
    elif word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    for ending in ("ing", "ed", "ly"):
        stem = word.removesuffix(ending)
        if stem != word and len(stem) > 2 and any(vowel in stem for vowel in "aeiouy"):
            word = stem[:-1] if stem[-1] == stem[-2] and stem[-1] not in "lsz" else stem
            break
    return word[:-1] if len(word) > 3 and word[-1] in "ey" else word


_STOP: Final = frozenset(
    """
    a about all also am an and any are as at be been but by can could d did do does doing for from had has have he
    her here him his how i if in into is it its just ll m me my of on or our please re s she so some t than that the
    their them then there these they this those to too up us ve very was we were what when where which who whom
    whose why will with would you your
    """.split()  # noqa: SIM905 - a paragraph reads better than 90 lines
)

_IRREGULAR: Final = {
    form: base
    for base, forms in {
        "go": "went gone goes",
        "buy": "bought",
        "eat": "ate eaten",
        "see": "saw seen",
        "say": "said",
        "tell": "told",
        "take": "took taken",
        "give": "gave given",
        "get": "got gotten",
        "make": "made",
        "come": "came",
        "find": "found",
        "think": "thought",
        "know": "knew known",
        "meet": "met",
        "write": "wrote written",
        "run": "ran",
        "drive": "drove driven",
        "fly": "flew flown",
        "grow": "grew grown",
        "speak": "spoke spoken",
        "teach": "taught",
        "win": "won",
        "lose": "lost",
        "sell": "sold",
        "leave": "left",
        "begin": "began begun",
        "wear": "wore worn",
        "sing": "sang sung",
        "swim": "swam swum",
        "child": "children",
        "person": "people",
        "wife": "wives",
    }.items()
    for form in forms.split()
}


def passage(query: str, text: str, size: int) -> str:
    """About `size` characters of a longer text: where most of the query's words stand, on one line."""
    flat = " ".join(text.split())
    if len(flat) <= size:
        return flat
    step, wanted = max(1, size // 4), set(terms(query))
    found = [len(wanted & set(terms(flat[at : at + step + 20]))) for at in range(0, len(flat), step)]
    start = max(range(len(found)), key=lambda place: (sum(found[place : place + 4]), -place)) * step
    start = max(0, min(start - step // 2, len(flat) - size))
    return ("… " if start else "") + flat[start : start + size].strip() + (" …" if start + size < len(flat) else "")

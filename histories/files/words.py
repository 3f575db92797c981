"""What the file of a session says, in a form that shows at once what was not said in it.

It may hold more than was said: turns that were rewound, what only looks like a message. So it tells which files need
not be parsed, and nothing else.
"""

from __future__ import annotations

import json
from typing import Final

from histories.files.records import is_whole
from histories.search import fold, words

_CONTENT: Final = '"content":'
_SUMS: Final = '"s":'
_PACKED: Final = b'{"wtf8":'
_decode = json.JSONDecoder().raw_decode


def words_of(data: bytes) -> bytes | None:
    """The title of a log and the texts of its messages, folded; None if it has to be parsed to know them.

    Within a string of JSON a quotation mark is escaped: what is found here are members, and no message lacks its own.
    """
    last = data.rfind(b"\n", 0, -1) + 1
    if not data.endswith(b"\n") or not is_whole(data[last:-1]) or _PACKED in data:
        return None
    try:
        log = data.decode("ascii")
        sums, _ = _decode(log, log.index(_SUMS, last) + len(_SUMS))
        found: dict[str, None] = {sums["title"]: None}  # each text once
        place = log.find(_CONTENT)
        while place >= 0:
            content, end = _decode(log, place + len(_CONTENT))
            for part in content if isinstance(content, list) else (content,):
                text = part.get("text") if isinstance(part, dict) else part
                if isinstance(text, str):
                    found[text] = None
            place = log.find(_CONTENT, end)
    except (ValueError, LookupError, TypeError, RecursionError):  # it is damaged
        return None
    return _encoded(fold("\n".join(found)))


def traces_of(query: str) -> list[bytes]:
    """What `words_of` has in it wherever the words of the query were said."""
    return [_encoded(word) for word in words(query)]


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")

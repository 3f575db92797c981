"""Searches sessions that an index does not have yet, by a look at their logs.

A log is ASCII: where a word does not stand in its bytes, it stands in none of its turns, and nothing of it is parsed.
So thousands of sessions are looked through in the time in which some tens come into an index.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from histories import codec
from histories.base import HistoryDamaged, Session
from histories.files.disk import Disk
from histories.files.listing import session_entry
from histories.files.log import Log
from histories.files.looks import place_of
from histories.search import Text, fold, found_in, words

_LARGE: Final = 32 * 1024 * 1024
"""Of a larger log the bytes are not looked at: it takes longer than to read its newest turns."""


@dataclass(frozen=True, slots=True)
class Match:
    """A session that was found, where it stands in lists, and the name of its log.

    `key` is its key in the index; 0 if it was not found there, but with its hits.
    """

    place: str
    name: str
    session: Session
    key: int = 0

    def order(self) -> tuple[str, str]:
        """What lists are in the order of."""
        return self.place, self.name


class _Late(Exception):
    """It took too long."""


def scan(
    disk: Disk, folder: int, unread: Mapping[str, str], query: str, *, limit: int, until: float
) -> tuple[list[Match], tuple[str, str] | None]:
    """The sessions of these logs in which the query's words stand: at most `limit` + 1, in the order of `unread`.

    Also the place and name of the first one that was not looked at, as the time was up; None if all were. One is
    looked at in any case, unless it is so long that its newest turns alone take longer.
    """
    wanted, found = set(words(query)), list[Match]()
    for number, (name, place) in enumerate(unread.items()):
        if len(found) > limit or (number and time.monotonic() >= until):
            return found, (place, name)
        try:
            session = _session(disk, folder, name, query, wanted, until)
        except _Late:
            return found, (place, name)
        if session is not None:
            found.append(Match(place_of(session.updated_at), name, session))
    return found, None


def _session(disk: Disk, folder: int, name: str, query: str, wanted: Collection[str], until: float) -> Session | None:
    try:
        log = Log(disk, disk.open(folder, name, os.O_RDONLY))
    except FileNotFoundError:  # deleted in this moment
        return None
    try:
        if not _may_say(log, wanted):
            return None
        session = session_entry(log)
        hits = found_in(query, session.title, _newest_first(log, until))
        return None if hits is None else replace(session, hits=hits)
    except HistoryDamaged:
        return None
    finally:
        log.close()


def _may_say(log: Log, wanted: Collection[str]) -> bool:
    """Whether all of the (folded) words stand in the bytes of a log."""
    size = log.size()
    if size > _LARGE:
        return True
    data = log.disk.read(log.descriptor, size, 0)
    if b"\\u" not in data:
        text = data.lower().decode("ascii", "replace")
        return all(word in text for word in wanted)
    escaped = data.decode("ascii", "replace").encode("ascii", "replace").decode("unicode_escape", "replace")
    folded = fold(escaped.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    return all(word in folded for word in wanted)


def _newest_first(log: Log, until: float) -> Iterator[Text[str]]:
    for number, entry in enumerate(log.entries()):
        if number and time.monotonic() >= until:
            raise _Late
        turn = entry.turn()
        yield Text(turn.turn_id, codec.text_of([*turn.input, *turn.output]))

"""Lists, searches and recalls in a user's sessions, by their index."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import groupby, islice

from histories import codec
from histories.base import HistoryDamaged, Hit, InvalidCursor, Page, Recalled, Session, Turn, TurnStatus
from histories.files.catch_up import (
    catch_up,
    catch_up_some,
    is_behind,
    is_complete,
    session_of,
)
from histories.files.disk import Disk
from histories.files.index import Found, Index
from histories.files.log import Log
from histories.files.looks import PLACE_LENGTH, is_old
from histories.files.pace import ALL, Pace
from histories.files.scan import Match, scan
from histories.search import snippet, words

_HITS = 3
_LOOK_S = 0.1
"""How long a list, a search or a recall of a server brings the index up to the logs, before it answers."""
_SEARCH_S = 1.0
"""How long a search looks through the logs of sessions that the index does not have yet."""
_MOST = 256 * 1024
"""A log with more new bytes than this takes a list, a search or a recall too long."""
_MANY = 32
"""With more sessions that have changed, a recall does not wait for them."""
_TRIES = 3
"""How often a recall is asked anew because a session that it found had just changed."""

Place = tuple[str, str]
"""Where a session stands in a list: the time of its last change, and the name of its file."""


def parse_cursor(cursor: str) -> Place:
    """What a page of sessions ended with. `InvalidCursor`."""
    place, tilde, name = cursor.partition("~")
    if not tilde or not (place.isascii() and place.isdigit() and len(place) == PLACE_LENGTH):
        raise InvalidCursor
    return place, name


def find_sessions(
    index: Index, disk: Disk, folder: int, *, limit: int, before: Place | None, query: str | None,
    later: Callable[[], None] | None = None,
) -> Page[Session]:  # fmt: skip
    """A page of the sessions in a folder, by the time of their last record; with a query, of those that say it.

    With `later` it takes a bounded time: that is called if the index has to be brought up to the logs by somebody else.
    A page may be short of what is there then, or empty, and its `next` goes on where it ended.
    """
    wanted = None if query is None or not query.strip() else set(words(query))
    if wanted == set():
        return Page([])
    all_unread = catch_up(index, disk, folder, texts=wanted is not None, pace=_pace(later), thorough=later is None)
    if later is not None and (all_unread or is_old(index)):
        later()
    unread = {name: place for name, place in all_unread.items() if before is None or (place, name) < before}
    found, end = list[Match](), next(((place, name) for name, place in unread.items()), None)
    if unread and wanted:
        found, end = scan(disk, folder, unread, query or "", limit=limit, until=time.monotonic() + _SEARCH_S)
    found += _indexed(index, before, limit, all_unread, wanted)
    found = sorted((one for one in found if end is None or one.order() > end), key=Match.order, reverse=True)
    page = found[:limit]
    if wanted:
        page = _with_hits(index, disk, folder, page, wanted)
    return Page([one.session for one in page], _next(found, limit, end))


def _pace(later: object | None) -> Pace:
    return ALL if later is None else Pace(time.monotonic() + _LOOK_S, _MOST)


def _next(found: Sequence[Match], limit: int, end: Place | None) -> str | None:
    if len(found) > limit:
        return f"{found[limit - 1].place}~{found[limit - 1].name}"
    return None if end is None else f"{end[0]}~{end[1]}~"  # this one comes next: no name is between the two


def _indexed(
    index: Index, before: Place | None, limit: int, but: Mapping[str, str], wanted: Collection[str] | None
) -> list[Match]:
    """The sessions that the index finds, but for those of these logs."""
    keys = None if wanted is None else _with_all(index, wanted)
    if keys == []:
        return []
    rows = (row for row in index.newest(before, -1 if but else limit + 1, keys) if row.name not in but)
    return [Match(row.place, row.name, session_of(row), row.key) for row in islice(rows, limit + 1)]


def _with_all(index: Index, wanted: Collection[str]) -> list[int]:
    """The keys of the sessions in which each of the words begins one."""
    found: set[int] | None = None
    for word in sorted(wanted, key=len, reverse=True):  # the longest are the rarest, more often than not
        with_word = index.with_word(word)
        found = with_word if found is None else found & with_word
        if not found:
            break
    return sorted(found or ())


def _with_hits(index: Index, disk: Disk, folder: int, page: Sequence[Match], wanted: Collection[str]) -> list[Match]:
    """With the turns in which the words stand, of those that the index has found."""
    hits = dict[str, list[Hit]]()
    keys = [one.key for one in page if one.key]
    for one, turn in _turns(disk, folder, index.hits(wanted, keys, _HITS) if keys else []):
        text = codec.text_of([*turn.input, *turn.output])
        hits.setdefault(one.name, []).append(Hit(turn.turn_id, snippet(text, wanted)))
    return [replace(one, session=replace(one.session, hits=hits.get(one.name, ()))) if one.key else one for one in page]


def recall_turns(
    index: Index, disk: Disk, folder: int, query: str, *,
    only: str | None, exclude: Collection[tuple[str, str]], limit: int, changed: Sequence[str] = (),
    later: Callable[[], None] | None = None,
) -> list[Recalled]:  # fmt: skip
    """The complete turns of shown lines that bear on the query, best first: of the session in that file, or of all.

    The logs that are known to have `changed` are brought in first, where all are asked. With `later` no more than a
    few of them are: that is called if the index has to be brought up to the others by somebody else.
    """
    if only is not None:
        if is_behind(index, disk, folder, only, {turn_id for _, turn_id in exclude}):
            catch_up_some(index, disk, folder, [only])
    elif not is_complete(index):
        unread = catch_up(index, disk, folder, texts=True, pace=_pace(later), thorough=later is None)
        if later is not None and (unread or is_old(index)):
            later()
    elif later is not None and len(changed) > _MANY:
        later()
    else:
        catch_up_some(index, disk, folder, changed)
    ranked = index.ranked(query, only, limit + len(exclude))
    for _ in range(_TRIES):
        if only is not None or not catch_up_some(index, disk, folder, [*{one.name for one in ranked}]):
            break
        ranked = index.ranked(query, only, limit + len(exclude))
    recalled = list[Recalled]()
    places = {one.name: row for one in ranked if (row := index.row(one.name)) is not None and row.entry}
    ids = {name: session_of(row).session_id for name, row in places.items()}
    wanted = [one for one in ranked if one.name in ids and (ids[one.name], one.turn_id) not in exclude][:limit]
    for one, turn in _turns(disk, folder, wanted):
        if turn.status is TurnStatus.COMPLETE:
            recalled.append(Recalled(ids[one.name], turn, one.score))
    return sorted(recalled, key=lambda one: one.score, reverse=True)


def _turns(disk: Disk, folder: int, found: Sequence[Found]) -> Iterator[tuple[Found, Turn]]:
    """The turns that were found, from the logs: those that are still there."""
    for name, some in groupby(sorted(found, key=lambda one: one.name), key=lambda one: one.name):
        try:
            log = Log(disk, disk.open(folder, name, os.O_RDONLY))
        except FileNotFoundError:  # deleted in this moment
            continue
        try:
            for one in some:
                with suppress(HistoryDamaged):
                    turn = log.entry(one.start, one.stop).turn()
                    if turn.turn_id == one.turn_id:
                        yield one, turn
        finally:
            log.close()

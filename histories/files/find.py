"""Lists, searches and recalls in a user's sessions, by their index."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import groupby

from histories import codec
from histories.base import HistoryDamaged, Hit, InvalidCursor, Page, Recalled, Session, Turn, TurnStatus
from histories.files.catch_up import PLACE_LENGTH, catch_up, catch_up_some, is_behind, is_complete, session_of
from histories.files.disk import Disk
from histories.files.index import Found, Index, Row
from histories.files.log import Log
from histories.search import snippet, words

_HITS = 3
_TRIES = 3
"""How often a recall is asked anew because a session that it found had just changed."""

Place = tuple[str, str]
"""Where a session stands in a list: the time of its last change, and the name of its file."""


def parse_cursor(cursor: str) -> Place:
    """What a page of sessions ended with. `InvalidCursor`."""
    place, tilde, name = cursor.partition("~")
    if not tilde or not (place.isascii() and place.isdigit() and len(place) == PLACE_LENGTH):
        raise InvalidCursor("Send `cursor` as the `next` of an earlier page.")
    return place, name


def find_sessions(
    index: Index, disk: Disk, folder: int, *, limit: int, before: Place | None, query: str | None
) -> Page[Session]:
    """A page of the sessions in a folder, by the time of their last record; with a query, of those that say it."""
    wanted = None if query is None or not query.strip() else set(words(query))
    catch_up(index, disk, folder, texts=bool(wanted))
    keys = None if wanted is None else _with_all(index, wanted)
    rows = [] if keys == [] else index.newest(before, limit + 1, keys)
    page = rows[:limit]
    sessions = [session_of(row) for row in page]
    if wanted and page:
        found = _hits(index, disk, folder, page, wanted)
        sessions = [replace(one, hits=found.get(row.name, ())) for row, one in zip(page, sessions, strict=True)]
    return Page(sessions, f"{page[-1].place}~{page[-1].name}" if len(rows) > limit else None)


def _with_all(index: Index, wanted: Collection[str]) -> list[int]:
    """The keys of the sessions in which each of the words begins one."""
    found: set[int] | None = None
    for word in sorted(wanted, key=len, reverse=True):  # the longest are the rarest, more often than not
        with_word = index.with_word(word)
        found = with_word if found is None else found & with_word
        if not found:
            break
    return sorted(found or ())


def _hits(index: Index, disk: Disk, folder: int, page: Sequence[Row], wanted: Collection[str]) -> dict[str, list[Hit]]:
    found = index.hits(wanted, [row.key for row in page], _HITS)
    hits = dict[str, list[Hit]]()
    for one, turn in _turns(disk, folder, found):
        text = codec.text_of([*turn.input, *turn.output])
        hits.setdefault(one.name, []).append(Hit(turn.turn_id, snippet(text, wanted)))
    return hits


def recall_turns(
    index: Index, disk: Disk, folder: int, query: str, *,
    only: str | None, exclude: Collection[tuple[str, str]], limit: int, changed: Sequence[str] = (),
) -> list[Recalled]:  # fmt: skip
    """The complete turns of shown lines that bear on the query, best first: of the session in that file, or of all.

    The logs that are known to have `changed` are brought in first, where all are asked.
    """
    if only is not None:
        if is_behind(index, disk, folder, only, {turn_id for _, turn_id in exclude}):
            catch_up_some(index, disk, folder, [only])
    elif not is_complete(index):
        catch_up(index, disk, folder, texts=True)
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

"""Where in a log a new turn stands: after which one, and what its record says of that."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from histories.base import HistoryMoved, NewTurn, ShownTurn, TurnNotFound
from histories.files.log import Log
from histories.files.records import Entry, Sums
from histories.files.tree import Node


@dataclass(frozen=True, slots=True)
class Spot:
    """`sums` are those before the new turn, `jump` is what its record says, `before` is where the line ends for it.

    `gone` are the offsets of turns that are not read.
    """

    sums: Sums
    before: int | None = None
    jump: dict[str, Any] = field(default_factory=dict)
    gone: frozenset[int] = frozenset()
    behind: Sums | None = None
    """Those of the line that is shown again if the turn, another version of one, comes to nothing."""

    def line(self, log: Log) -> Iterator[Entry]:
        """The turns before it, newest first."""
        return (entry for entry in log.entries(self.before, set(self.gone)) if entry.offset not in self.gone)


def expect_last(log: Log | None, if_last: str | None) -> None:
    """Raises `HistoryMoved` unless that is the last turn of the shown line, if one is named."""
    if if_last is not None:
        last = None if log is None else next(log.entries(), None)
        if if_last != ("" if last is None else last.turn_id):
            raise HistoryMoved


def spot_for(log: Log, new: NewTurn, earlier: Node | None) -> Spot:
    """Where the turn stands. `earlier` is one of the same turn_id, which it replaces."""
    spot = Spot(log.sums())
    if earlier is not None:
        spot = _without(log, spot, earlier)
    if new.version_of is None:
        return spot
    behind = replace(spot.sums, more=True)
    return replace(_in_place_of(log, spot, new.version_of, earlier), behind=behind)


def jump_to(log: Log, spot: Spot, place: Entry, older: int, *, keep: bool) -> Spot:
    """The line ends before `place`, which has `older` turns after it on the shown line."""
    line = log.entries(place.dropped_from, {*place.gone, *spot.gone})
    parent = next((entry for entry in line if entry.offset not in spot.gone), None)
    gone = sorted({*place.gone, *spot.gone})
    turns = spot.sums.turns - older - 1
    chain = "" if parent is None else str(parent.record["chain"])
    sums = replace(spot.sums, turns=turns, tokens=place.tokens_before, chain=chain, more=spot.sums.more or keep)
    jump: dict[str, Any] = {"to": place.dropped_from, "up": -1 if parent is None else parent.offset}
    jump |= {"keep": True} if keep else {}
    jump |= {"gone": gone} if gone else {}
    return Spot(sums, place.dropped_from, jump, frozenset(gone))


def _without(log: Log, spot: Spot, earlier: Node) -> Spot:
    gone = frozenset({earlier.offset})
    for older, entry in enumerate(log.entries()):
        if entry.offset == earlier.offset:
            if older == 0:
                there = jump_to(log, replace(spot, gone=gone), entry, 0, keep=True)
                return replace(there, sums=replace(there.sums, more=spot.sums.more))
            # What it added to the window stays counted: the counts of the turns after it are on that scale.
            sums = replace(spot.sums, turns=spot.sums.turns - 1)
            return Spot(sums, None, {"gone": [earlier.offset]}, gone)
        if entry.offset < earlier.offset and not spot.sums.more:
            break
    return Spot(spot.sums, None, {"gone": [earlier.offset]}, gone)


def _in_place_of(log: Log, spot: Spot, turn_id: str, earlier: Node | None) -> Spot:
    after = -1
    for entry in log.entries():
        is_replaced = earlier is not None and entry.offset == earlier.offset
        after += not is_replaced
        if entry.turn_id == turn_id:
            if is_replaced:
                after += 1
                spot = replace(spot, sums=replace(spot.sums, turns=spot.sums.turns + 1))
            return jump_to(log, spot, entry, after, keep=True)
    raise TurnNotFound


def shown_turns(entries: Iterator[Entry], floor: int) -> Iterator[tuple[int, ShownTurn]]:
    """Those that a model is shown, newest first, each with the token count before it, from a count on."""
    for entry in entries:
        if entry.tokens_before < floor:
            return
        turn = entry.turn()
        if turn.shown:
            yield entry.tokens_before, ShownTurn(turn.turn_id, (*turn.input, *turn.output))


def entry_and_after(log: Log, turn_id: str) -> tuple[Entry, int]:
    """A turn of the shown line, and how many there are after it."""
    for after, entry in enumerate(log.entries()):
        if entry.turn_id == turn_id:
            return entry, after
    raise TurnNotFound

"""What clients were told, held against the record."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from histories.base import HistoryStore, Turn, TurnStatus
from tests.torture import peer
from tests.torture.clients import Told
from tests.torture.watchers import Watched

_ANSWER = re.compile(r"(?P<word>\S+) after (?P<before>\S+) of \d+")


_LEASES_END_S = 15.0


@dataclass
class Verdict:
    """What was found: how many of each, and the first of them in words."""

    acknowledged: int = 0
    sessions: int = 0
    watched: int = 0
    """Turns that a watcher heard to the end, and that are on the record as it heard them."""
    gone_on_with: int = 0
    """So many of them over more than one connection."""
    found: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def blame(self, kind: str, note: str) -> None:
        self.found[kind] += 1
        if len(self.notes) < 20:
            self.notes.append(f"{kind}: {note}")

    def __str__(self) -> str:
        kinds = ("lost", "torn", "out of order", "crossed", "misheard", "hung")
        counts = ", ".join(f"{self.found[kind]} {kind}" for kind in kinds)
        watched = f"{self.watched} watched to their end, {self.gone_on_with} of them over several connections"
        return f"{self.acknowledged} acknowledged turns in {self.sessions} sessions: {counts}; {watched}"


async def check(store: HistoryStore, told: Iterable[Told], watched: Sequence[Watched] = ()) -> Verdict:
    """The verdict on all sessions that were talked in."""
    verdict, deadline = Verdict(), time.monotonic() + _LEASES_END_S
    for (user, session), mine in _by_session(told).items():
        verdict.sessions += 1
        record = await _record(store, user, session, deadline)
        _check_session(verdict, f"{user}.{session}.", mine, record)
        _check_heard(verdict, mine, record)
        _check_watched(verdict, [one for one in watched if (one.user, one.session) == (user, session)], record)
    return verdict


async def check_loose(verdict: Verdict, store: HistoryStore, told: Iterable[Told]) -> None:
    """Of sessions from which turns were taken: nothing of them is torn, or somebody else's, or runs for ever."""
    deadline = time.monotonic() + _LEASES_END_S
    for user, session in _by_session(told):
        record = await _record(store, user, session, deadline)
        if len({turn.turn_id for turn in record}) < len(record):
            verdict.blame("torn", f"{user}.{session}: a turn_id stands twice on the record")
        for turn in record:
            _check_turn(verdict, f"{user}.{session}.", turn)


def _check_heard(verdict: Verdict, told: list[Told], record: list[Turn]) -> None:
    """What a client was sent in its last try is on the record, also if it was not told the end."""
    turns = {turn.turn_id: turn for turn in record}
    for one in told:
        if one.heard and (turn := turns.get(one.turn_id)) is not None and not _text(turn).startswith(one.heard):
            verdict.blame("lost", f"{one.turn_id} is {_text(turn)!r}; its client was sent {one.heard!r}")


def _check_watched(verdict: Verdict, watched: list[Watched], record: list[Turn]) -> None:
    """What a watcher has put together is the reply, or a prefix of it whose end it was told."""
    turns = {(turn.turn_id, turn.started_at): turn for turn in record}
    for one in watched:
        for fault in one.faults:
            verdict.blame("misheard", f"{one.turn_id}: {fault}")
        turn = turns.get((one.turn_id, datetime.fromisoformat(one.started_at)))
        if turn is None or not one.end:
            continue  # another try has taken its place, or the watcher gave up
        reply = _text(turn)
        is_whole = one.end == "end" or "died" in one.end  # who is told of a crash has heard all that is left
        if not (one.text == reply if is_whole else reply.startswith(one.text)):
            verdict.blame("misheard", f"{one.turn_id}: {one.text!r} is not {reply!r}; it was told {one.end!r}")
            continue
        verdict.watched += 1
        verdict.gone_on_with += one.connections > 1


def _text(turn: Turn) -> str:
    return "".join(str(message.text) for message in turn.output)


def check_peer(folder: Path, told: Iterable[Told]) -> Verdict:
    """The verdict on histories that know no turn_ids: what clients were told stands there, or it does not."""
    verdict = Verdict()
    for (user, session), mine in _by_session(told).items():
        verdict.sessions += 1
        record = dict(peer.record(folder, user, session))
        for one in mine:
            if one.acknowledged is not None:
                verdict.acknowledged += 1
                said = next((text for text in record if text.split(" ")[0] == one.word), None)
                if said is None:
                    verdict.blame("lost", f"{one.word}; its client was told {one.outcomes}")
                elif record[said] != one.reply:
                    verdict.blame("torn", f"{one.word} has the answer {record[said]!r}")
    return verdict


def _by_session(told: Iterable[Told]) -> dict[tuple[str, str], list[Told]]:
    by_session: dict[tuple[str, str], list[Told]] = {}
    for one in told:
        by_session.setdefault((one.user, one.session), []).append(one)
    return by_session


async def _record(store: HistoryStore, user: str, session: str, deadline: float) -> list[Turn]:
    """The session's turns, once none of them runs: where leases tell who lives, a dead owner's ends in its time."""
    while True:
        turns = await _turns(store, user, session)
        if time.monotonic() > deadline or all(turn.status is not TurnStatus.RUNNING for turn in turns):
            return turns
        await asyncio.sleep(0.1)


async def _turns(store: HistoryStore, user: str, session: str) -> list[Turn]:
    history, turns, before = store.history(user, session), list[Turn](), None
    while True:
        page = await history.turns(limit=200, before=before)
        turns = [*page.items, *turns]
        before = page.next
        if before is None:
            return turns


def _check_session(verdict: Verdict, prefix: str, told: list[Told], record: list[Turn]) -> None:
    places = {turn.turn_id: place for place, turn in enumerate(record)}
    if len(places) < len(record):
        verdict.blame("torn", f"{prefix}: a turn_id stands twice on the record")
    for turn in record:
        _check_turn(verdict, prefix, turn)
    retried = {one.word for one in told if one.attempts > 1}
    last_said = "nothing"
    for turn in record:
        if turn.status is TurnStatus.COMPLETE:
            before = _said(turn)["before"]
            # A turn that was tried again stood elsewhere before: what was shown then is not to be told from here.
            if before != last_said and not {before, last_said} & retried:
                verdict.blame("out of order", f"{turn.turn_id} was shown {before}, not {last_said}")
        if turn.shown:
            last_said = str(turn.input[0].text).split(" ")[0]
    _check_acknowledged(verdict, told, record, places)


def _check_turn(verdict: Verdict, prefix: str, turn: Turn) -> None:
    if not str(turn.input[0].text).startswith(prefix):
        verdict.blame("crossed", f"{turn.input[0].text} stands in {prefix}")
    if turn.status is TurnStatus.RUNNING:
        verdict.blame("torn", f"{turn.turn_id} is running, and nobody runs it")
    if turn.status is TurnStatus.COMPLETE:
        said = _said(turn)
        if said["word"] != str(turn.input[0].text).split(" ")[0]:
            verdict.blame("torn", f"{turn.turn_id} has the answer of {said['word']}")
        if said["before"] != "nothing" and not said["before"].startswith(prefix):
            verdict.blame("crossed", f"{turn.turn_id} in {prefix} was shown {said['before']}")


def _said(turn: Turn) -> dict[str, str]:
    text = _text(turn)
    match = _ANSWER.match(text)
    return match.groupdict() if match else {"word": text, "before": "nothing"}


def _check_acknowledged(verdict: Verdict, told: list[Told], record: list[Turn], places: dict[str, int]) -> None:
    acknowledged = [one for one in told if one.acknowledged is not None]
    verdict.acknowledged += len(acknowledged)
    for one in acknowledged:
        place = places.get(one.turn_id)
        if place is None or record[place].status is not TurnStatus.COMPLETE:
            status = "absent" if place is None else record[place].status
            verdict.blame("lost", f"{one.turn_id} is {status}; its client was told {one.outcomes}")
        elif _text(record[place]) != one.reply:
            verdict.blame("torn", f"{one.turn_id}: its client was told {one.reply!r}")
    # What was acknowledged before another turn was sent stands before it.
    standing = sorted((places[one.turn_id], one) for one in acknowledged if one.turn_id in places)
    latest_sent = 0.0
    for _, one in sorted(standing, key=lambda item: item[0]):
        if one.acknowledged is not None and one.acknowledged < latest_sent:
            verdict.blame(
                "out of order", f"{one.turn_id} was acknowledged before a turn was sent that stands before it"
            )
        latest_sent = max(latest_sent, one.first_sent)

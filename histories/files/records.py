"""The records of a session's file: one to a line, in ASCII.

    {"v":1,"r":"session","user":…,"session":…,"at":…,…,"crc":"…"}     the first line
    {"v":1,"r":"turn","id":…,"chain":…,"at":…,"in":[…],…}              a turn has begun
    {"v":1,"r":"end","id":…,"status":…,"at":…,"out":[…],…}             and has ended
    {"v":1,"r":"title", …}   {"v":1,"r":"feedback","id":…, …}
    {"v":1,"r":"rewind","to":…, …}            the history goes on from what was before byte `to`

So does a turn with a `to`, which stands in another one's place, and the end of such a turn that came to nothing. Those
records also say which turn is then the last one that is shown (`up`, its offset, -1 for none), and whether what
followed it can be shown again (`keep`) or is forgotten. `gone` are the offsets of turns that a later one replaced.

Each record carries the sums of all before it (`s`: turns, tokens, title, chain), so that the tail of the file alone
tells all that the next turn needs; and a checksum of its line, so that damage is seen.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, cast

from histories import codec
from histories.base import Feedback, HistoryDamaged, NewTurn, Reply, Turn, TurnDetails, TurnStatus, Usage
from histories.unique import new_name

VERSION: Final = 1
START: Final = b'{"v":%d,"r":"' % VERSION
_compact: Final = json.JSONEncoder(separators=(",", ":")).encode
_CRC: Final = b',"crc":"'
_CRC_SIZE: Final = len(_CRC) + 8 + len(b'"}')


@dataclass(frozen=True, slots=True)
class Sums:
    """What all records so far come to. `more`: there are some that only a look at the whole log explains."""

    turns: int = 0
    tokens: int = 0
    title: str = ""
    chain: str = ""
    more: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """A turn as it stands in the log: the offset of its record, and its end, if it has one.

    `gone` are the turns before it that a later one replaced: who drops this turn has to name them. `stop` is the
    offset after its end, if it was read together with others.
    """

    offset: int
    record: dict[str, Any]
    end: dict[str, Any] | None
    gone: Sequence[int] = ()
    stop: int = 0

    @property
    def turn_id(self) -> str:
        return str(self.record["id"])

    @property
    def status(self) -> TurnStatus:
        return TurnStatus.RUNNING if self.end is None else TurnStatus(self.end["status"])

    @property
    def tokens_before(self) -> int:
        return int(self.record["s"]["tokens"])

    @property
    def dropped_from(self) -> int:
        """Where the log has to end for this turn, and what it replaced, to be gone."""
        return int(self.record.get("to", self.offset))

    def turn(self) -> Turn:
        """The turn; raises `HistoryDamaged` when its messages are none."""
        end = self.end or {}
        try:
            return Turn(
                turn_id=self.turn_id,
                status=self.status,
                chain=self.record["chain"],
                started_at=datetime.fromisoformat(self.record["at"]),
                ended_at=datetime.fromisoformat(end["at"]) if end else None,
                input=codec.load_messages(self.record["in"]),
                output=codec.load_messages(end["out"]) if end else [],
                usage=end.get("usage"),
                kind=end.get("kind", ""),
                tokens=int(end["s"]["tokens"]) - self.tokens_before if end and "to" not in end else 0,
                details=cast(TurnDetails, codec.undump(end.get("details", {}))),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise damaged() from error


def damaged() -> HistoryDamaged:
    return HistoryDamaged(
        "This session's record is damaged, and is left as it is. Its operator can see what is wrong with "
        "`admin.py check`, and mend it with `admin.py check --repair`."
    )


def encode(record: dict[str, Any], sums: Sums, **parts: str) -> bytes:
    """A record as a line. `parts` are members whose JSON is already made."""
    so_far: dict[str, Any] = {"turns": sums.turns, "tokens": sums.tokens, "title": sums.title, "chain": sums.chain}
    if sums.more:
        so_far["more"] = True
    text = _compact({"v": VERSION, **record, "s": so_far})[:-1]
    line = (text + "".join(f',"{name}":{part}' for name, part in parts.items())).encode("ascii")
    return b'%s,"crc":"%08x"}\n' % (line, zlib.crc32(line))


def decode(line: bytes) -> dict[str, Any]:
    """The record of a line (without its newline); raises `HistoryDamaged`, also for a newer version's."""
    if not line.startswith(START) and is_newer(line):
        raise HistoryDamaged("This session was written by a newer version of Recollect: update this server.")
    if not is_whole(line):
        raise damaged()
    record: dict[str, Any] = json.loads(line.decode("ascii"))
    return record


def is_whole(line: bytes) -> bool:
    """Whether the line (without its newline) is what was written, by its checksum."""
    return line[-_CRC_SIZE:] == b'%s%08x"}' % (_CRC, zlib.crc32(line[:-_CRC_SIZE]))


def is_newer(line: bytes) -> bool:
    """Whether the line, which may be torn, is of a version to come, of which only its start is known."""
    version = re.match(rb'\{"v":([0-9]{1,9}),', line)
    return version is not None and int(version[1]) > VERSION


def session_line(user_id: str, session_id: str, at: datetime) -> bytes:
    """The first line. `file` tells this file from any other that ever was: numbers of files are used again."""
    record = {"r": "session", "user": user_id, "session": session_id, "at": at.isoformat(), "file": new_name()}
    return encode(record, Sums())


def turn_line(new: NewTurn, at: datetime, sums: Sums, replaces: dict[str, Any], *, said: str | None = None) -> bytes:
    """The beginning of a turn. `said` is the JSON of its input, from who has made it: so is the end's of its output."""
    record = {"r": "turn", "id": new.turn_id, "chain": new.chain, "at": at.isoformat(), **replaces}
    return encode(record, sums, **{"in": codec.dump_messages(new.input) if said is None else said})


def end_line(turn_id: str, reply: Reply, at: datetime, sums: Sums, *, said: str | None = None, **more: Any) -> bytes:
    record: dict[str, Any] = {"r": "end", "id": turn_id, "status": reply.status, "at": at.isoformat(), **more}
    if reply.usage:
        record["usage"] = Usage(**reply.usage)
    if reply.kind:
        record["kind"] = reply.kind
    details = {"details": codec.dump(dict(reply.details))} if reply.details else {}
    return encode(record, sums, out=codec.dump_messages(reply.output) if said is None else said, **details)


def feedback_line(turn_id: str, feedback: Feedback, at: datetime, sums: Sums) -> bytes:
    record = {"r": "feedback", "id": turn_id, "at": at.isoformat(), **Feedback(**feedback)}
    return encode(record, replace(sums, more=True))


def sums_line(kind: str, sums: Sums, at: datetime, *, title: str, **more: Any) -> bytes:
    """A record of nothing but what the sums are from now on: of a title, or of a rewind."""
    return encode({"r": kind, "at": at.isoformat(), **more}, replace(sums, title=title))

"""The audit log: who did what, when, from where, and whether it went well. No words of any conversation are in it.

It is one file, `audit.jsonl` in the data folder, that is only ever added to. Each line holds the hash of the line
before it, so that nothing can be changed, taken out or put in without a break that `verify` finds. That lines are
missing at the end shows beside the count and hash that the server's own log has of each line.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from auth.files import give_to_owner_of

log = logging.getLogger("recollect.audit")

START: Final = "0" * 64
"""What the first line names as the hash before it."""
FLOOD: Final = 60
"""Refusals within a minute that have lines of their own; of more, the number is told with the next one."""
_TAIL_BYTES: Final = 64 * 1024
_LONGEST: Final = 300


class Audit:
    """The audit log of a data folder; any number of processes may add to it.

    It never raises: what can't be written is told in the server's log, and what was asked for is done all the same.
    """

    def __init__(self, folder: Path, *, now: Callable[[], float] = time.time, durable: bool = False) -> None:
        self._path, self._now, self._durable = folder / "audit.jsonl", now, durable
        self._minute, self._refused = 0, 0

    def note(self, act: str, *, who: str | None, source: str, ok: bool = True, **what: Any) -> None:
        """Adds a line: `who` did `act`, from `source`; `what` says more."""
        at = datetime.fromtimestamp(self._now(), UTC).isoformat(timespec="milliseconds")
        told = {name: value[:_LONGEST] if isinstance(value, str) else value for name, value in what.items()}
        try:
            n, hashed = self._add({"at": at, "who": who, "from": source, "act": act, "ok": ok, "what": told})
        except (OSError, ValueError) as error:
            log.error("the audit log can't be written: %s", getattr(error, "strerror", None) or error)
            return
        log.info("audit", extra={"fields": {"act": act, "ok": ok, "n": n, "hash": hashed}})

    def refused(self, *, who: str | None, source: str, why: str) -> None:
        """Adds a line for a credential that was turned away: not for each of a flood of them."""
        minute = int(self._now() // 60)
        if minute != self._minute:
            more, self._minute, self._refused = self._refused - FLOOD, minute, 0
            if more > 0:
                self.note("refusals", who=None, source="many", ok=False, unlisted=more)
        self._refused += 1
        if self._refused <= FLOOD:
            self.note("refusal", who=who, source=source, ok=False, why=why)

    def _add(self, line: dict[str, Any]) -> tuple[int, str]:
        with self._alone() as file:
            size = os.fstat(file).st_size
            n, before = _last(os.pread(file, _TAIL_BYTES, max(0, size - _TAIL_BYTES)))
            text, hashed = _chained({"n": n + 1, **line}, before)
            torn = size > 0 and os.pread(file, 1, size - 1) != b"\n"
            os.write(file, (b"\n" if torn else b"") + text + b"\n")
            if self._durable:
                os.fsync(file)
        return n + 1, hashed

    @contextmanager
    def _alone(self) -> Iterator[int]:
        os.makedirs(self._path.parent, mode=0o700, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        file = os.open(self._path, flags, 0o600)
        try:
            give_to_owner_of(self._path.parent, file)
            fcntl.flock(file, fcntl.LOCK_EX)  # freed by the close
            yield file
        finally:
            os.close(file)


def verify(folder: Path) -> tuple[int, str | None]:
    """How many lines of the audit log are good, from the first on, and what is wrong with the next; None for nothing.

    A line that was torn by a crash is told of by the line after it, and is no break.
    """
    path = folder / "audit.jsonl"
    n, before = 0, START
    if not path.exists():
        return 0, None
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as file:
        for place, text in enumerate(file, start=1):
            line = _parsed(text)
            if line is None:
                if not text.endswith(b"\n") or _follows(file, n + 1, before):
                    continue
                return n, f"line {place} is not one of an audit log"
            if line.get("n") != n + 1 or line.get("before") != before:
                return n, f"line {place}: lines before it were taken out, put in or changed"
            body = {name: value for name, value in line.items() if name not in ("before", "hash")}
            if _chained(body, before)[1] != line.get("hash"):
                return n, f"line {place} was changed"
            n, before = n + 1, line["hash"]
    return n, None


def _follows(file: Any, n: int, before: str) -> bool:
    """Whether the line after a torn one goes on where the one before it ended."""
    place = file.tell()
    after = _parsed(file.readline())
    file.seek(place)
    return after is not None and (after.get("n"), after.get("before")) == (n, before)


def _chained(line: dict[str, Any], before: str) -> tuple[bytes, str]:
    body = json.dumps(line, sort_keys=True, separators=(",", ":"))
    hashed = hashlib.sha256(f"{before}\n{body}".encode()).hexdigest()
    return json.dumps({**line, "before": before, "hash": hashed}, separators=(",", ":")).encode(), hashed


def _last(tail: bytes) -> tuple[int, str]:
    """The number and the hash of the last whole line."""
    for text in reversed(tail.splitlines()):
        line = _parsed(text)
        if line is not None:
            return int(line["n"]), str(line["hash"])
    if tail.strip():
        raise ValueError("its end is damaged")
    return 0, START


def _parsed(text: bytes) -> dict[str, Any] | None:
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) and {"n", "hash", "before"} <= line.keys() else None

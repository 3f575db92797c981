"""The log: one line an event, for a person or for a program.

Whoever has something to say uses `logging` as ever; `event` adds named fields. Every line within a request has its id.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import re
import stat
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, TextIO

import orjson
from typing_extensions import override

from turns import failures

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The request on behalf of which this code runs; turns that it started run on its behalf, too."""

MAX_TEXT: Final = 20_000
"""Characters of one value: what a model's server answers may be a whole page."""

_SECRET = re.compile(
    r"\b(?:rk_|sk-)[\w*-]{6,}|(?<=[Bb]earer )[\w.~+/=-]+|(?<=token=)[\w-]+|(?<=://)[^/\s:@]*:[^/\s@]+(?=@)"
)
_SHINGLE: Final = 8
_LEVELS: Final = {level: name.lower() for name, level in logging.getLevelNamesMapping().items()}
_NAMES: Final = 4096
"""So many hashes of names are kept: each turn names its user and its session twice."""
_BATCH_S: Final = 0.05
"""How much later a line is written than it was said, at most."""


class Names:
    """How users and sessions are named in the log: by a keyed hash, which can be computed but not turned back."""

    def __init__(self, key: bytes, *, plain: bool = False) -> None:
        self._key, self._plain = key[:64], plain

        self._hashed = lru_cache(_NAMES)(self._hash)

    def __call__(self, name: str | None) -> str | None:
        return name if name is None or self._plain else self._hashed(name)

    def _hash(self, name: str) -> str:
        encoded = name.encode(errors="surrogatepass")
        return hashlib.blake2b(encoded, digest_size=8, key=self._key).hexdigest()


def event(logger: logging.Logger, level: int, name: str, error: BaseException | None = None, /, **fields: Any) -> None:
    """Logs an event with its fields; those that are None are left out."""
    if not logger.isEnabledFor(level):
        return
    if error is None and level < logging.WARNING and _alone is not None and _alone.hears(logger):
        _alone.tell(logger.name, level, name, fields)
    else:
        # As `logger.log` does, without a walk up the stack for a place that no line shows.
        cause = None if error is None else (type(error), error, error.__traceback__)
        record = logging.LogRecord(logger.name, level, "", 0, name, None, cause)
        record.fields = {key: value for key, value in fields.items() if value is not None}
        logger.handle(record)


def without_secrets(text: str) -> str:
    """The text without what looks like a key, a token or a password."""
    return _SECRET.sub("[hidden]", text)


def without_words(text: str, words: Iterable[str]) -> str:
    """The text without anything that repeats eight characters or more of what people said, or all of it."""
    hidden, pieces = bytearray(len(text)), set[str]()
    for said in words:
        if len(said) < _SHINGLE:
            for start in _places(text, said):
                hidden[start : start + len(said)] = b"\1" * len(said)
        pieces.update(said[start : start + _SHINGLE] for start in range(len(said) - _SHINGLE + 1))
    for start in range(len(text) if pieces else 0):
        if text[start : start + _SHINGLE] in pieces:
            hidden[start : start + _SHINGLE] = b"\1" * _SHINGLE
    return "".join(_masked(text, hidden))


def _places(text: str, said: str) -> Iterator[int]:
    """Where a short text stands as a word of its own."""
    if said.strip():
        for found in re.finditer(rf"(?<!\w){re.escape(said)}(?!\w)", text):
            yield found.start()


def _masked(text: str, hidden: bytearray) -> Iterator[str]:
    for place, char in enumerate(text):
        if not hidden[place]:
            yield char
        elif place == 0 or not hidden[place - 1]:
            yield "[words]"


class ErrorText(Exception):
    """Carries the text of an error that was made fit for the log; see `in_words`."""


_FRAME: Final = re.compile(r'  File "[^"\n]*", line \d+, in ')
"""A piece of a traceback that is a place in the code. What an exception says comes in pieces of its own; that of a
`SyntaxError` has a file and a line, and no function."""


def in_words(error: BaseException, words: Iterable[str], *, content: bool) -> ErrorText:
    """The traceback of an error and of what it came from; without the words of people unless `content`.

    Where it was raised stays legible, whatever they said: "messages", say, is in every other line of code.
    """
    told = [] if content else list(words)
    pieces = [
        piece if _FRAME.match(piece) else without_words(piece[-MAX_TEXT:], told)
        for piece in traceback.format_exception(error)
    ]
    lines = "".join(pieces)[-MAX_TEXT:].splitlines()
    # Those of code are told from what an exception says by their indentation: to them a key is a name.
    text = "\n".join(line if line.startswith(" ") else failures.without_secrets(line) for line in lines)
    return ErrorText(without_secrets(text))


def configure(form: str, level: str, stream: TextIO | None = None) -> None:
    """Sets the log of this process up: all of it, that of libraries too, on standard error."""
    handler = _Batches(sys.stderr) if stream is None else logging.StreamHandler(stream)
    handler.setFormatter(_Json() if form == "json" else _Console())
    global _alone  # like the handlers of `logging`, it is one for the process
    _alone = handler if form == "json" and isinstance(handler, _Batches) else None
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("recollect").setLevel(level.upper())
    logging.captureWarnings(True)
    # No line shows these.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


class _Batches(logging.StreamHandler[TextIO]):
    """Writes what is worth less than a warning a moment later, together: to write each line by itself, while other
    threads work, keeps the event loop waiting for the interpreter twice a turn."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._lines = list[str]()
        self._news = threading.Event()
        self._lost, self._torn = 0, False
        self._file = _file_of(stream)
        threading.Thread(target=self._write, name="recollect-log", daemon=True).start()

    def hears(self, logger: logging.Logger) -> bool:
        """Whether this is what hears the logger, and nothing else does, nor sifts what it says."""
        if self.filters or len(logging.root.handlers) != 1 or logging.root.handlers[0] is not self:
            return False
        at: logging.Logger | None = logger
        while at is not None and at is not logging.root:
            if at.handlers or at.filters or not at.propagate or at.disabled:
                return False
            at = at.parent
        return True

    def tell(self, logger: str, level: int, name: str, fields: dict[str, Any]) -> None:
        """Adds the line of an event, as `emit` does of a record: without one, it takes a third of the time."""
        line: dict[str, Any] = {"time": _time_at(time.time()), "level": _LEVELS[level], "logger": logger, "event": name}
        line["request_id"] = request_id.get()
        line.update(fields)
        line = {key: value for key, value in line.items() if value is not None}
        self._lines.append(_as_json(line) + "\n")
        if not self._news.is_set():
            self._news.set()

    @override
    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.append(self.format(record) + self.terminator)
        except Exception:  # noqa: BLE001 - as logging's own handlers do
            self.handleError(record)
        if record.levelno >= logging.WARNING:
            self.flush()
        elif not self._news.is_set():
            self._news.set()

    @override
    def flush(self) -> None:
        """Writes what was said. It never raises: a disk that is full costs lines of the log, and nobody's turn."""
        with self.lock or contextlib.nullcontext():
            lines, self._lines = self._lines, []
            if lines and self._put(lines):
                self._lost = 0

    def _put(self, lines: list[str]) -> bool:
        if self._lost:
            told = logging.LogRecord("recollect.log", logging.ERROR, "", 0, "lines of the log were lost", None, None)
            told.fields = {"lines": self._lost}
            lines = [self.format(told) + self.terminator, *lines]
        text = ("\n" if self._torn else "") + "".join(lines)
        try:
            if self._file is None:
                self.stream.write(text)
                self.stream.flush()
            else:
                self._put_out(self._file, text.encode(errors="backslashreplace"))
        except (OSError, ValueError):  # it is full, or was closed
            self._lost += len(lines) - bool(self._lost)
            return False
        return True

    def _put_out(self, file: int, data: bytes) -> None:
        while data:
            # Not by the stream, which keeps what could not be written, and has it in the way of what comes later.
            written = os.write(file, data)
            self._torn, data = data[written - 1 : written] != b"\n", data[written:]

    def _write(self) -> None:
        while self._news.wait():
            time.sleep(_BATCH_S)
            self._news.clear()
            self.flush()


def _file_of(stream: TextIO) -> int | None:
    """The number of the file behind a stream; None if it has none. What is added goes to its end, wherever that is."""
    try:
        file = stream.fileno()
        stream.flush()
        if stat.S_ISREG(os.fstat(file).st_mode):
            # `2>log` in a shell keeps its place: once the log was rotated by a copy, it would begin with a hole.
            fcntl.fcntl(file, fcntl.F_SETFL, fcntl.fcntl(file, fcntl.F_GETFL) | os.O_APPEND)
    except (OSError, ValueError, AttributeError):
        return None
    return file


_alone: _Batches | None = None
"""What hears everything, as JSON, in a server; None where others listen, or listen in another form."""


def _said(record: logging.LogRecord) -> str:
    """The line's text; the name of an event is our own, and holds no secret."""
    return str(record.msg) if hasattr(record, "fields") and not record.args else without_secrets(record.getMessage())


def _fields_of(record: logging.LogRecord) -> dict[str, Any]:
    told: dict[str, Any] = {"request_id": request_id.get()} if request_id.get() is not None else {}
    return told | getattr(record, "fields", {})


def _error_of(record: logging.LogRecord) -> str | None:
    if not record.exc_info or record.exc_info[1] is None:
        return None
    error = record.exc_info[1]
    text = str(error) if isinstance(error, ErrorText) else "".join(traceback.format_exception(error))[-MAX_TEXT:]
    return without_secrets(text)


def _time_at(moment: float) -> str:
    return f"{_second_at(int(moment))}.{int(moment % 1 * 1000):03}Z"


@lru_cache(2)
def _second_at(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _as_json(line: dict[str, Any]) -> str:
    try:
        text = orjson.dumps(line, default=str)
    except TypeError:  # half of a surrogate pair, a number of more than 64 bits
        return json.dumps(line, default=str)
    return text.decode("ascii") if text.isascii() else json.dumps(line, default=str)  # whatever the stream takes


class _Json(logging.Formatter):
    @override
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _time_at(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": _said(record),
            **_fields_of(record),
        }
        error = _error_of(record)
        if error is not None:
            line["error"] = error
        return _as_json(line)


class _Console(logging.Formatter):
    @override
    def format(self, record: logging.LogRecord) -> str:
        told = " ".join(f"{name}={_quoted(value)}" for name, value in _fields_of(record).items())
        message = _one_line(_said(record))
        line = f"{_time_at(record.created)} {record.levelname.lower():7} {message} {told}".rstrip()
        error = _error_of(record)
        return line if error is None else f"{line}\n{error.rstrip()}"


def _quoted(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if text.isprintable() and " " not in text and text else json.dumps(text)


def _one_line(text: str) -> str:
    return text if text.isprintable() else json.dumps(text)[1:-1]

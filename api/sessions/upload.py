"""Imports on their way in: however large, they are put aside as they come, and read turn by turn.

A conversation of thousands of turns is tens of megabytes. In one piece, Python's JSON reader would hold all that runs
in the process for as long as it takes, and its values would be in memory beside the turns that are made of them.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from json.decoder import WHITESPACE  # type: ignore[attr-defined]  # undocumented, and what raw_decode leaves to callers
from typing import IO, Any, Final

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import ValidationError
from typing_extensions import override

from api.sessions.exchange import MAX_TURNS, Conversation, ExchangedTurn
from api.slow_lane import SMALL_BYTES
from histories.base import Turn

_SPOOL_BYTES: Final = 1024 * 1024
_DECODER: Final = json.JSONDecoder()


class Upload:
    """A body that was put aside, on the disk if it is large."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def conversation(self, longest: int) -> tuple[Conversation, list[Turn]]:
        """What it holds, where no turn has more than `longest` characters of JSON.

        Raises `RequestValidationError`, `ValidationError`, `UnknownMessage`.
        """
        self._file.seek(0)
        raw = self._file.read()
        try:
            return _conversation(raw.decode(json.detect_encoding(raw), "surrogatepass"), longest)
        except json.JSONDecodeError as error:
            raise _malformed(error.pos) from error
        except UnicodeDecodeError as error:
            raise _malformed(error.start) from error


class UploadRoute(APIRoute):
    """A route whose body is given as an `Upload`, unless it is small: then as the JSON that it holds."""

    @override
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_after_putting_aside(request: Request) -> Response:
            with tempfile.SpooledTemporaryFile(max_size=_SPOOL_BYTES) as file:
                async for piece in request.stream():
                    file.write(piece)
                if file.tell() > SMALL_BYTES:
                    request._body, request._json = b"put aside", Upload(file)
                else:
                    file.seek(0)
                    request._body = file.read()
                return await handle(request)

        return handle_after_putting_aside


def _malformed(position: int) -> RequestValidationError:
    return RequestValidationError([{"type": "json_invalid", "loc": ("body", position), "msg": "JSON decode error"}])


def _conversation(text: str, longest: int) -> tuple[Conversation, list[Turn]]:
    head, turns = dict[str, Any](), list[Turn]()
    for name, value in _members(text, longest):
        if name != "turns" or not isinstance(value, Iterator):
            head[name] = value
            continue
        turns = [_turn(one, number) for number, one in enumerate(value)]
        head[name] = []
    conversation = Conversation.model_validate(head)
    if len({turn.turn_id for turn in turns}) < len(turns):
        raise RequestValidationError([_wrong("turns: each turn_id may be there only once")])
    return conversation, turns


def _turn(value: Any, number: int) -> Turn:
    if number >= MAX_TURNS:
        raise RequestValidationError([_wrong(f"turns: there may be {MAX_TURNS} at most")])
    try:
        return ExchangedTurn.model_validate(value).turn()
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        raise RequestValidationError(
            [{**one, "loc": ("body", "turns", number, *one["loc"])} for one in found]
        ) from None


def _wrong(message: str) -> dict[str, Any]:
    return {"type": "value_error", "loc": ("body",), "msg": message}


def _members(text: str, longest: int) -> Iterator[tuple[str, Any]]:
    """The members of an object, in order; a list among them is an iterator, to be read before the next member.

    What is no object has none: it lacks all that there has to be.
    """
    at = _skip(text, 0)
    if text[at : at + 1] != "{":
        _, at = _DECODER.raw_decode(text, at)
        return _ended(text, at)
    at = _skip(text, at + 1)
    while text[at : at + 1] != "}":
        name, at = _DECODER.raw_decode(text, at)
        at = _skip(text, at)
        if not isinstance(name, str) or text[at : at + 1] != ":":
            raise json.JSONDecodeError("Expecting ':' delimiter", text, at)
        at = _skip(text, at + 1)
        if text[at : at + 1] == "[":
            items = _Items(text, at + 1, longest)
            yield name, iter(items)
            at = items.end()
        else:
            value, at = _DECODER.raw_decode(text, at)
            yield name, value
        at = _after(text, at, "}")
    return _ended(text, at + 1)


class _Items:
    """The items of a list, from behind its bracket on, of so many characters each."""

    def __init__(self, text: str, at: int, longest: int) -> None:
        self._text, self._at, self._longest, self._all = text, at, longest, False

    def __iter__(self) -> Iterator[Any]:
        self._at = _skip(self._text, self._at)
        while self._text[self._at : self._at + 1] != "]":
            begin = self._at
            value, self._at = _DECODER.raw_decode(self._text, begin)
            if self._at - begin > self._longest:
                raise RequestValidationError([_wrong(f"turns: one may have {self._longest} characters at most")])
            yield value
            self._at = _after(self._text, self._at, "]")
        self._all = True

    def end(self) -> int:
        """Where the list has ended."""
        if not self._all:
            for _ in self:
                pass
        return self._at + 1


def _after(text: str, at: int, closing: str) -> int:
    """The place of what follows a comma, or of the closing bracket."""
    at = _skip(text, at)
    if text[at : at + 1] == closing:
        return at
    if text[at : at + 1] != ",":
        raise json.JSONDecodeError("Expecting ',' delimiter", text, at)
    at = _skip(text, at + 1)
    if text[at : at + 1] == closing:
        raise json.JSONDecodeError("Expecting value", text, at)
    return at


def _skip(text: str, at: int) -> int:
    return int(WHITESPACE.match(text, at).end())


def _ended(text: str, at: int) -> None:
    if _skip(text, at) != len(text):
        raise json.JSONDecodeError("Extra data", text, at)

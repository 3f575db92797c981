"""What LangServe 0.3.3 does not do itself: it takes some of a request on trust, and can't write every text down."""

from __future__ import annotations

import json
from itertools import chain, islice
from typing import Any, Final

import orjson
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from langserve.serialization import WellKnownLCSerializer
from typing_extensions import override

from api.slow_lane import SMALL_BYTES, read_large_json
from playground_config.routes import MAX_CONFIG_HASH
from turns.shown import well_formed
from turns.with_history import check_batch

MAX_PARTS: Final = 20_000
"""Values in a body, inner ones too. LangServe checks them on the event loop, so many of them in a tenth of a second."""


async def readable(request: Request) -> None:
    """A dependency of LangServe's routes, for what they take on trust. Raises RequestValidationError."""
    if len(request.path_params.get("config_hash", "")) > MAX_CONFIG_HASH:
        raise RequestValidationError(["The config hash is too long."])
    if request.method != "POST":
        return
    await read_large_json(request)
    try:
        body = await request.json()  # kept by the request: it is not read twice
    except json.JSONDecodeError:
        raise RequestValidationError(["The body is not JSON."]) from None
    if not isinstance(body, dict):
        raise RequestValidationError(["The body has to be an object."])
    if not isinstance(body.get("config", {}), (dict, list)):
        raise RequestValidationError(["'config' has to be an object."])
    if not isinstance(body.get("inputs", []), list):
        raise RequestValidationError(["'inputs' has to be a list."])
    if len(await request.body()) > SMALL_BYTES and _has_many_parts(body):
        raise RequestValidationError([f"The body holds more than {MAX_PARTS} values: send less at once."])


class BatchLimit:
    """A dependency of LangServe's routes: no batch has more inputs, which it would check one by one before any runs."""

    def __init__(self, most: int) -> None:
        self._most = most

    async def __call__(self, request: Request) -> None:
        if request.method == "POST" and request.url.path.endswith("/batch"):
            check_batch(len((await request.json()).get("inputs", [])), self._most)


def _has_many_parts(body: Any) -> bool:
    level, count = [body], 0
    while level and count <= MAX_PARTS:
        count += len(level)
        inner = (part.values() if isinstance(part, dict) else part for part in level if isinstance(part, (dict, list)))
        level = [*islice(chain.from_iterable(inner), MAX_PARTS + 1)]
    return count > MAX_PARTS


class Serializer(WellKnownLCSerializer):
    """LangServe's, for text of any kind.

    Lone surrogates are replaced: JSON in UTF-8 has none. What Unicode takes for the end of a line is escaped, because
    LangServe's client takes it for the end of a line of a stream.
    """

    @override
    def dumps(self, obj: Any) -> bytes:
        try:
            text = super().dumps(obj)
        except TypeError:
            text = orjson.dumps(well_formed(json.loads(json.dumps(obj, default=lambda part: part.model_dump()))))
        if not text.isascii():
            for end in ("\u0085", "\u2028", "\u2029"):
                text = text.replace(end.encode(), f"\\u{ord(end):04x}".encode())
        return text

"""What LangServe 0.3.3 does not do itself: it takes some of a request on trust, and can't write every text down."""

from __future__ import annotations

import json
from typing import Any

import orjson
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from langserve.serialization import WellKnownLCSerializer
from typing_extensions import override

from playground_config.routes import MAX_CONFIG_HASH
from turns.shown import well_formed


async def readable(request: Request) -> None:
    """A dependency of LangServe's routes, for what they take on trust. Raises RequestValidationError."""
    if len(request.path_params.get("config_hash", "")) > MAX_CONFIG_HASH:
        raise RequestValidationError(["The config hash is too long."])
    if request.method != "POST":
        return
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

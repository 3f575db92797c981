"""What LangServe 0.3.3 does not do itself: it takes some of a request on trust, and can't write every text down."""

from __future__ import annotations

import json
import logging
import typing
from itertools import chain, islice
from typing import Any, Final

import orjson
from fastapi import HTTPException, Request
from fastapi.exceptions import RequestValidationError
from langchain_core.messages import AIMessageChunk, BaseMessage
from langserve.schema import BatchResponseMetadata
from langserve.serialization import WellKnownLCSerializer, default
from langserve.validation import BatchBaseResponse
from pydantic import TypeAdapter, ValidationError
from typing_extensions import override

from api.slow_lane import MOST_VALUES, SMALL_BYTES, TooManyValues, read_large_json
from histories.base import jsonable
from playground_config.routes import MAX_CONFIG_HASH
from turns.pieces import frame_of
from turns.shown import well_formed

log = logging.getLogger("recollect.chains")

CONFIG_KEYS = ("configurable", "metadata", "tags", "max_concurrency")
"""What clients may set of a chain's config."""

REFUSES_ALL: Final[Any] = ["token_feedback"]
"""LangServe's endpoints that would be there and refuse everything. Its type of their names forgets this one."""


_AS_IT_IS: Final = {"Accept-Encoding": "identity"}
"""What a response with 415 says of codings: RFC 9110, 12.5.3."""


async def readable(request: Request) -> None:
    """A dependency of LangServe's routes, for what they take on trust. Raises RequestValidationError, HTTPException."""
    if len(request.path_params.get("config_hash", "")) > MAX_CONFIG_HASH:
        raise RequestValidationError(["The config hash is too long."])
    if request.method != "POST":
        return
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise HTTPException(415, "A body is read as it comes: send it without Content-Encoding.", _AS_IT_IS)
    try:
        await read_large_json(request, MOST_VALUES)
        body = await request.json()  # kept by the request: it is not read twice
    except json.JSONDecodeError:
        raise RequestValidationError(["The body is not JSON."]) from None
    except TooManyValues as refused:
        raise RequestValidationError([str(refused)]) from None
    if not isinstance(body, dict):
        raise RequestValidationError(["The body has to be an object."])
    _check_shape(body)
    configs = body.get("config", {})
    for config in configs if isinstance(configs, list) else [configs]:
        if isinstance(config, dict):
            _drop_misshapen(config)
    if len(await request.body()) > SMALL_BYTES and _has_many_parts(body):
        raise RequestValidationError([str(TooManyValues())])


def _check_shape(body: dict[str, Any]) -> None:
    if not isinstance(body.get("config", {}), (dict, list)):
        raise RequestValidationError(["'config' has to be an object."])
    if not isinstance(body.get("inputs", []), list):
        raise RequestValidationError(["'inputs' has to be a list."])
    kwargs = body.get("kwargs", {})
    each = kwargs if isinstance(kwargs, list) and "inputs" in body else [kwargs]  # as LangChain.js sends
    if not all(isinstance(one, dict) for one in each):
        raise RequestValidationError(["'kwargs' has to be an object. It is ignored."])


def _drop_misshapen(config: dict[str, Any]) -> None:
    """Takes marks for traces out of a config that are none: a turn is not refused for them."""
    tags, limit = config.get("tags"), config.get("max_concurrency")
    if not isinstance(config.get("metadata"), dict):
        config.pop("metadata", None)
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        config.pop("tags", None)
    if type(limit) is not int or limit < 1:
        config.pop("max_concurrency", None)


def _has_many_parts(body: Any) -> bool:
    level, count = [body], 0
    while level and count <= MOST_VALUES:
        count += len(level)
        inner = (part.values() if isinstance(part, dict) else part for part in level if isinstance(part, (dict, list)))
        level = [*islice(chain.from_iterable(inner), MOST_VALUES + 1)]
    return count > MOST_VALUES


class Serializer(WellKnownLCSerializer):
    """LangServe's, for text and values of any kind: what JSON can't hold becomes what it can.

    Lone surrogates are replaced: JSON in UTF-8 has none. What Unicode takes for the end of a line is escaped, because
    LangServe's client takes it for the end of a line of a stream.
    """

    def default(self, obj: Any) -> Any:
        """What JSON can hold of something that it can't. Raises TypeError."""
        return default(obj)

    @override
    def dumps(self, obj: Any) -> bytes:
        try:
            text = orjson.dumps(obj, default=self.default)
        except TypeError:
            plain = well_formed(jsonable(obj))
            try:
                text = orjson.dumps(plain)
            except TypeError:  # a number of more than 64 bits
                text = json.dumps(plain).encode("ascii")
        if not text.isascii():
            for end in ("\u0085", "\u2028", "\u2029"):
                text = text.replace(end.encode(), f"\\u{ord(end):04x}".encode())
        return text


class StreamSerializer(Serializer):
    """For one stream: of messages that are alike but for their text, what they share is made JSON once."""

    def __init__(self) -> None:
        self._like: dict[str, Any] = {}
        self._frame: tuple[bytes, bytes] | None = None
        self._is_new = True

    @override
    def default(self, obj: Any) -> Any:
        if type(obj) is not AIMessageChunk or type(obj.content) is not str or obj.model_extra:
            return super().default(obj)
        rest = {**obj.__dict__, "content": ""}
        if rest != self._like:
            self._like, self._is_new, self._frame = rest, True, None
            return super().default(obj)
        if self._is_new:
            self._is_new = False
            self._frame = frame_of(obj, super().dumps)  # which comes here again
        if self._frame is None:
            return super().default(obj)
        return orjson.Fragment(self._frame[0] + orjson.dumps(obj.content) + self._frame[1])


class BatchResponse(BatchBaseResponse):
    """LangServe's response of a batch, whatever the outputs are: they have been recorded, and are not refused now."""

    output: list[Any]
    metadata: BatchResponseMetadata


class OutputFilter:
    """Gives clients of an output what its type names, as LangServe does. What does not fit is given as it is."""

    def __init__(self, kind: Any, chain: str) -> None:
        self._chain, self._told = chain, False
        self._adapter: TypeAdapter[Any] | None = None if _names_nothing(kind) else TypeAdapter(kind)

    @property
    def filters(self) -> bool:
        """Whether there is anything to do."""
        return self._adapter is not None

    def __call__(self, plain: Any) -> Any:
        """A JSON value without what the type does not name."""
        if self._adapter is None:
            return plain
        try:
            fitting = self._adapter.validate_python(plain)
            return jsonable(self._adapter.dump_python(fitting, mode="json", by_alias=True))
        except (ValidationError, ValueError, TypeError) as error:
            if not self._told:
                self._told = True
                log.warning(
                    "/%s: an output does not fit its output_type: %s", self._chain, " ".join(str(error).split())
                )
            return plain


def _names_nothing(kind: Any) -> bool:
    """Whether a type says nothing of which keys an output has."""
    if typing.get_origin(kind) is typing.Annotated or kind in (Any, None, dict, list, str, int, float, bool, object):
        return True
    return isinstance(kind, type) and issubclass(kind, (BaseMessage, str))


class FilteringSerializer(Serializer):
    """For the batch: each of the outputs is filtered."""

    def __init__(self, fitting: OutputFilter) -> None:
        self._fitting = fitting

    @override
    def dumpd(self, obj: Any) -> Any:
        return [self._fitting(one) for one in super().dumpd(obj)]

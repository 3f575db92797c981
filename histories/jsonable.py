"""Any value as one that JSON can hold: what a chain says is kept as well as it can be, and never lost."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence, Set
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any, Final
from uuid import UUID

from pydantic import BaseModel

DEEPEST: Final = 100
"""How far lists and dicts may be nested: what is written can then be read at any depth of the stack."""

_MOST: Final = 200_000
"""How many values are looked at: a graph of objects that refer to each other could be followed for ever."""

_LONGEST_TEXT: Final = 10_000
"""Of what has no JSON form, so much of its text."""

_LARGEST_BITS: Final = 14_000
"""Python neither writes nor reads larger numbers as text (4,300 digits): a record of one could not be written."""


def jsonable(value: Any, *, deepest: int = DEEPEST) -> Any:
    """`value` as JSON has it. Never raises.

    * Text, numbers, lists and dictionaries with text as keys stay as they are; other keys become text.
    * Dates, UUIDs, decimals and paths become text, enums their values, bytes base64, sets and tuples lists, pydantic
      models and dataclasses dictionaries.
    * What is nested deeper than `deepest`, refers to itself, or has no such form, becomes the text that Python shows.
    * An integer of more than 4,200 digits becomes its text in hexadecimal.
    """
    return _Conversion().convert(value, deepest)


class _Conversion:
    def __init__(self) -> None:
        self._looked_at = 0
        self._inside: set[int] = set()

    def convert(self, value: Any, deepest: int) -> Any:
        if value is None or type(value) in (str, float, bool):
            return value
        if type(value) is int:
            return value if value.bit_length() <= _LARGEST_BITS else hex(value)
        self._looked_at += 1
        if deepest <= 0 or self._looked_at > _MOST or id(value) in self._inside:
            return _text(value)
        self._inside.add(id(value))
        try:
            return self._converted(value, deepest - 1)
        except Exception:  # noqa: BLE001 - objects of others may raise anything, even when only looked at
            return _text(value)
        finally:
            self._inside.discard(id(value))

    def _converted(self, value: Any, deepest: int) -> Any:
        simple = next((simplify for kinds, simplify in _SIMPLE if isinstance(value, kinds)), None)
        if simple is not None:
            return self.convert(simple(value), deepest + 1)
        if isinstance(value, Mapping):
            return {_key(key): self.convert(item, deepest) for key, item in value.items()}
        if isinstance(value, Set):
            return [self.convert(item, deepest) for item in sorted(value, key=_text)]
        if isinstance(value, Sequence):
            return [self.convert(item, deepest) for item in value]
        fields = _fields(value)
        return _text(value) if fields is value else self.convert(fields, deepest + 1)


_SIMPLE: Final[tuple[tuple[Any, Callable[[Any], Any]], ...]] = (
    (Enum, lambda value: value.value),
    (str, lambda value: str.__str__(value)),
    (bool, bool),
    (int, lambda value: int.__int__(value)),
    (float, lambda value: float.__float__(value)),
    ((datetime, date, time), lambda value: value.isoformat()),
    (timedelta, lambda value: value.total_seconds()),
    ((Decimal, UUID, PurePath), str),
    ((bytes, bytearray, memoryview), lambda value: base64.b64encode(bytes(value)).decode("ascii")),
)
"""What becomes something simpler, which is then looked at again."""


def _key(key: Any) -> str:
    if isinstance(key, str):
        return str.__str__(key)
    plain = key.value if isinstance(key, Enum) else key
    return json.dumps(plain) if plain is None or isinstance(plain, bool) else _text(plain)


def _fields(value: Any) -> Any:
    """What an object consists of; the object itself if it doesn't say."""
    if isinstance(value, BaseModel):
        shown = {name: getattr(value, name) for name in type(value).model_fields}
        return shown["root"] if shown.keys() == {"root"} else shown | (value.model_extra or {})
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    for name in ("tolist", "to_dict"):  # of numpy's arrays and numbers, of pandas' tables
        convert = getattr(value, name, None)
        if callable(convert) and not isinstance(value, type):
            return convert()
    return value


def _text(value: Any) -> str:
    try:
        return str(value)[:_LONGEST_TEXT]
    except Exception:  # noqa: BLE001 - see above; RecursionError among them
        return f"<{type(value).__name__}>"

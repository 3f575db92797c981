"""What FastAPI and LangServe work out for each app anew, kept for all apps of a test process.

The suite builds some five hundred apps of the same routes. Half a second of a processor each went into the schemas of
the same types and the signatures of the same functions, which was four fifths of what the tests of the API took.
What is kept are results that depend on nothing but the arguments; what is made of them, routes and apps, is new each
time.
`tests/project/test_built_once.py` holds an app so built against one that was built without.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from types import FunctionType
from typing import Any
from unittest.mock import patch

import fastapi._compat.v2 as fields
import fastapi.dependencies.utils as dependencies
import fastapi.routing as routing
import langserve.api_handler as langserve

_KEPT = 1024
"""Of each kind. An app makes some types of its own, which must not all be kept for ever."""


def _by(key_of: Callable[..., Hashable | None], function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, whose results are kept by that key of its arguments; not those without a key, or without a hash."""

    class Call:
        """The arguments, which are equal to others of the same key."""

        def __init__(self, key: Hashable, *arguments: Any, **named: Any) -> None:
            self.key, self.arguments, self.named = key, arguments, named

        def __hash__(self) -> int:
            return hash(self.key)

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Call) and self.key == other.key

    kept = lru_cache(maxsize=_KEPT)(lambda call: function(*call.arguments, **call.named))

    def call(*arguments: Any, **named: Any) -> Any:
        key = key_of(*arguments, **named)
        try:
            hash(key)
        except TypeError:
            key = None
        return function(*arguments, **named) if key is None else kept(Call(key, *arguments, **named))

    return call


def _typed(value: object) -> Hashable:
    """True, 1 and 1.0 are equal, but not as defaults."""
    return type(value), value


def _is_shared(thing: Any) -> bool:
    """Whether it stands in a module under its own name, and so is the same for all apps."""
    module = sys.modules.get(getattr(thing, "__module__", ""))
    return getattr(module, getattr(thing, "__qualname__", ""), None) is thing


def _of_type(kind: Any, *, config: Any = None) -> Hashable | None:
    """FastAPI's parameters and answers: a type, its bounds, and a new `Field` that says the rest."""
    *bounds, rest = kind.__metadata__
    attributes = sorted((name, _typed(value)) for name, value in rest._attributes_set.items())
    return None if config else (kind.__origin__, *map(_typed, bounds), *attributes)


def _of_signature(call: Any) -> Hashable | None:
    """A function of a code that was seen before, with the same types and defaults: each app has its own closures."""
    if type(call) is not FunctionType or hasattr(call, "__wrapped__"):
        return None
    if not all(isinstance(kind, str) or _is_shared(kind) for kind in call.__annotations__.values()):
        return None  # what is kept would keep its app
    named = sorted((name, _typed(value)) for name, value in (call.__kwdefaults__ or {}).items())
    return (call.__code__, *call.__annotations__.items(), *map(_typed, call.__defaults__ or ()), *named)


def _of_dependency(*, depends: Any, path: str) -> Hashable | None:
    """One that stands in a module. An object that an app made, such as a limit, is that app's."""
    return (depends, path) if _is_shared(depends.dependency) else None


@contextmanager
def built_once() -> Iterator[None]:
    """Until the end of the block, nothing that is the same for all apps is worked out twice."""
    with ExitStack() as stack:
        for module, name, key_of in (
            (fields, "TypeAdapter", _of_type),
            (dependencies, "_get_signature", _of_signature),
            (routing, "get_parameterless_sub_dependant", _of_dependency),
            (langserve, "_schema_json", lambda model: model),
        ):
            stack.enter_context(patch.object(module, name, _by(key_of, getattr(module, name))))
        yield

"""What FastAPI and LangServe work out for each app anew, kept for all apps of a test process.

The suite builds some five hundred apps of the same routes. Half a second of a processor each went into the schemas of
the same types and the signatures of the same functions, which was four fifths of what the tests of the API took.
What is kept are results that depend on nothing but the arguments; what is made of them, routes and apps, is new each
time.
`tests/project/test_built_once.py` holds an app so built against one that was built without.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Hashable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import fields, replace
from functools import partial
from types import FunctionType, MethodType
from typing import Any
from unittest.mock import patch
from weakref import WeakKeyDictionary

import fastapi._compat.v2 as schemas
import fastapi.dependencies.models as kinds
import fastapi.dependencies.utils as dependencies
import fastapi.routing as routing
import langserve.api_handler as langserve
from fastapi.params import Depends

_KEPT = 1024
"""Of each kind. An app makes some types of its own, which must not all be kept for ever."""


def _by(key_of: Callable[..., Hashable | None], function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, whose results are kept by that key of its arguments; not those without a key, or without a hash.

    The arguments are not kept: a route would keep its app, and all that this one has, for as long as the tests run.
    """
    kept: dict[Hashable, Any] = {}

    def call(*arguments: Any, **named: Any) -> Any:
        key = key_of(*arguments, **named)
        try:
            known = key is not None and key in kept
        except TypeError:
            key, known = None, False
        if known:
            return kept[key]
        result = function(*arguments, **named)
        if key is not None:
            if len(kept) >= _KEPT:
                kept.clear()
            kept[key] = result
        return result

    return call


def _by_code(function: Any) -> Callable[..., Any]:
    """One that keeps what it was asked itself: FastAPI would keep the functions of some 30 apps."""
    return _by(_of_code, inspect.unwrap(function))


def _by_model(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same for a function of one model, which is kept no longer than others keep it."""
    kept: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()

    def call(model: Any) -> Any:
        if model not in kept:
            kept[model] = function(model)
        return kept[model]

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


def _function_of(call: Any) -> tuple[str, FunctionType] | None:
    """The function that a call runs, and how it got to it: by itself, as a method, or as `__call__` of an object."""
    how, function = "function", call
    if isinstance(call, MethodType):
        how, function = "method", call.__func__
    elif not isinstance(call, (type, FunctionType)):
        how, function = "object", vars(type(call)).get("__call__")
    return (how, function) if type(function) is FunctionType and not hasattr(function, "__wrapped__") else None


def _of_signature(call: Any) -> Hashable | None:
    """A function of a code that was seen before, with the same types and defaults: each app has its own closures."""
    if (found := _function_of(call)) is None or hasattr(call, "__wrapped__"):
        return None
    how, function = found
    if not all(isinstance(kind, str) or _is_shared(kind) for kind in function.__annotations__.values()):
        return None  # what is kept would keep its app
    if any(isinstance(one, Depends) and not _is_shared(one.dependency) for one in _defaults(function)):
        return None  # the same
    named = sorted((name, _typed(value)) for name, value in (function.__kwdefaults__ or {}).items())
    return (
        how,
        function.__code__,
        *function.__annotations__.items(),
        *map(_typed, function.__defaults__ or ()),
        *named,
    )


def _defaults(function: FunctionType) -> tuple[Any, ...]:
    return (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())


def _of_dependency(*, depends: Any, path: str) -> Hashable | None:
    """One that stands in a module. An object that an app made, such as a limit, is that app's."""
    return (depends, path) if _is_shared(depends.dependency) else None


def _of_code(identity: Any) -> Hashable | None:
    """What FastAPI asks of a function's kind, its code says."""
    found = _function_of(identity.call)
    return (found[0], found[1].__code__) if found and not found[1].__dict__ else None


def _of_route(*, path: str, call: Any, **rest: Any) -> Hashable | None:
    """A function as above, on the same path and in the same place."""
    signature = _of_signature(call)
    others = sorted((name, tuple(value) if isinstance(value, list) else value) for name, value in rest.items())
    return None if signature is None else (signature, path, *others)


def _routes_parts(function: Callable[..., Any]) -> Callable[..., Any]:
    """What a route takes, for each function of the same code."""
    of_any = _by(_of_route, function)

    def call(*, call: Any, **rest: Any) -> Any:
        """Lists of its own: FastAPI puts a route's further dependencies into them."""
        known = of_any(call=call, **rest)
        lists = {one.name: value[:] for one in fields(known) if isinstance(value := getattr(known, one.name), list)}
        return replace(known, call=call, **lists)

    return call


@contextmanager
def built_once() -> Iterator[None]:
    """Until the end of the block, nothing that is the same for all apps is worked out twice."""
    with ExitStack() as stack:
        for module, name, kept in (
            (schemas, "TypeAdapter", partial(_by, _of_type)),
            (dependencies, "_get_signature", partial(_by, _of_signature)),
            (dependencies, "get_dependant", _routes_parts),
            (routing, "get_dependant", _routes_parts),
            (routing, "get_parameterless_sub_dependant", partial(_by, _of_dependency)),
            (kinds, "_is_gen_callable_cached", _by_code),
            (kinds, "_is_async_gen_callable_cached", _by_code),
            (kinds, "_is_coroutine_callable_cached", _by_code),
            (langserve, "_schema_json", _by_model),
        ):
            stack.enter_context(patch.object(module, name, kept(getattr(module, name))))
        yield

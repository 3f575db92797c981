"""The types of a chain as schemas, each under a name of its own.

LangServe and OpenAPI tell schemas apart by their names alone: two chains whose outputs were both called "Output" would
be held to the schema of one of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable
from functools import lru_cache, wraps
from typing import Annotated, Any, TypeVar

from langchain_core.utils.pydantic import create_model_v2
from pydantic import BaseModel, BeforeValidator, create_model, model_validator
from pydantic.json_schema import SkipJsonSchema
from typing_extensions import get_type_hints, is_typeddict  # typing's know no TypedDict of theirs

from turns.inputs import as_typed

T = TypeVar("T")

_TAKEN: dict[str, type[BaseModel]] = {}
"""The names given so far, and what has them."""


def _once(function: Callable[..., T]) -> Callable[..., T]:
    """Does it once for the same arguments, if these have hashes: servers of one process may share their chains' types.

    To make the schema of messages takes 10 ms.
    """
    kept = lru_cache(maxsize=256)(function)

    @wraps(function)
    def call(*arguments: Hashable) -> T:
        try:
            hash(arguments)
        except TypeError:
            return function(*arguments)
        return kept(*arguments)

    return call


@_once
def named_schema(kind: Any, chain: str, role: str) -> type[BaseModel]:
    """A model for a type: the class itself if it is one, under a name that no other schema has.

    `role` is "Input" or "Output".
    """
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        if _may_have(kind.__name__, kind):
            return kind
        return _free(f"{_camel(chain)}{kind.__name__}", kind, lambda free: _like(kind, free))
    name = f"{_camel(chain)}{role}"
    model = create_model_v2(name, root=kind)
    return _free(name, model, lambda free: model if free == name else create_model_v2(free, root=kind))


def _like(kind: type[BaseModel], name: str) -> type[BaseModel]:
    """The same model under another name."""
    if "model_json_schema" in vars(kind) and "root" in kind.model_fields:
        # LangChain's own, as `get_input_schema` gives it: what it puts in `model_json_schema`'s place asks the class
        # above the one that is called, which is itself for a class derived from it.
        root = kind.model_fields["root"]
        return create_model_v2(name, root=root.annotation if root.is_required() else (root.annotation, root.default))
    return create_model(name, __base__=kind)


@lru_cache(maxsize=256)
def _text_of(model: type[BaseModel]) -> str:
    return json.dumps(model.model_json_schema(), sort_keys=True)


@_once
def taking_messages(kind: Any, key: str | None) -> Any:
    """An input's type that takes messages in every form that LangChain documents, where it takes messages."""

    def before(value: Any) -> Any:
        if key is None:
            return as_typed(value)
        return {**value, key: as_typed(value[key])} if isinstance(value, dict) and key in value else value

    if isinstance(kind, type) and issubclass(kind, BaseModel):
        field = kind.model_fields.get(key or "")
        if field is None or "Message" not in repr(field.annotation):
            return kind
        validators: dict[str, Any] = {"as_typed": model_validator(mode="before")(lambda cls, value: before(value))}
        return create_model(kind.__name__, __base__=kind, __validators__=validators)
    inner = get_type_hints(kind).get(key or "") if is_typeddict(kind) else kind
    return Annotated[kind, BeforeValidator(before)] if "Message" in repr(inner) else kind


def _may_have(name: str, model: type[BaseModel]) -> bool:
    """Whether the name is the model's now: nobody had it, or the like of it did."""
    owner = _TAKEN.setdefault(name, model)
    return owner is model or _text_of(owner) == _text_of(model)


def _free(name: str, model: type[BaseModel], make: Any) -> type[BaseModel]:
    free, number = name, 1
    while not _may_have(free, model):
        number += 1
        free = f"{name}{number}"
    made: type[BaseModel] = make(free)
    return made


def _camel(name: str) -> str:
    return "".join(word.capitalize() for word in name.replace("-", "_").split("_"))


def with_form_of(schema: type[BaseModel], shown: str) -> type[BaseModel]:
    """The same model, whose JSON schema shows one field alone: LangServe's playground makes a form of it."""
    skipped: Any = SkipJsonSchema  # to its stub, a type that takes a type
    fields = {name: field.default for name, field in schema.model_fields.items() if name != shown}
    hidden: dict[str, Any] = {name: (skipped[Any], default) for name, default in fields.items()}
    return create_model(schema.__name__, __base__=schema, **hidden)

"""The types of a chain as schemas, each under a name of its own.

LangServe and OpenAPI tell schemas apart by their names alone: two chains whose outputs were both called "Output" would
be held to the schema of one of them.
"""

from __future__ import annotations

import json
from typing import Any

from langchain_core.utils.pydantic import create_model_v2
from pydantic import BaseModel, create_model

_TAKEN: dict[str, str] = {}
"""The names given so far, and the schemas that have them."""


def named_schema(kind: Any, chain: str, role: str) -> type[BaseModel]:
    """A model for a type: the class itself if it is one, under a name that no other schema has.

    `role` is "Input" or "Output".
    """
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        name, text = kind.__name__, json.dumps(kind.model_json_schema(), sort_keys=True)
        if _TAKEN.setdefault(name, text) == text:
            return kind
        return _free(f"{_camel(chain)}{name}", text, lambda free: create_model(free, __base__=kind))
    name = f"{_camel(chain)}{role}"
    text = json.dumps(create_model_v2(name, root=kind).model_json_schema(), sort_keys=True)
    return _free(name, text, lambda free: create_model_v2(free, root=kind))


def _free(name: str, text: str, make: Any) -> type[BaseModel]:
    free, number = name, 1
    while _TAKEN.setdefault(free, text) != text:
        number += 1
        free = f"{name}{number}"
    made: type[BaseModel] = make(free)
    return made


def _camel(name: str) -> str:
    return "".join(word.capitalize() for word in name.replace("-", "_").split("_"))

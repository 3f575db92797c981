"""The OpenAPI document, made true where FastAPI and LangServe can't know better.

LangServe's routes say that no session is needed, that streams are JSON, and nothing of what may be refused; ours that
stand before them are the same to clients. What is written here is held against the server by schemathesis.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any, Final

from fastapi import FastAPI
from langserve.lzstring import LZString

from api.chain_routes import described
from api.sessions.models import ID_PATTERN

Json = dict[str, Any]

_TURNS: Final = ("invoke", "batch", "stream", "stream_log", "stream_events")
_SESSION: Final = "lesson-1"
_PROBLEM: Final = {"schema": {"$ref": "#/components/schemas/Problem"}}
_REFUSED: Final = {
    401: "Nobody that this server knows.",
    403: "The credential is not for that, or a page of another site asked by a browser's cookie.",
    422: "Malformed: the detail says how.",
    429: "Too much at once, or in too short a time. `Retry-After` says when to go on.",
    431: "The address and the headers together are too large.",
    503: "The store or the model can't be reached. `Retry-After` says when to try again.",
}
_TURN_REFUSED: Final = {
    **{status: said for status, said in _REFUSED.items() if status != 503},
    404: "The turn that `version_of` names is not there.",
    409: "The session is busy, or the turn was stopped.",
    412: "The session has moved on since the turn that `If-Match` names.",
    413: "The input is larger than the server or the model takes.",
    500: "The server or the chain made a mistake, which is in the log.",
    502: "The model answered with an error.",
    503: "The store or the model can't be reached, or the turn took too long. `Retry-After` says when to try again.",
    504: "The model said nothing for too long.",
    507: "The disk is full.",
}
EVENT: Final = {
    "type": "object",
    "description": "One event of the stream, of which there are many.",
    "properties": {"event": {"type": "string"}, "id": {"type": "string"}, "data": {"type": "string"}},
}
"""One event of a stream, as FastAPI describes them."""
EVENT_STREAM: Final = {"text/event-stream": {"schema": EVENT}}
"""Each event is such an object: OpenAPI 3.1 has no word of its own for what a stream is made of, as 3.2 has."""
_CONTENT: Final = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": ["string", "object"]}}]}
_MESSAGE: Final = {
    "anyOf": [
        {"type": "string"},
        {
            "type": "object",
            "required": ["type", "content"],
            "properties": {"type": {"type": "string", "enum": ["human"]}, "content": _CONTENT},
        },
        {
            "type": "object",
            "required": ["role", "content"],
            "properties": {"role": {"type": "string", "enum": ["user"]}, "content": _CONTENT},
        },
    ]
}
"""What is taken of the messages that LangChain's type allows: the others come from the server's record."""
_EVENTS: Final = {
    "description": "Events: `metadata` (with `run_id`, `session_id`, `turn_id`), `data` with `id`, then `end`, or one "
    "`error` with `status_code` and `message`.",
    "content": EVENT_STREAM,
}
_IF_MATCH: Final = {
    "name": "if-match",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "maxLength": 1600},
    "description": "The last turn_id that the caller was shown: 412 if there is more by now.",
}


def tell_the_truth(app: FastAPI, chains: Sequence[tuple[str, bool]]) -> None:
    """Gives the app's document as it is, for chains of these names, each of which remembers or does not."""
    plain = app.openapi

    def document() -> Json:
        if app.openapi_schema is None:
            for add in described(app):
                add()
            app.openapi_schema = _Document(plain(), chains).whole
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # as FastAPI's documentation has it


class _Document:
    def __init__(self, whole: Json, chains: Sequence[tuple[str, bool]]) -> None:
        self.whole = whole
        self._schemas: Json = whole["components"]["schemas"]
        for name, remembers in chains:
            self._chain(name, remembers)
        for path, operations in whole["paths"].items():
            for operation in operations.values():
                self._refusals(path, operation)
        for name in ("HTTPValidationError", "ValidationError"):
            self._schemas.pop(name, None)

    # What every route may answer.

    def _refusals(self, path: str, operation: Json) -> None:
        responses: Json = operation["responses"]
        for status, response in list(responses.items()):
            if "HTTPValidationError" in str(response):
                responses[status] = _refusal(_REFUSED[422])
        if "text/event-stream" in str(responses.get("200")):
            responses["200"]["content"] = EVENT_STREAM
        responses.setdefault("431", _refusal(_REFUSED[431]))
        if path == "/healthz":
            return
        for refused in (401, 403, 429, 503):
            responses.setdefault(str(refused), _refusal(_REFUSED[refused]))
        if path == "/metrics":
            responses["200"]["content"] = {"text/plain": {"schema": {"type": "string"}}}

    # The routes of a chain.

    def _chain(self, name: str, remembers: bool) -> None:
        configurable = self._schemas.get(f"{name}Configurable", {"type": "object", "properties": {}})
        if remembers:
            configurable["properties"] |= _ids()
            self._schemas[f"{name}Session"] = {**deepcopy(configurable), "required": ["session_id"]}
            self._schemas[f"{name}Session"]["title"] = f"{name}Session"
        for path, operations in self.whole["paths"].items():
            first, last = path.split("/")[1], path.rpartition("/")[2]
            if first == name and last in _TURNS:
                self._turn(name, last, operations["post"], remembers=remembers, hashed="{config_hash}" in path)
            elif first == name and "{config_hash}" in path:
                _name_hash(operations["get"])

    def _turn(self, name: str, kind: str, operation: Json, *, remembers: bool, hashed: bool) -> None:
        refused = {str(status): _refusal(said) for status, said in _TURN_REFUSED.items()}
        done = operation["responses"]["200"]
        operation["responses"] = {"200": _EVENTS if kind.startswith("stream") else done, **refused}
        if kind == "invoke" and remembers:
            operation["responses"]["202"] = _accepted()
        if hashed:
            _name_hash(operation)
        else:
            operation["parameters"] = [_IF_MATCH] if remembers else []
            operation["description"] = _DESCRIPTIONS[kind]
        body = operation["requestBody"]["content"]["application/json"]
        self._body(name, body, needs_session=remembers and not hashed)

    def _body(self, name: str, body: Json, *, needs_session: bool) -> None:
        schema_name = body["schema"]["$ref"].rpartition("/")[2]
        schema = deepcopy(self._schemas[schema_name])
        taken = "inputs" if "inputs" in schema["properties"] else "input"
        example = self._example(schema["properties"][taken])
        config = self._config(name, needs_session=needs_session)
        many = "inputs" if taken == "inputs" else None
        schema["properties"][taken] = self._input(schema["properties"][taken])
        schema["properties"]["config"] = _or_list(config) if many else config
        if many:
            schema["properties"]["kwargs"] = _or_list(schema["properties"]["kwargs"])
        if needs_session:
            schema["required"] = [*schema["required"], "config"]
        title = schema_name if needs_session else f"{schema_name}InConfig"
        body["schema"] = {**schema, "title": title}
        body["example"] = {taken: example}
        if needs_session:
            body["example"]["config"] = {"configurable": {"session_id": _SESSION}}

    def _input(self, schema: Json) -> Json:
        """The input's schema, in which messages are those that are taken."""
        if schema.get("type") == "array":
            if "HumanMessage" in str(schema["items"]):
                return {"type": "array", "minItems": 1, "items": _MESSAGE}
            return {**schema, "items": self._input(schema["items"])}
        if "$ref" not in schema:
            return schema
        named = self._schemas[schema["$ref"].rpartition("/")[2]]
        if "$ref" in named:
            return self._input(named)
        fields = {name: self._input(field) for name, field in named.get("properties", {}).items()}
        return schema if fields == named.get("properties", {}) else {**named, "properties": fields}

    def _config(self, name: str, *, needs_session: bool) -> Json:
        inner = {"$ref": f"#/components/schemas/{name}{'Session' if needs_session else 'Configurable'}"}
        if inner["$ref"].rpartition("/")[2] not in self._schemas:
            inner = {"type": "object"}
        config: Json = {"type": "object", "properties": {"configurable": inner, **_marks()}}
        return {**config, "required": ["configurable"]} if needs_session else config

    def _example(self, schema: Json) -> Any:
        """A value that the schema allows, and that a chain can make something of."""
        if "$ref" in schema:
            return self._example(self._schemas[schema["$ref"].rpartition("/")[2]])
        for key in ("examples", "default", "example"):
            if key in schema:
                return schema[key][0] if key == "examples" else schema[key]
        kind = schema.get("type")
        if kind == "object":
            needed = schema.get("required", [])
            return {name: self._example(schema["properties"][name]) for name in needed}
        if kind == "array" and "Message" not in str(schema.get("items")):
            return [self._example(schema.get("items", {}))]
        if kind == "array" or "Message" in str(schema):
            return [{"type": "human", "content": "What is 6 times 7?"}]
        return {"integer": 1, "number": 1.0, "boolean": True}.get(str(kind), "Hello!")


def _refusal(description: str) -> Json:
    return {"description": description, "content": {"application/json": _PROBLEM}}


def _or_list(schema: Json) -> Json:
    """One for all inputs of a batch, or one for each."""
    return {"anyOf": [schema, {"type": "array", "items": schema}]}


def _accepted() -> Json:
    names = {"session_id": {"type": "string"}, "turn_id": {"type": "string"}}
    schema = {"type": "object", "properties": names, "required": [*names]}
    return {
        "description": "With `Prefer: respond-async`: the question is kept, and the turn is at `Location`.",
        "content": {"application/json": {"schema": schema}},
        "headers": {"Location": {"schema": {"type": "string"}}},
    }


def _ids() -> Json:
    """What a turn's config says of session and turn. LangServe's own schema of it has no types."""
    one = {"type": "string", "minLength": 1, "maxLength": 128, "pattern": ID_PATTERN}
    none = [{"type": "string", "enum": [""]}, {"type": "null"}]
    ways = {"anyOf": [{"type": "string", "enum": ["", "grace", "finish", "stop"]}, {"type": "null"}]}
    told = {
        "turn_id": "Makes a retry safe: a turn of this name that is complete is answered from the record.",
        "version_of": "The turn in whose place this one is to stand, as another version of it; the old one is kept.",
    }
    return {
        "session_id": {**one, "description": "The conversation: a name of your choice.", "examples": [_SESSION]},
        **{name: {"anyOf": [one, *none], "description": said} for name, said in told.items()},
        "on_disconnect": {**ways, "description": "What becomes of the turn when nobody listens any more."},
    }


def _marks() -> Json:
    """What is for traces, and taken in any shape."""
    return {"tags": {}, "metadata": {}, "max_concurrency": {}}


def _name_hash(operation: Json) -> None:
    packed = LZString.compressToEncodedURIComponent(  # type: ignore[no-untyped-call]  # LangServe's own
        f'{{"configurable":{{"session_id":"{_SESSION}"}}}}'
    )
    told = "A config as LangServe's playgrounds pack it into an address: JSON, by LZString."
    schema = {"type": "string", "minLength": 1, "maxLength": 4096}
    place = {"name": "config_hash", "in": "path", "required": True, "schema": schema, "description": told}
    operation["parameters"] = [{**place, "example": packed}]
    operation["description"] = "The same as without `/c/{config_hash}`, for a config that stands in the address."


_DESCRIPTIONS: Final = {
    "invoke": "One turn: the input's message goes on the record, and the reply does, before it is answered.",
    "batch": "Several turns: those of one session one after another, in the order of the inputs.",
    "stream": "One turn, whose reply is heard as it is written. See docs/streams.md.",
    "stream_log": "One turn, as LangChain's log of its run.",
    "stream_events": "One turn, as LangChain's events of its run.",
}

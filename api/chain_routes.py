"""Where LangServe puts the routes of a chain: what it adds there becomes a route only if somebody can ever meet it.

Turns are taken by routes of ours, so that LangServe's of the same paths are never reached, and those that merely
describe them are needed for OpenAPI alone. For FastAPI to analyse both would be a third of what an app takes to build.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from fastapi import APIRouter, FastAPI
from langserve import APIHandler
from typing_extensions import override

from api.turn_endpoints import ENDPOINTS


class ChainRoutes(APIRouter):
    """To be handed to `add_routes` in place of the app, whose `state.described` gets what OpenAPI alone needs."""

    def __init__(self, app: FastAPI) -> None:
        super().__init__()
        self._app = app
        self._endpoint: Callable[..., Any] | None = None
        app.state.described = [*described(app)]

    @property
    def openapi_tags(self) -> list[dict[str, Any]] | None:
        """The app's: LangServe has something to say of a chain's."""
        return self._app.openapi_tags

    @openapi_tags.setter
    def openapi_tags(self, tags: list[dict[str, Any]]) -> None:
        self._app.openapi_tags = tags

    @override
    def add_api_route(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        add = partial(self._app.router.add_api_route, path, endpoint, **options)
        if path.rpartition("/")[2] not in ENDPOINTS:
            add()
        elif options["include_in_schema"]:
            self._app.state.described.append(add)
        elif self._endpoint is None:
            self._endpoint = endpoint

    @property
    def handler(self) -> APIHandler:
        """What `add_routes` has made for the chain.

        Its endpoints alone know it, and to make another would hold each start up for 50 ms a chain.
        """
        assert self._endpoint is not None  # noqa: S101 - add_routes has been here
        handler: APIHandler = inspect.getclosurevars(self._endpoint).nonlocals["api_handler"]
        return handler


def described(app: FastAPI) -> Sequence[Callable[[], None]]:
    """What adds the routes that merely describe those of the app's chains."""
    adding: Sequence[Callable[[], None]] = getattr(app.state, "described", ())
    return adding

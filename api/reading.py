"""What a request to a chain means: as LangServe reads it, without what it does twice and thrice.

It validates an empty config beside the one that was sent, merges each of them with defaults, copies the chain for its
schema, and merges again: a fifth of a turn.
"""

from __future__ import annotations

from typing import Any

from fastapi.exceptions import RequestValidationError
from langserve import APIHandler
from langserve.api_handler import _is_hosted, _unpack_input
from langserve.validation import InvokeRequestShallowValidator
from langserve.version import __version__
from pydantic import ValidationError
from starlette.requests import Request

from api.langserve_gaps import CONFIG_KEYS
from histories.base import new_uuid
from turns.session_config import ConfigModifier
from turns.with_history import ChainWithHistory


class Reader:
    """Reads the requests for one chain. Held against LangServe's own reading in a test."""

    def __init__(self, chain: ChainWithHistory, handler: APIHandler, modifier: ConfigModifier) -> None:
        self._chain, self._handler, self._modify = chain, handler, modifier

    async def read(self, request: Request, endpoint: str) -> tuple[Any, Any]:
        """The config and the input. Raises RequestValidationError, and what the modifier raises."""
        config_hash = request.path_params.get("config_hash", "")
        if config_hash or _is_hosted():
            # Private, but LangServe's reading of a request is what its clients are written for; pinned by its version.
            return await self._handler._get_config_and_input(request, config_hash, endpoint=endpoint)
        body = await request.json()
        try:
            sent = InvokeRequestShallowValidator.model_validate(body)
            config = await self._config(sent.config, request, endpoint)
            input = self._chain.get_input_schema().model_validate(sent.input)
            return config, _unpack_input(input)
        except ValidationError as error:
            raise RequestValidationError(error.errors(), body=body) from None

    async def _config(self, sent: Any, request: Request, endpoint: str) -> dict[str, Any]:
        checked = self._handler._ConfigPayload(**sent).model_dump()
        config = {key: checked[key] for key in CONFIG_KEYS if checked.get(key) is not None}
        config = await self._modify(config, request)
        told = {
            "__useragent": request.headers.get("user-agent"),
            "__langserve_version": __version__,
            "__langserve_endpoint": endpoint,
        }
        config["metadata"] = {**(config.get("metadata") or {}), **told}
        config["tags"] = sorted(set(config.get("tags") or ()))
        if self._handler._run_name:
            config["run_name"] = self._handler._run_name
        return {**config, "run_id": str(new_uuid())}

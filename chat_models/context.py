"""How many tokens a model reads at once, as who serves it says: llama.cpp, vLLM, OpenRouter, LM Studio, …"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlsplit

import httpx2
from langchain_core.language_models import BaseChatModel

_SILENT: Final = frozenset({"api.openai.com"})
"""Servers that do not say: LangChain's profiles have their models."""

_NAMES: Final = (
    "max_model_len",
    "loaded_context_length",
    "context_length",
    "context_window",
    "max_context_length",
    "max_context_len",
)
_WITHIN_S: Final = 5.0


async def context_of(model: BaseChatModel) -> int | None:
    """What the server of the model says; None if it does not, or is not one that speaks OpenAI's protocol."""
    url, client = getattr(model, "openai_api_base", None), getattr(model, "http_async_client", None)
    if not url or not isinstance(client, httpx2.AsyncClient):
        return None
    from langchain_openai import ChatOpenAI  # here: a model that has such a client has imported it

    if not isinstance(model, ChatOpenAI):
        return None
    if urlsplit(url).hostname in _SILENT:
        return None
    key: Any = model.openai_api_key
    headers = {"Authorization": f"Bearer {key.get_secret_value()}"} if hasattr(key, "get_secret_value") else {}
    listed = await _json(client, f"{url.rstrip('/')}/models", headers)
    entry = _entry(listed, model.model_name)
    meta = entry.get("meta")
    if not isinstance(meta, dict):
        return _first(entry, _NAMES)
    # llama.cpp, which shares its context among those that it serves at one time
    props = await _json(client, f"{url.rstrip('/').removesuffix('/v1')}/props", headers)
    served = props.get("default_generation_settings") if isinstance(props, dict) else None
    return _first(served if isinstance(served, dict) else {}, ("n_ctx",)) or _first(meta, ("n_ctx", "n_ctx_train"))


async def _json(client: httpx2.AsyncClient, url: str, headers: dict[str, str]) -> Any:
    try:
        response = await client.get(url, headers=headers, timeout=_WITHIN_S)
        return response.json() if response.status_code == 200 else None
    except (httpx2.HTTPError, ValueError):
        return None


def _entry(listed: Any, name: str) -> dict[str, Any]:
    """The model's own entry; the only one, whatever it is called."""
    models = listed.get("data") if isinstance(listed, dict) else None
    entries = [one for one in models if isinstance(one, dict)] if isinstance(models, list) else []
    own = [one for one in entries if one.get("id") == name] or (entries if len(entries) == 1 else [])
    return own[0] if own else {}


def _first(values: dict[str, Any], names: tuple[str, ...]) -> int | None:
    return next((value for name in names if isinstance(value := values.get(name), int) and value > 0), None)

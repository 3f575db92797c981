"""Vectors of texts, by the embeddings of OpenAI's protocol."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2
from pydantic import SecretStr

_WITHIN_S: Final = 30.0


class EmbeddingsUnavailable(Exception):
    """There are no vectors now. The text holds no secret."""


class Embeddings:
    """A model of a server that answers `/v1/embeddings`, from one event loop."""

    def __init__(self, base_url: str, api_key: SecretStr | None, model: str) -> None:
        self.model, self._url = model, f"{base_url.rstrip('/')}/embeddings"
        self._headers = {} if api_key is None else {"Authorization": f"Bearer {api_key.get_secret_value()}"}
        self._client: httpx2.AsyncClient | None = None

    async def __call__(self, texts: Sequence[str]) -> list[list[float]]:
        """The vectors of these texts, in their order. Raises `EmbeddingsUnavailable`."""
        asked = {"model": self.model, "input": list(texts), "encoding_format": "float"}
        try:
            response = await self._connected().post(self._url, json=asked, headers=self._headers, timeout=_WITHIN_S)
        except httpx2.HTTPError as error:
            raise EmbeddingsUnavailable(f"the embeddings: {type(error).__name__}") from None
        if response.status_code != 200:
            raise EmbeddingsUnavailable(f"the embeddings: status {response.status_code}")
        try:
            return _vectors(response.json(), len(texts))
        except (ValueError, KeyError, TypeError):
            raise EmbeddingsUnavailable("the embeddings: an answer that is none") from None

    def _connected(self) -> httpx2.AsyncClient:
        if self._client is None:
            is_here = urlsplit(self._url).hostname in ("127.0.0.1", "::1", "localhost")
            self._client = httpx2.AsyncClient(trust_env=not is_here)  # no proxy leads to this machine
        return self._client

    async def close(self) -> None:
        """Lets go of its connections."""
        if self._client is not None:
            await self._client.aclose()


def _vectors(answer: Any, count: int) -> list[list[float]]:
    found = {int(one["index"]): [float(value) for value in one["embedding"]] for one in answer["data"]}
    if sorted(found) != list(range(count)) or not all(found.values()):
        raise ValueError
    return [found[place] for place in range(count)]

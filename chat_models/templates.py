"""Requests as OpenAI's client builds them, of which all but the body is made once.

The client parses its URL thrice for each request, and merges its headers through as many tables: a sixth of a turn.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from http.cookiejar import CookieJar
from typing import Any, Final

import httpx2
import openai

_MOST: Final = 32

Build = Callable[..., httpx2.Request]


def use_templates(client: openai.AsyncOpenAI) -> None:
    """From now on this client builds requests so.

    The method is private: should OpenAI's client come to call another one, it is as slow as it was, and no more.
    """
    build = getattr(client, "_build_request", None)
    if build is not None:
        client._build_request = _Templates(client, build)  # type: ignore[method-assign]  # of this client alone


@dataclass(frozen=True, slots=True)
class _Template:
    """A request without its body."""

    method: str
    url: httpx2.URL
    headers: httpx2.Headers
    extensions: dict[str, Any]

    def filled(self, body: bytes) -> httpx2.Request:
        extensions = {**self.extensions}
        return httpx2.Request(self.method, self.url, headers=self.headers, content=body, extensions=extensions)


class _Templates:
    """Stands for `_build_request`."""

    def __init__(self, client: openai.AsyncOpenAI, build: Build) -> None:
        self._client, self._build = client, build
        self._made: dict[Hashable, _Template] = {}

    def __call__(self, options: Any, *, retries_taken: int = 0) -> httpx2.Request:
        key = self._key(options, retries_taken)
        if key is None:
            return self._build(options, retries_taken=retries_taken)
        template = self._made.get(key)
        if template is not None:
            return template.filled(options.content)
        made = self._build(options, retries_taken=retries_taken)
        if len(self._made) >= _MOST:
            self._made.clear()
        self._made[key] = _Template(made.method, made.url, _without_length(made), {**made.extensions})
        return made

    def _key(self, options: Any, retries_taken: int) -> Hashable | None:
        """All that a request depends on beside its body; None if that is more than is usual."""
        client = self._client
        unusual = (options.params, options.files, options.json_data, options.extra_json, client._idempotency_header)
        if not isinstance(options.content, bytes) or not isinstance(options.timeout, (float, openai.NotGiven)):
            return None
        if any(unusual) or not isinstance(options.headers, dict):
            return None
        timeout = options.timeout if isinstance(options.timeout, float) else None
        auth = client._auth_headers(options.security)
        sent = (tuple(options.headers.items()), tuple(auth.items()), _cookies(client._client.cookies.jar))
        return options.method, options.url, timeout, retries_taken, client.base_url, *sent


def _without_length(request: httpx2.Request) -> httpx2.Headers:
    return httpx2.Headers([(name, value) for name, value in request.headers.raw if name.lower() != b"content-length"])


def _cookies(jar: CookieJar) -> tuple[tuple[str, str | None], ...]:
    return tuple((cookie.name, cookie.value) for cookie in jar if not cookie.is_expired())

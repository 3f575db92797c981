"""The chat model: `ChatOpenAI`, whatever answers. OpenAI, any server that speaks its protocol, or the embedded model.

Errors pass through as they are, for the edge to give them a status: `openai.RateLimitError` and the other
`openai.APIStatusError`s for an answer that is not a reply, `openai.APIConnectionError` (with `openai.APITimeoutError`)
for none.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from urllib.parse import urlsplit
from urllib.request import getproxies

import httpx2
import openai
from langchain_core.callbacks import BaseCallbackHandler
from pydantic import SecretStr

from chat_models.chat_openai import ChatOpenAI
from chat_models.endpoints import Endpoint, model_endpoint
from chat_models.habits import as_a_stream
from chat_models.http_transport import HttpTransport
from chat_models.openai_client import ChatCompletions
from chat_models.templates import use_templates

_KEEPALIVE_S = 4.0
"""Idle connections go before the five seconds after which uvicorn, Node and llama.cpp close them: a request on one that
closes just then would fail."""


@asynccontextmanager
async def connect(
    endpoint: Endpoint,
    *,
    timeout_s: float,
    fast: bool = True,
    handlers: Sequence[BaseCallbackHandler] = (),
    hooks: Sequence[Callable[[httpx2.Request], Awaitable[None]]] = (),
) -> AsyncIterator[ChatOpenAI]:
    """The chat model that talks to this endpoint. Its connections are closed in the end.

    `handlers` are told of each call, `hooks` of each request that is about to be sent, whose headers they may add to.
    Unless it is to be `fast`, all between it and the wire is OpenAI's and httpx's own.
    `timeout_s` bounds each wait for the next bytes. There are no retries: a turn that failed is told at once, with the
    `Retry-After` of who refused it, and its client knows best when to come again.
    """
    timeout = openai.Timeout(timeout_s, connect=min(5.0, timeout_s))
    # As many streams at once as there are callers.
    limits = httpx2.Limits(max_connections=None, max_keepalive_connections=100, keepalive_expiry=_KEEPALIVE_S)
    trust_env = not endpoint.is_loopback  # no proxy leads to this machine
    tls = _tls_of(endpoint, trust_env=trust_env)
    async with openai.DefaultAsyncHttpxClient(
        timeout=timeout,
        limits=limits,
        trust_env=trust_env,
        verify=tls,
        event_hooks={"response": [as_a_stream], "request": [*hooks]},
        transport=_transport(endpoint, tls, limits, trust_env=trust_env) if fast else None,
    ) as http_async:
        with openai.DefaultHttpxClient(timeout=timeout, limits=limits, trust_env=trust_env, verify=tls) as http:
            chat = _chat_of(endpoint, timeout, http_async, http)
            chat.callbacks = [*handlers] or None
            if fast:
                use_templates(chat.root_async_client)
                chat.async_client = ChatCompletions(chat.root_async_client)
            yield chat


def _chat_of(
    endpoint: Endpoint, timeout: openai.Timeout, http_async: httpx2.AsyncClient, http: httpx2.Client
) -> ChatOpenAI:
    return ChatOpenAI(
        model_name=endpoint.model,
        openai_api_base=endpoint.base_url,
        openai_api_key=endpoint.api_key,
        http_async_client=http_async,
        http_client=http,
        openai_proxy=None,  # the clients see to proxies: HTTPS_PROXY
        request_timeout=timeout,
        max_retries=0,
        stream_usage=True,
        stream_chunk_timeout=None,  # the clients' timeout does it, without a task for each token
        use_responses_api=False,
        profile=endpoint.profile,
    )


def _tls_of(endpoint: Endpoint, *, trust_env: bool) -> ssl.SSLContext:
    """One for both clients: to read all authorities takes a while. This machine needs none, unless it speaks TLS."""
    if endpoint.is_loopback and urlsplit(endpoint.base_url).scheme == "http":
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return httpx2.create_ssl_context(trust_env=trust_env)


def _transport(
    endpoint: Endpoint, tls: ssl.SSLContext, limits: httpx2.Limits, *, trust_env: bool
) -> HttpTransport | None:
    """Ours, unless TLS or a proxy is on the way: httpx sees to those."""
    if urlsplit(endpoint.base_url).scheme != "http" or (trust_env and getproxies()):
        return None
    slow = httpx2.AsyncHTTPTransport(verify=tls, limits=limits)
    return HttpTransport(tls, keepalive_s=_KEEPALIVE_S, otherwise=slow)


@asynccontextmanager
async def open_model(
    *,
    openai_api_key: SecretStr | None = None,
    openai_base_url: str | None = None,
    model: str | None = None,
    timeout_s: float = 120.0,
    fast: bool = True,
) -> AsyncIterator[ChatOpenAI]:
    """`model_endpoint` and `connect` in one, for a single process."""
    with model_endpoint(openai_api_key=openai_api_key, openai_base_url=openai_base_url, model=model) as endpoint:
        async with connect(endpoint, timeout_s=timeout_s, fast=fast) as chat:
            yield chat

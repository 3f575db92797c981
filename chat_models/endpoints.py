"""Where the chat model answers: OpenAI, any server that speaks its protocol, or the embedded model, run here.

Apart from `models`, whose clients take half a second to import: who supervises workers, or is told that it can't start,
has no use for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from langchain_core.language_models import ModelProfile
from pydantic import SecretStr

from chat_models import embedded_model
from chat_models.embedded_model import ModelUnavailable

OPENAI_URL = "https://api.openai.com/v1"

DEFAULT_MODEL = "gpt-5.4-mini"
"""OpenAI's model that is asked when none is named."""

_NO_KEY = "none"
"""Sent where no key is needed: the client won't go without."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a model answers, and under what name. Worker processes can be given it."""

    base_url: str = field(repr=False)  # it may hold a password
    api_key: SecretStr
    model: str

    def __str__(self) -> str:
        """Which model answers, for the operator: one line, without secrets."""
        if self.is_embedded:
            return f"{self.model}, embedded (a demonstration: set OPENAI_API_KEY for a better model)"
        parts = urlsplit(self.base_url)
        return f"{self.model} at {parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    @property
    def profile(self) -> ModelProfile | None:
        """What LangChain can't know of the embedded model: how much it reads at once, and its longest reply."""
        if self.model != embedded_model.NAME or not self.is_loopback:
            return None
        return ModelProfile(
            max_input_tokens=embedded_model.CONTEXT_TOKENS, max_output_tokens=embedded_model.MAX_REPLY_TOKENS
        )

    @property
    def is_loopback(self) -> bool:
        """Whether it is on this machine."""
        return urlsplit(self.base_url).hostname in ("127.0.0.1", "::1", "localhost")

    @property
    def is_embedded(self) -> bool:
        return self.model == embedded_model.NAME and self.is_loopback

    @property
    def at_once(self) -> int | None:
        """How many replies it gives at one time, where that is known."""
        return embedded_model.PARALLEL if self.is_embedded else None


@contextmanager
def model_endpoint(
    *, openai_api_key: SecretStr | None = None, openai_base_url: str | None = None, model: str | None = None
) -> Iterator[Endpoint]:
    """Where the model of these settings answers. With neither a key nor a URL, that is the embedded one, run here.

    Several processes share one embedded model when the first of them opens this, and gives the endpoint to the others.
    Raises `ModelUnavailable`.
    """
    if openai_api_key or openai_base_url:
        yield Endpoint(openai_base_url or OPENAI_URL, openai_api_key or SecretStr(_NO_KEY), model or DEFAULT_MODEL)
        return
    if model not in (None, "", embedded_model.NAME):
        raise ModelUnavailable(f"Nothing serves the model {model}: set OPENAI_API_KEY or OPENAI_BASE_URL.")
    with embedded_model.embedded_model() as (url, key):
        yield Endpoint(url, SecretStr(key), embedded_model.NAME)

"""How much of the past a model is shown: what fits it, as far as is known; less, once it says that it was too much."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable, RunnableSequence
from langchain_core.runnables.base import RunnableBindingBase

from turns.failures import said_by

CAP: Final = 16_000
"""The most tokens of the past that a model is shown unless a number is set: what is sent is paid for, each time."""

UNKNOWN: Final = 3_000
"""What a model is shown of which nothing is known: fits the 4,096 tokens that local servers often read, silently."""

LEAST: Final = 100
_REPLY: Final = 4_096
_PROMPT: Final = 1_000
_WITH_PICTURE: Final = 1_000
"""A turn with one picture: a model of which nothing is known would not see it any more at the next question."""

_MAY_LEARN: Final = 500
"""From so many estimated tokens on, what a model counted tells how far the estimate is off."""

AskContext = Callable[[BaseChatModel], Awaitable[int | None]]
"""Asks who serves a model how many tokens it reads at once."""

_NUMBER: Final = r"(\d[\d,_.]*\d|\d)"
_CONTEXT: Final = (
    re.compile(rf"maximum (?:context|model) length (?:is|of) {_NUMBER}"),
    re.compile(rf"['\"]?n_ctx['\"]?\s*[:=]\s*{_NUMBER}"),
    re.compile(rf"context (?:size|window|length)[^\d]{{0,20}}\({_NUMBER}"),
)
_SENT: Final = (
    re.compile(rf"(?:resulted in|requested(?: about)?|contains at least|input is|prompt is) {_NUMBER}"),
    re.compile(rf"['\"]?n_prompt_tokens['\"]?\s*[:=]\s*{_NUMBER}"),
    re.compile(rf"request \({_NUMBER} tokens"),
)


class Fit:
    """What one model takes. Sizes are in tokens as they are estimated.

    `fixed` is the operator's number, which nothing enlarges or estimates anew. `context` is what the model reads at
    once, prompt and reply together, `reply` the longest of its replies; None: not known.
    """

    def __init__(self, fixed: int | None = None, context: int | None = None, reply: int | None = None) -> None:
        self.fixed, self.context, self._reply_most = fixed, context, reply
        self._most: int | None = None
        self._ratio = self._in_use = 1.0
        self._smallest: dict[str, tuple[int, int]] = {}

    @property
    def window(self) -> int:
        """How many tokens of the past it is shown."""
        size = self._auto() if self.fixed is None else self.fixed
        return max(LEAST, size if self._most is None else min(size, self._most))

    @property
    def turn(self) -> int:
        """The most that one past turn may take of it, so that the last one is always shown, and others beside it."""
        return max(self.window // 4, min(_WITH_PICTURE, self.window // 3))

    @property
    def recall(self) -> int:
        """How many tokens of older turns are shown beside it."""
        return min(1_500, self.window // 5)

    def past(self, new: int) -> int:
        """How many tokens of the past fit beside a new message."""
        if self.context is None:
            return max(LEAST // 2, self.window - new)
        free = int((self.context - self._reserved(self.context)) / self._in_use) - new - self.recall
        return max(LEAST // 2, min(self.window, free))

    def _auto(self) -> int:
        if self.context is None:
            return int(UNKNOWN / self._in_use)
        return int(min(CAP, (self.context - self._reserved(self.context)) / 1.2) / self._in_use)

    def _reserved(self, context: int) -> int:
        """For the chain's own prompt, and the reply."""
        return min(_REPLY, context // 4, self._reply_most or context) + min(_PROMPT, context // 8)

    def learn_context(self, context: int | None) -> None:
        """Somebody who knows has said how much the model reads."""
        if context is not None and context >= LEAST:
            self.context = context if self.context is None else min(context, self.context)

    def count(self, chain: str, estimated: int, counted: int) -> None:
        """A prompt of that chain, estimated so, was counted so by the model.

        What the chain adds to each prompt is told from what the estimate lacks by comparing with its smallest prompt.
        The size in use changes in steps alone: each change costs a prompt cache.
        """
        least = self._smallest.setdefault(chain, (estimated, counted))
        if estimated < least[0]:
            self._smallest[chain] = (estimated, counted)
        more, told = estimated - least[0], counted - least[1]
        if more < _MAY_LEARN or told < more / 4:
            return
        self._ratio += (min(4.0, told / more) - self._ratio) / 8
        if not 0.8 < self._ratio / self._in_use < 1.15:
            self._in_use = max(0.8, self._ratio * 1.05)

    def smaller(self, error: BaseException, *, shown: int, new: int) -> int:
        """The model said that a prompt was too long, of which `shown` was the past: how much of it to try next."""
        said = said_by(error)
        self.learn_context(_number(_CONTEXT, said))
        sent, half = _number(_SENT, said), shown // 2
        if self.context is not None and sent is not None and sent > shown + new > 0:
            ratio = min(6.0, sent / (shown + new))
            half = min(half, int((self.context - self._reserved(self.context)) / ratio) - new)
        return max(LEAST // 2, half)

    def remember(self, size: int) -> None:
        """The model took so much, after it had refused more: it is shown no more from now on."""
        self._most = max(LEAST, min(size, self.window))


def _number(patterns: tuple[re.Pattern[str], ...], said: str) -> int | None:
    for pattern in patterns:
        found = pattern.search(said)
        if found is not None:
            return int(re.sub(r"\D", "", found[1]))
    return None


class Fits:
    """The fits of all models of this process. `fixed` is the operator's number, None: what fits each model."""

    def __init__(self, fixed: int | None) -> None:
        self._fixed = fixed
        self._fits: dict[str, Fit] = {}
        self._asking: set[asyncio.Future[Any]] = set()
        self._model: BaseChatModel | None = None
        self._ask: AskContext | None = None

    def serve(self, model: BaseChatModel, ask: AskContext | None = None) -> None:
        """The server's own model, which chains use unless they bring one; and whom to ask about models."""
        self._model, self._ask = model, ask

    def of(self, runnable: Runnable[Any, Any]) -> Fit:
        """What fits the model of a chain: its own, or the server's. Who serves it is asked once, and not waited for."""
        model = self.model_of(runnable)
        key = "" if model is None else f"{name_of(model)}\0{getattr(model, 'openai_api_base', '')}"
        fit = self._fits.get(key)
        if fit is None:
            fit = self._fits[key] = self._new(model)
        return fit

    def model_of(self, runnable: Runnable[Any, Any]) -> BaseChatModel | None:
        """The model of a chain: its own, or the server's."""
        return model_in(runnable) or self._model

    def _new(self, model: BaseChatModel | None) -> Fit:
        told: Any = getattr(model, "profile", None)
        profile: Mapping[str, Any] = told if isinstance(told, Mapping) else {}
        fit = Fit(self._fixed, _positive(profile.get("max_input_tokens")), _positive(profile.get("max_output_tokens")))
        if model is not None and self._ask is not None:
            asking = asyncio.ensure_future(self._learn(fit, self._ask(model)))
            self._asking.add(asking)
            asking.add_done_callback(self._asking.discard)
        return fit

    async def _learn(self, fit: Fit, answer: Awaitable[int | None]) -> None:
        with suppress(Exception):  # it is not told: it will be found out, if it matters
            fit.learn_context(await answer)

    def close(self) -> None:
        """Asks no longer."""
        for asking in self._asking:
            asking.cancel()


def model_in(runnable: Any) -> BaseChatModel | None:
    """The chat model among the steps of a chain, if it is plain to see."""
    while isinstance(runnable, RunnableBindingBase):
        runnable = runnable.bound
    if isinstance(runnable, RunnableSequence):
        return next((model for step in runnable.steps if (model := model_in(step)) is not None), None)
    return runnable if isinstance(runnable, BaseChatModel) else None


def name_of(model: BaseChatModel) -> str:
    """What a model is called."""
    name = getattr(model, "model_name", None) or getattr(model, "model", None)
    return name if isinstance(name, str) else type(model).__name__


def _positive(value: object) -> int | None:
    return value if isinstance(value, int) and value > 0 else None

"""What the window that moves in steps buys, on the embedded model.

A long conversation under three windows: in steps (Recollect's), sliding (the newest turns that fit, each time), and
none. For each: the share of prompt tokens that llama.cpp had in its cache, and the time to the first token, after so
many turns. Those are made up, as their prompts cost what real ones do.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_openai import ChatOpenAI

from bench.parts import Bench, Result, table
from chat_models.embedded_model import CONTEXT_TOKENS
from chat_models.models import open_model
from histories.window import estimate_tokens, window_floor

REPLY_TOKENS = 24
_SAMPLES = 6
Policy = Callable[[list[int], int], int]
"""From the tokens of each turn and the window's size to the first turn that is shown."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One prompt: its tokens, those of them that were cached, and the seconds to the first token."""

    tokens: int
    cached: int
    first_token_s: float


def in_steps(sizes: list[int], limit: int) -> int:
    """The first turn at or above the floor that Recollect's own function gives."""
    floor, so_far = window_floor(sum(sizes), limit), 0
    for place, size in enumerate(sizes):
        if so_far >= floor:
            return place
        so_far += size
    return len(sizes) - 1


def sliding(sizes: list[int], limit: int) -> int:
    """The first of the newest turns that fit."""
    left, place = limit, len(sizes)
    while place > 0 and (left := left - sizes[place - 1]) >= 0:
        place -= 1
    return place


def unbounded(sizes: list[int], limit: int) -> int:
    """All of them, as far as the model's context goes."""
    return 0 if sum(sizes) < CONTEXT_TOKENS - 300 else -1


POLICIES: dict[str, Policy] = {"steps": in_steps, "sliding": sliding, "none": unbounded}


def made_up(number: int) -> list[BaseMessage]:
    """A turn of the length of those that are measured."""
    return [
        HumanMessage(f"Tell me fact number {number} about the sea, the wind, or ships, and keep it short please."),
        AIMessage(f"Fact {number}: the sea is wide, the wind turns often, and a ship of wood needs care each year."),
    ]


async def converse(model: ChatOpenAI, policy: Policy, limit: int, start: int, turns: int) -> list[Seen]:
    """Takes `turns` turns after `start` made-up ones; [] where the context is too small for them."""
    history = [made_up(number) for number in range(start)]
    seen: list[Seen] = []
    for number in range(start, start + turns):
        question = made_up(number)[0]
        sizes = [estimate_tokens(turn) for turn in history] + [estimate_tokens([question])]
        first = policy(sizes, limit)
        if first < 0:
            return []
        prompt = [message for turn in history[first:] for message in turn] + [question]
        reply, one = await _ask(model, prompt)
        seen.append(one)
        history.append([question, reply])
    return seen


async def _ask(model: ChatOpenAI, prompt: list[BaseMessage]) -> tuple[BaseMessage, Seen]:
    began, first, text, tokens, cached = time.perf_counter(), 0.0, "", 0, 0
    async for chunk in model.astream(prompt, max_tokens=REPLY_TOKENS):
        if not first and chunk.content:
            first = time.perf_counter() - began
        text += str(chunk.text)
        if chunk.usage_metadata is not None:
            tokens = chunk.usage_metadata["input_tokens"]
            cached = chunk.usage_metadata.get("input_token_details", {}).get("cache_read", 0)
    return AIMessage(text), Seen(tokens, cached, first)


def measure(bench: Bench) -> Result:
    """Shares and milliseconds for each window: in steps, through a whole step; else of some turns, which are alike."""
    windows, starts = ((600,), (20,)) if bench.quick else ((1200, 3000), (20, 100, 1000))

    async def converse_all() -> Result:
        result: Result = {}
        async with open_model() as model:
            for limit in windows:
                whole_step = limit // 2 // estimate_tokens(made_up(100)) + 2
                for start in starts:
                    for name, policy in POLICIES.items():
                        turns = whole_step if name == "steps" else _SAMPLES
                        seen = await converse(model, policy, limit, start, turns)
                        result.setdefault(str(limit), {}).setdefault(str(start), {})[name] = _summary(seen)
        return result

    result = asyncio.run(converse_all())
    _show(result)
    return result


def _show(result: Result) -> None:
    rows = []
    for limit, by_start in result.items():
        for start, by_policy in by_start.items():
            for name, one in by_policy.items():
                cells = [f"{one['cached']:.0%}", f"{one['first_token_ms']:.0f}", f"{one['prompt_tokens']:.0f}"]
                rows.append([limit, start, name, *(cells if one["prompt_tokens"] else ["too long", "", ""])])
    table(["window", "after turn", "kind", "cached", "first token ms", "prompt tokens"], rows)


def _summary(seen: list[Seen]) -> dict[str, float]:
    warm = seen[1:]  # the first prompt of a conversation that was made up is new to the cache, whatever the policy
    if not warm:
        return {"cached": 0.0, "first_token_ms": 0.0, "prompt_tokens": 0.0}
    return {
        "cached": sum(one.cached for one in warm) / sum(one.tokens for one in warm),
        "first_token_ms": statistics.median(one.first_token_s for one in warm) * 1000,
        "prompt_tokens": statistics.mean(one.tokens for one in warm),
    }

"""How much of the past fits a model: from what is known of it, and from what it says when that was too much."""

from __future__ import annotations

import time

import httpx2
import openai
import pytest
from langchain_core.messages import AIMessage, HumanMessage

from histories.base import MOST_TOKENS, ShownTurn, estimate_tokens
from histories.window import window_floor
from tests.echo_model import EchoModel
from turns.failures import is_too_long
from turns.fit import CAP, UNKNOWN, Fit, Fits
from turns.shorten import fitting


def refusal(status: int, body: dict[str, object]) -> openai.APIStatusError:
    response = httpx2.Response(status, request=httpx2.Request("POST", "http://model"))
    return openai.BadRequestError(str(body), response=response, body=body)


OPENAI = refusal(
    400,
    {
        "code": "context_length_exceeded",
        "message": "This model's maximum context length is 2048 tokens. However, you requested 3000 tokens.",
    },
)
LLAMA = refusal(
    400,
    {
        "type": "exceed_context_size_error",
        "message": "request (3000 tokens) exceeds the available context size (2048 tokens), try increasing it",
        "n_prompt_tokens": 3000,
        "n_ctx": 2048,
    },
)
VLLM = refusal(400, {"message": "The model's max context window is too small: maximum model length is 2048."})


def test_a_number_of_the_operators_is_the_window() -> None:
    assert Fit(1200, context=400_000).window == 1200


def test_a_model_of_which_nothing_is_known_gets_what_fits_small_ones() -> None:
    assert Fit().window == UNKNOWN


def test_the_window_leaves_room_for_prompt_recall_and_reply() -> None:
    for context in (2_000, 4_096, 8_192, 16_384):
        fit = Fit(context=context)
        assert context / 4 < fit.window < context
        assert fit.window + fit.recall + context // 4 <= context


def test_a_large_context_is_not_paid_for_with_each_turn() -> None:
    assert Fit(context=400_000).window == CAP


def test_a_picture_has_room_in_the_last_turn_of_a_model_of_which_nothing_is_known() -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    turn = ShownTurn("1", [HumanMessage([{"type": "text", "text": "What is it?"}, picture]), AIMessage("word " * 300)])
    fit = Fit()
    (shown,) = fitting([turn], limit=fit.past(20), share=fit.turn)
    assert picture in shown.messages[0].content


@pytest.mark.parametrize("context", [8_192, 4_096, None])
@pytest.mark.parametrize("size", range(0, 40_000, 371))
def test_the_last_turn_is_within_the_window_whatever_was_before_it(size: int, context: int | None) -> None:
    fit = Fit(context=context)
    last, new = fit.turn, fit.turn // 2
    assert size >= window_floor(size + last + new, fit.window)


@pytest.mark.parametrize("error", [OPENAI, LLAMA, VLLM])
def test_the_numbers_in_a_refusal_are_heeded(error: openai.APIStatusError) -> None:
    fit = Fit(fixed=3000)
    assert is_too_long(error)
    smaller = fit.smaller(error, shown=2800, new=50)
    assert fit.context == 2048
    assert smaller <= 1400


def test_what_a_model_took_is_remembered_and_never_less_than_a_little() -> None:
    fit = Fit()
    fit.remember(900)
    assert fit.window == 900
    fit.remember(1)
    assert fit.window == 100


def test_other_refusals_are_not_for_the_length() -> None:
    assert not is_too_long(refusal(400, {"message": "messages: roles must alternate"}))
    assert not is_too_long(ValueError("context length"))


def test_the_estimate_is_corrected_by_what_a_model_counts_beyond_the_chains_own_prompt() -> None:
    fit = Fit(context=8_192)
    before = fit.window
    fit.count("chat", 100, 1100)  # a prompt of 1000 tokens
    for _ in range(40):
        fit.count("chat", 2000, 1100 + 2 * 1900)
    assert fit.window < before * 0.55


def test_a_correction_that_changes_little_changes_nothing() -> None:
    fit = Fit(context=8_192)
    before = fit.window
    fit.count("chat", 100, 100)
    for _ in range(40):
        fit.count("chat", 2000, 2000)
    assert fit.window == before


async def test_who_serves_a_model_is_asked_once_and_not_waited_for() -> None:
    asked, fits, model = [], Fits(None), EchoModel()

    async def ask(of: object) -> int:
        asked.append(of)
        return 2048

    fits.serve(model, ask)
    assert fits.of(model).window == UNKNOWN
    (asking,) = fits._asking
    await asking
    assert fits.of(model).window < 2048
    assert asked == [model]


@pytest.mark.parametrize("text", ["1234567890" * 100, "4fY9+/aZ" * 100, "记忆" * 500, "🙂" * 300])
def test_what_models_cut_finer_is_estimated_higher(text: str) -> None:
    assert estimate_tokens([HumanMessage(text)]) > len(text.encode()) / 3


def test_of_a_very_long_text_so_much_is_looked_at_as_tells_how_many_tokens_it_has() -> None:
    page = "All work and no play, 1234567890, " * 1000 + "4fY9+/aZ" * 1000 + "记忆" * 1000
    counts = {pages: estimate_tokens([HumanMessage(page * pages)]) for pages in (5, 500)}  # 0.2 and 22 MB
    assert counts[500] == pytest.approx(100 * counts[5], rel=0.01)
    took = {pages: min(_seconds(page * pages) for _ in range(3)) for pages in (5, 500)}
    assert took[500] < 20 * took[5]


def _seconds(text: str) -> float:
    message, begun = HumanMessage(text), time.thread_time()
    estimate_tokens([message])
    return time.thread_time() - begun


def test_the_most_that_an_unknown_turn_counts_is_what_it_may_take_of_the_largest_window() -> None:
    assert Fit(context=10**6).turn == MOST_TOKENS

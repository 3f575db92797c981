"""What is shown of turns that are longer than their share."""

from __future__ import annotations

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage

from histories.base import ShownTurn, estimate_tokens
from turns.calls import fit_to_show
from turns.shorten import fitting, shortened


def calls(count: int, size: int) -> list[BaseMessage]:
    """A question, so many tool calls with results of that size, and the answer."""
    messages: list[BaseMessage] = [HumanMessage("Look it up")]
    for number in range(count):
        call = {"name": "look", "args": {"page": "x" * 50}, "id": f"c{number}"}
        messages += [AIMessage("", tool_calls=[call]), ToolMessage("word " * (size // 5), tool_call_id=f"c{number}")]
    return [*messages, AIMessage("It is 42.")]


def test_a_turn_within_its_share_is_shown_as_it_is() -> None:
    messages = [HumanMessage("hi"), AIMessage("hello")]
    assert shortened(messages, 100) == messages


def test_a_paste_keeps_its_ends_and_says_how_much_is_left_out() -> None:
    paste = "beginning " + "line of a log\n" * 1000 + " end"
    shown, reply = shortened([HumanMessage(paste), AIMessage("Noted.")], 500)
    text = str(shown.content)
    assert text.startswith("beginning")
    assert text.endswith("end")
    assert "characters are left out here" in text
    assert reply.content == "Noted."
    assert estimate_tokens([shown, reply]) <= 520


def test_what_is_shown_of_a_turn_is_always_the_same() -> None:
    messages = calls(5, 20_000)
    assert shortened(messages, 700) == shortened(messages, 700)


def test_many_tool_results_are_left_out_with_their_calls() -> None:
    shown = shortened(calls(50, 20_000), 700)
    assert estimate_tokens(shown) <= 760
    assert fit_to_show(shown) == shown
    assert "left out here" in str(shown[0].content)
    assert shown[-1].content == "It is 42."


def test_calls_that_wait_for_their_results_are_kept() -> None:
    waiting = calls(30, 2_000)[:-2]
    shown = shortened(waiting, 200)
    assert isinstance(shown[-1], AIMessage)
    assert shown[-1].tool_calls[0]["id"] == "c29"


def test_long_arguments_and_parts_are_cut_and_stay_well_formed() -> None:
    call = {"name": "write", "args": {"text": "word " * 5000, "at": 3}, "id": "c"}
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    asked = HumanMessage([{"type": "text", "text": "word " * 5000}, image])
    shown = shortened([asked, AIMessage("", tool_calls=[call]), ToolMessage("ok", tool_call_id="c")], 400)
    assert estimate_tokens(shown) <= 450
    assert isinstance(shown[1], AIMessage)
    assert shown[1].tool_calls[0]["args"]["at"] == 3


def test_a_picture_stays_and_words_give_way() -> None:
    picture = {"type": "image", "base64": "AAAA", "mime_type": "image/png"}
    asked = HumanMessage([{"type": "text", "text": "word " * 500}, picture, picture])
    shown = shortened([asked, AIMessage("word " * 500)], 1_000)
    assert estimate_tokens(shown) <= 1_050
    assert isinstance(shown[0].content, list)
    text, kept, left_out = shown[0].content
    assert kept == picture
    assert left_out == {"type": "text", "text": "[one image is left out here]"}
    assert all("characters are left out here" in said for said in (str(text), str(shown[1].content)))
    assert picture not in shortened([asked, AIMessage("yes")], 500)[0].content


def test_the_newest_turns_are_shown_and_the_last_one_always() -> None:
    turns = [ShownTurn(str(n), [HumanMessage(f"q{n} " + "word " * 100), AIMessage("a")]) for n in range(10)]
    shown = fitting(turns, limit=400, share=200)
    assert [str(one.messages[0].content)[:2] for one in shown] == [f"q{n}" for n in range(10 - len(shown), 10)]
    assert len(fitting(turns, limit=0, share=200)) == 1

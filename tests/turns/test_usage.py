"""What the models of a turn tell beside their text."""

from __future__ import annotations

from langchain_core.messages import AIMessage, AIMessageChunk

from turns.usage import ModelNotes

NO = {"refusal": "I can't help with that."}
STOPPED = {"finish_reason": "stop"}


def test_the_part_that_ends_a_refusal_does_not_hide_it() -> None:
    notes = ModelNotes()
    notes.note(AIMessageChunk(content="", additional_kwargs=NO, id="run-1"))
    notes.note(AIMessageChunk(content="", response_metadata=STOPPED, id="run-1"))
    assert notes.finish_reason == "refusal"


def test_a_refusal_says_nothing_of_another_message_whether_they_have_ids_or_not() -> None:
    for ids in (("run-1", "run-2"), (None, None), (None, "run-2")):
        notes = ModelNotes()
        notes.note(AIMessage(content="", additional_kwargs=NO, id=ids[0]))
        assert notes.finish_reason == "refusal"
        notes.note(AIMessage(content="yes", response_metadata=STOPPED, id=ids[1]))
        assert notes.finish_reason == "stop"

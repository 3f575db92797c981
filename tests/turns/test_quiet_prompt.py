"""A prompt that is filled in quickly is filled in as LangChain does it."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.prompts import (
    ChatMessagePromptTemplate,
    ChatPromptTemplate,
    HumanMessagePromptTemplate,
    MessagesPlaceholder,
    PromptTemplate,
)

from turns.quiet_prompt import filled

VALUES: dict[str, Any] = {
    "who": "Ann {who}",
    "n": 3.14159,
    "past": [HumanMessage("a", id="1"), ("ai", "b"), {"role": "user", "content": "c"}],
    "thing": {"key": ["x"]},
    "address": "https://there/it.png",
}
PROMPTS: dict[str, Any] = {
    "texts": [("system", "Be {who}, {{literally}}."), ("human", "{who}{n}"), ("ai", "no field")],
    "all kinds": [
        SystemMessage("as {it} is"),
        MessagesPlaceholder("past"),
        ("placeholder", "{none}"),
        ("human", "{n}"),
    ],
    "the newest": [MessagesPlaceholder("past", n_messages=1)],
    "formats": [("human", "{n:.2f} {n!r} {thing}")],
    "another form": [HumanMessagePromptTemplate.from_template("Hi {{who}}", template_format="mustache")],
    "its own part": [
        HumanMessagePromptTemplate(
            prompt=PromptTemplate(
                template="{who} and {other}", input_variables=["who"], partial_variables={"other": "I"}
            )
        )
    ],
    "a role": [ChatMessagePromptTemplate.from_template("Hi {who}", role="boss")],
    "a picture": [("human", [{"type": "text", "text": "See {who}"}, {"type": "image_url", "image_url": "{address}"}])],
    "told beside": [HumanMessagePromptTemplate.from_template("Hi {who}", additional_kwargs={"a": 1})],
    "within": [ChatPromptTemplate.from_messages([("human", "inner {who}")])],
}


@pytest.mark.parametrize("name", PROMPTS)
async def test_it_gives_the_same_messages(name: str) -> None:
    prompt = ChatPromptTemplate.from_messages(PROMPTS[name])
    expected = await prompt.aformat_messages(**VALUES)
    made = await filled(prompt, VALUES)
    assert [(type(one), one) for one in made] == [(type(one), one) for one in expected]


async def test_what_a_prompt_brings_along_is_put_in() -> None:
    prompt = ChatPromptTemplate.from_messages([("human", "{who} at {time}")]).partial(time=lambda: "noon")
    assert (
        await filled(prompt, VALUES) == await prompt.aformat_messages(**VALUES) == [HumanMessage("Ann {who} at noon")]
    )


async def test_a_template_that_is_changed_is_read_anew() -> None:
    prompt = ChatPromptTemplate.from_messages([("human", "{who}")])
    await filled(prompt, VALUES)
    prompt.append(AIMessage("and"))
    part: Any = prompt.messages[0]
    part.prompt.template = "{n:.1f}"
    assert [one.content for one in await filled(prompt, VALUES)] == ["3.1", "and"]


@pytest.mark.parametrize("template", ["{absent}", "{who.absent}"])
async def test_what_is_missing_is_said_the_same_way(template: str) -> None:
    prompt = ChatPromptTemplate.from_messages([HumanMessagePromptTemplate.from_template("{who}")])
    part: Any = prompt.messages[0]
    part.prompt.template = template
    with pytest.raises((KeyError, AttributeError)) as expected:
        await prompt.aformat_messages(**VALUES)
    with pytest.raises(type(expected.value)) as raised:
        await filled(prompt, VALUES)
    assert str(raised.value) == str(expected.value)

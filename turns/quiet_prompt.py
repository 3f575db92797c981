"""Filling in a chat prompt without the calls within calls that LangChain makes of each text, and its slow formatter."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from string import Formatter
from typing import Any, Final

from langchain_core.messages import BaseMessage
from langchain_core.prompts import (
    AIMessagePromptTemplate,
    ChatPromptTemplate,
    HumanMessagePromptTemplate,
    PromptTemplate,
    SystemMessagePromptTemplate,
)

_TEXTS: Final = (HumanMessagePromptTemplate, AIMessagePromptTemplate, SystemMessagePromptTemplate)


async def filled(prompt: ChatPromptTemplate, values: Mapping[str, Any]) -> list[BaseMessage]:
    """What `prompt.aformat_messages(**values)` gives."""
    values = prompt._merge_partial_and_user_variables(**values)
    messages = list[BaseMessage]()
    for part in prompt.messages:
        if isinstance(part, BaseMessage):
            messages.append(part)
        elif (message := _text(part, values)) is not None:
            messages.append(message)
        else:
            messages += await part.aformat_messages(**values)
    return messages


def _text(part: Any, values: Mapping[str, Any]) -> BaseMessage | None:
    """The message of a part that is one text, in which names in braces stand for what is put in."""
    if type(part) not in _TEXTS or type(part.prompt) is not PromptTemplate:
        return None
    prompt = part.prompt
    if prompt.partial_variables or prompt.template_format != "f-string" or not _names_alone(prompt.template):
        return None
    message: BaseMessage = part._msg_class(
        content=prompt.template.format_map(values), additional_kwargs=part.additional_kwargs
    )
    return message


@lru_cache(maxsize=1024)
def _names_alone(template: str) -> bool:
    fields = [field for field in Formatter().parse(template) if field[1] is not None]
    return all(name and name.isidentifier() and not spec and not how for _, name, spec, how in fields)

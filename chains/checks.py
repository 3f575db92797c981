"""What can be seen of a chain before it is called: how it would misuse its history, in one sentence."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any, Protocol

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import BasePromptTemplate, ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import Runnable, RunnableGenerator, RunnableSequence
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.history import RunnableWithMessageHistory
from pydantic import BaseModel
from typing_extensions import get_type_hints, is_typeddict  # typing's know no TypedDict of theirs

from turns.graphs import keeps_its_own_history


class Described(Protocol):
    """What its author says of a chain."""

    @property
    def input_type(self) -> Any: ...
    @property
    def output_type(self) -> Any: ...
    @property
    def input_messages_key(self) -> str | None: ...
    @property
    def history_messages_key(self) -> str | None: ...
    @property
    def playground(self) -> str: ...
    @property
    def memory(self) -> bool | str: ...


def fault_of(chain: Described, runnable: Runnable[Any, Any]) -> str | None:
    """Why this chain would not do what its author means; None if nothing is to be seen.

    Sure faults alone: what a function among the steps does can't be known.
    """
    if not chain.memory:
        return _generators(chain, runnable) or _playground(chain)
    checks = (_generators, _own_history, _keys, _placeholder, _variables)
    return next((fault for check in checks if (fault := check(chain, runnable)) is not None), _playground(chain))


def doubt_about(chain: Described, runnable: Runnable[Any, Any]) -> str | None:
    """What the author may have meant otherwise, though it can be served."""
    last = _steps(runnable)[-1]
    if chain.output_type is str and isinstance(_bare(last), BaseChatModel):
        return "its output_type is str, and it gives messages: end it with StrOutputParser()"
    wants_message = isinstance(chain.output_type, type) and issubclass(chain.output_type, BaseMessage)
    if wants_message and isinstance(last, StrOutputParser):
        return "its output_type is a message, and it gives text: say output_type=str"
    for step in _all(runnable):
        if inspect.isgeneratorfunction(getattr(step, "func", None)) and not hasattr(step, "afunc"):
            return f"its step {getattr(step, 'name', None)} is a generator that LangChain can't stream: use async def"
    return None


def _playground(chain: Described) -> str | None:
    if chain.playground == "chat" and chain.output_type is not str:
        return 'the chat playground takes text alone: say output_type=str, or playground="default"'
    return None


def _own_history(chain: Described, runnable: Runnable[Any, Any]) -> str | None:
    for step in _all(runnable):
        if isinstance(step, RunnableWithMessageHistory):
            return (
                "it is a RunnableWithMessageHistory already: give build the chain inside, Recollect keeps the history"
            )
        if keeps_its_own_history(step):
            return "its graph has a checkpointer, a second history: compile it without one"
    return None


def _generators(chain: Described, runnable: Runnable[Any, Any]) -> str | None:
    for step in _all(runnable):
        if isinstance(step, RunnableGenerator) and not hasattr(step, "_atransform"):
            return f"its step {step.name} is a generator that is not async, which a server can't call: use async def"
    return None


def _keys(chain: Described, runnable: Runnable[Any, Any]) -> str | None:
    fields = _fields(chain.input_type)
    key = chain.input_messages_key
    if key is None:
        if chain.history_messages_key is not None and fields is not None and len(fields) > 1:
            return "it has a history_messages_key: say the input_messages_key, too"
        return None
    if fields is not None and key not in fields:
        return f"its input_messages_key is {key!r}, which its input_type has not ({', '.join(fields)})"
    if key == chain.history_messages_key:
        return "its input_messages_key and its history_messages_key are the same"
    return None


def _placeholder(chain: Described, runnable: Runnable[Any, Any]) -> str | None:
    """The history has to come to a prompt as messages, under its key."""
    prompt = _first_prompt(runnable)
    if prompt is None:
        return None
    history, key = chain.history_messages_key, chain.input_messages_key
    placeholders = {part.variable_name for part in _parts(prompt) if isinstance(part, MessagesPlaceholder)}
    if history is None:
        as_text = key is not None and key in prompt.input_variables and key not in placeholders
        if as_text:
            return f"its prompt takes {{{key}}} as text: say a history_messages_key, with a MessagesPlaceholder of it"
        return None
    if history in placeholders:
        return None
    if history in prompt.input_variables:
        return f"its prompt takes {{{history}}} as text: use MessagesPlaceholder({history!r})"
    return f"its prompt has no MessagesPlaceholder({history!r}): add it, or say memory=False if it need not remember"


def _variables(chain: Described, runnable: Runnable[Any, Any]) -> str | None:
    """What a prompt wants has to be in the input."""
    prompt, fields = _first_prompt(runnable), _fields(chain.input_type)
    if prompt is None or fields is None:
        return None
    missing = [name for name in prompt.input_variables if name not in {*fields, chain.history_messages_key}]
    optional = getattr(prompt, "optional_variables", [])
    missing = [name for name in missing if name not in optional]
    return f"its prompt wants {{{missing[0]}}}, which its input_type has not" if missing else None


def _first_prompt(runnable: Runnable[Any, Any]) -> ChatPromptTemplate | None:
    first = _steps(runnable)[0]
    return first if isinstance(first, ChatPromptTemplate) else None


def _parts(prompt: ChatPromptTemplate) -> list[Any]:
    return list(prompt.messages)


def _fields(kind: Any) -> list[str] | None:
    """The names of an input's fields, where its type has names."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        if kind.model_config.get("extra") == "allow" or "root" in kind.model_fields:
            return None
        return [*kind.model_fields, *(field.alias for field in kind.model_fields.values() if field.alias)]
    if is_typeddict(kind):
        return list(get_type_hints(kind))
    return None


def _bare(step: Runnable[Any, Any]) -> Runnable[Any, Any]:
    while isinstance(step, RunnableBindingBase):
        step = step.bound
    return step


def _steps(runnable: Runnable[Any, Any]) -> list[Runnable[Any, Any]]:
    bare = runnable if isinstance(runnable, RunnableWithMessageHistory) else _bare(runnable)
    return list(bare.steps) if isinstance(bare, RunnableSequence) else [bare]


def _all(runnable: Runnable[Any, Any]) -> Iterator[Runnable[Any, Any]]:
    """The runnable and its steps."""
    yield runnable
    for step in _steps(runnable):
        yield step
        if not isinstance(step, BasePromptTemplate):
            yield _bare(step)

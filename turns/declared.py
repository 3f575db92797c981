"""What a chain with a history says of itself: its fields, its types and schemas, and what may be configured."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Literal, Self, cast

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import BaseMessage
from langchain_core.runnables import ConfigurableFieldSpec, Runnable, RunnableConfig
from langchain_core.runnables.history import RunnableWithMessageHistory
from pydantic import BaseModel, PrivateAttr
from typing_extensions import override

from turns.errors import ChainFailed
from turns.face import RunnableFace
from turns.later import Later, built
from turns.recall import Recall
from turns.run import Turns
from turns.schemas import named_schema, taking_messages, with_form_of
from turns.session_specs import SESSION_SPECS

log = logging.getLogger("recollect.chains")


class DeclaredChain(RunnableFace):
    """The part of a chain with a history that is there before any call, and that LangServe and clients read."""

    turns: Turns
    chain_name: str = ""
    memory: bool | Literal["summary"] = True
    """Whether its turns are kept, and what leaves the window summed up; else it is called as it is, in no session."""

    limit_s: float | None = None
    """How long a turn may take; None: as long as the rules say."""

    recall: Recall | None = None
    """Where earlier exchanges are looked for that bear on the question; None: where the rules say."""

    notes: bool = False
    """Whether the model is shown the notes about the user."""

    unheard: tuple[type[BaseCallbackHandler], ...] = ()
    """Callback handlers whose findings nobody reads: they are not called."""

    _input_schema: type[BaseModel] | None = PrivateAttr(default=None)
    _output_schema: type[BaseModel] | None = PrivateAttr(default=None)

    @property
    def inner(self) -> Runnable[Any, Any]:
        """What is called for a turn: `bound`, or what that stands for. To build it may take a while: see `ready`."""
        return built(self.bound)

    async def ready(self) -> None:
        """Returns when `inner` is there at once. Raises `ChainFailed` if it can't be built."""
        if isinstance(self.bound, Later):
            try:
                await self.bound.ready()
            except Exception as error:
                log.exception("/%s can't be built", self.chain_name)
                raise ChainFailed("The chain can't be served as it is.") from error

    @property
    @override
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        """Session and turn, and what the wrapped runnable lets be configured. The user is nobody's to choose."""
        own = {spec.id for spec in SESSION_SPECS} | {"user_id"}
        return [
            *(SESSION_SPECS if self.memory else ()),
            *(spec for spec in self.bound.config_specs if spec.id not in own),
        ]

    @override
    def config_schema(self, *, include: Sequence[str] | None = None) -> type[BaseModel]:
        """What LangServe reads a config by; what is for traces is taken, but no field of a form."""
        return with_form_of(super().config_schema(include=include), "configurable")

    @property
    @override
    def OutputType(self) -> Any:
        return self.custom_output_type if self.custom_output_type is not None else self.bound.OutputType

    @override
    def get_input_schema(self, config: RunnableConfig | None = None) -> type[BaseModel]:
        """The schema of the input type, built once: LangServe asks for it with every request."""
        if self._input_schema is None:
            kind = self.custom_input_type
            if kind is not None:
                kind = taking_messages(kind, self.input_messages_key) if self.memory else kind
            elif self.memory:
                kind = RunnableWithMessageHistory.get_input_schema(self, config)
            else:
                kind = self.bound.InputType
            self._input_schema = named_schema(kind, self.chain_name, "Input")
        return self._input_schema

    @override
    def get_output_schema(self, config: RunnableConfig | None = None) -> type[BaseModel]:
        """The schema of the output type, under a name that no other chain's has."""
        if self._output_schema is None:
            self._output_schema = named_schema(self.OutputType, self.chain_name, "Output")
        return self._output_schema

    @override
    def with_types(self, *, input_type: Any = None, output_type: Any = None) -> Self:
        """The same chain, with these types in its schemas."""
        changes = {"custom_input_type": input_type, "custom_output_type": output_type}
        twin = self.model_copy(update={name: value for name, value in changes.items() if value is not None})
        twin._input_schema = twin._output_schema = None
        return twin

    @override
    def with_config(self, config: RunnableConfig | None = None, **kwargs: Any) -> Self:
        """The same chain, with this config as its default."""
        return self.model_copy(update={"config": cast(RunnableConfig, {**self.config, **(config or {}), **kwargs})})

    @property
    def tells_usage(self) -> bool:
        """Whether its output is a message, which says itself what the model counted."""
        kind = self.OutputType
        return isinstance(kind, type) and issubclass(kind, BaseMessage)

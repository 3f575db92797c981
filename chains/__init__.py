"""The chains that are served: each is a file in this folder that defines `CHAIN`.

`load_chains` finds them all; a file without a `CHAIN` is a part of the machinery.
"""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable

from turns.run import Turns
from turns.with_history import ChainWithHistory

RESERVED = frozenset(
    {"admin", "c", "chains", "docs", "healthz", "login", "logout", "me", "metrics", "openapi.json", "readyz"}
) | {
    "redoc",
    "render",
    "sessions",
    "static",
    "web",
}
"""First parts of paths that are not a chain's to take."""


class BadChain(Exception):
    """A file in `chains/` does not define a chain that can be served. The message names it and says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """A chain to be served under `/<name>`.

    `build` makes the runnable from the chat model. The keys are `RunnableWithMessageHistory`'s: `input_messages_key`
    when the input is a dictionary, `history_messages_key` when the past goes under a key of its own (a
    `MessagesPlaceholder`), `output_messages_key` when the output is a dictionary. The types are what clients see in
    the schemas and forms. `playground` is LangServe's: `chat` needs a `str` output, and one text and one list as input.
    """

    name: str
    build: Callable[[BaseChatModel], Runnable[Any, Any]]
    input_type: Any
    output_type: Any = AIMessage
    input_messages_key: str | None = None
    history_messages_key: str | None = None
    output_messages_key: str | None = None
    playground: Literal["default", "chat"] = "default"
    description: str = ""

    def with_history(self, model: BaseChatModel, turns: Turns, **options: Any) -> ChainWithHistory:
        """The chain on this model, with a memory."""
        return ChainWithHistory(
            self.build(model),
            turns,
            chain_name=self.name,
            input_messages_key=self.input_messages_key,
            output_messages_key=self.output_messages_key,
            history_messages_key=self.history_messages_key,
            input_type=self.input_type,
            output_type=self.output_type,
            **options,
        )


def load_chains() -> list[Chain]:
    """All chains of this folder, by name; raises `BadChain` for one that can't be served."""
    found: dict[str, Chain] = {}
    for module in pkgutil.iter_modules(__path__):
        where = f"chains/{module.name}.py"
        try:
            chain = getattr(import_module(f"{__name__}.{module.name}"), "CHAIN", None)
        except Exception as error:
            raise BadChain(f"{where} can't be imported: {type(error).__name__}: {error}") from error
        if chain is None:
            continue
        if not isinstance(chain, Chain):
            raise BadChain(f"{where}: CHAIN has to be a chains.Chain")
        if not re.fullmatch("[a-z][a-z0-9_-]{0,63}", chain.name) or chain.name in RESERVED:
            raise BadChain(f"{where}: {chain.name!r} can't be a chain's name: use a-z, 0-9, _ and -, and none of ours")
        if chain.name in found:
            raise BadChain(f"{where}: there is a chain of the name {chain.name!r} already")
        found[chain.name] = chain
    return [found[name] for name in sorted(found)]

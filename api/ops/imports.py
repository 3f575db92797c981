"""What is spared while a server imports what it stands on: it is most of the start, and a third of the memory.

`server` calls `begin` before its imports, and `end` after those of others. Nothing of it holds for what comes later.
"""

from __future__ import annotations

import gc
import sys
from typing import Final, get_args

from pydantic import BaseModel

_COMMAND_LINES: Final = ("httpx._main",)
"""Programs that packages import for themselves where they can, with a terminal's colours and tables."""


def begin() -> None:
    """Imports take no notice of garbage, of httpx's command line, and of models that nobody may ever ask."""
    gc.disable()  # what is imported stays: to look for garbage among it would take a quarter of the start
    for name in _COMMAND_LINES:
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]  # an import of it fails, as where it is missing
    # Pydantic compiles a model when it is first used. Hundreds never are: LangSmith's, OpenAPI's, …
    BaseModel.model_config["defer_build"] = True


def end() -> None:
    """From here on models are compiled where they are defined, so that a bad one of a chain is found at the start."""
    BaseModel.model_config.pop("defer_build", None)
    from langchain_core import messages  # here, or its models would be compiled as they are imported

    for tagged in get_args(get_args(messages.AnyMessage)[0]):
        get_args(tagged)[0].model_rebuild()  # once, and not for each schema that has messages
    for name in _COMMAND_LINES:
        if sys.modules.get(name, sys) is None:
            del sys.modules[name]


_YOUNG: Final = 10_000
"""So many objects are made before they are looked through for garbage. With Python's 700 those of the turns under way
were, each time, and soon counted as old: an eighth of a turn's processor time. They go by themselves."""


def freeze() -> None:
    """What is there now is not looked through for garbage later: it would hold turns up for a tenth of a second."""
    gc.freeze()
    gc.set_threshold(_YOUNG, *gc.get_threshold()[1:])
    gc.enable()

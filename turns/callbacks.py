"""Who hears of what happens within a turn's run."""

from __future__ import annotations

from typing import Any

from langchain_core.callbacks import BaseCallbackHandler, BaseCallbackManager
from langchain_core.runnables import Runnable, RunnableConfig

from turns import quiet
from turns.quiet import Note
from turns.usage import ModelNotes


def heard(
    config: RunnableConfig,
    bound: Runnable[Any, Any],
    *,
    unheard: tuple[type[BaseCallbackHandler], ...],
    tells_usage: bool,
) -> tuple[RunnableConfig, ModelNotes | None, Note | None]:
    """The config without the `unheard` handlers; and, if the output won't tell of the model, who notes.

    That is told of what the model says (`Note`), or, where it can't be, it is one more handler.
    """
    callbacks = config.get("callbacks")
    if isinstance(callbacks, BaseCallbackManager):
        callbacks = callbacks.copy()
    else:
        callbacks = [handler for handler in callbacks or () if not isinstance(handler, unheard)]
    config = {**config, "callbacks": callbacks}
    if tells_usage:
        return config, None, None
    notes = ModelNotes()
    if quiet.says_usage(bound, config):
        return config, notes, notes.note
    if isinstance(callbacks, list):
        callbacks.append(notes)
    else:
        callbacks.add_handler(notes, inherit=True)
    return config, notes, None

"""Who hears of what happens within a turn's run."""

from __future__ import annotations

from typing import Any

from langchain_core.callbacks import BaseCallbackHandler, BaseCallbackManager
from langchain_core.runnables import Runnable, RunnableConfig

from turns.quiet import Note, Steps, steps_of
from turns.usage import ModelNotes


def heard(
    config: RunnableConfig,
    bound: Runnable[Any, Any],
    *,
    unheard: tuple[type[BaseCallbackHandler], ...],
    tells_usage: bool,
) -> tuple[RunnableConfig, Steps, ModelNotes | None, Note | None]:
    """The config without the `unheard` handlers, and how to call `bound` with it; and, if the output won't tell of
    the model, who notes.

    That is told of what the model says (`Note`), or, where it can't be, it is one more handler.
    """
    callbacks = config.get("callbacks")
    if isinstance(callbacks, BaseCallbackManager):
        callbacks = callbacks.copy()
    else:
        callbacks = [handler for handler in callbacks or () if not isinstance(handler, unheard)]
    config = {**config, "callbacks": callbacks}
    steps = steps_of(bound, config)
    if tells_usage:
        return config, steps, None, None
    notes = ModelNotes()
    if steps.say_usage:
        return config, steps, notes, notes.note
    if isinstance(callbacks, list):
        callbacks.append(notes)
    else:
        callbacks.add_handler(notes, inherit=True)
    return config, Steps([bound], config), notes, None

"""What a chain's author says of it."""

from __future__ import annotations

import inspect
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable
from langchain_core.runnables.base import coerce_to_runnable

from chains.checks import fault_of
from turns.graphs import with_whole_graphs
from turns.iterators import from_generator
from turns.later import Later
from turns.recall import RECALLS, Recall
from turns.run import Turns
from turns.with_history import ChainWithHistory

RESERVED = frozenset(
    {
        "admin",
        "c",
        "chains",
        "docs",
        "export",
        "healthz",
        "login",
        "logout",
        "me",
        "memory",
        "metrics",
        "openapi.json",
        "readyz",
    }
) | {
    "redoc",
    "render",
    "sessions",
    "shared",
    "shares",
    "static",
    "web",
}
"""First parts of paths that are not a chain's to take."""

Built = (
    Runnable[Any, Any]
    | Callable[..., Any]
    | Awaitable[Any]
    | AbstractAsyncContextManager[Any]
    | AbstractContextManager[Any]
)


class BadChain(Exception):
    """A chain can't be served as it is. The message is one line that names its file and says why."""


def in_one_line(error: BaseException) -> str:
    """The kind of an exception and what it says: pydantic's have several lines, some have none."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """A chain to be served under `/<name>`.

    `build` makes the runnable (or a function) from the chat model. It may be a coroutine, or a context manager that is
    closed when the server ends. The keys are `RunnableWithMessageHistory`'s: `input_messages_key` when the input is a
    dictionary, `history_messages_key` when the past goes under a key of its own (a `MessagesPlaceholder`),
    `output_messages_key` when the output is a dictionary. The types are what clients see in the schemas and forms.
    `playground` is LangServe's: `chat` needs a `str` output, and one text and one list as input.

    Without `memory` it is called as it is, with sign-in and limits, and nothing is kept; with "summary" what leaves the
    model's window is summed up by the model, in the background. `limit_s` bounds a turn (None:
    RECOLLECT_TURN_LIMIT_S, 0: no bound). `recall` says where earlier exchanges are looked for that bear on the message
    (None: where RECOLLECT_RECALL says); with `notes` the model is shown what is noted of the user.

    With `late` it is built at its first call, in a thread: for a `build` that imports what takes long, and gives the
    runnable at once. The server starts sooner, but a chain that can't be built is found by that call (and by
    `admin.py chains`), and nothing in it can be configured by clients.
    """

    name: str
    build: Callable[[BaseChatModel], Built]
    input_type: Any
    output_type: Any = AIMessage
    input_messages_key: str | None = None
    history_messages_key: str | None = None
    output_messages_key: str | None = None
    playground: Literal["default", "chat"] = "default"
    description: str = ""
    memory: bool | Literal["summary"] = True
    limit_s: float | None = None
    recall: Recall | None = None
    notes: bool = False
    late: bool = False
    where: str = field(default="", compare=False)
    """The file that defines it: set when it is loaded."""

    @asynccontextmanager
    async def opened(self, model: BaseChatModel, turns: Turns, **options: Any) -> AsyncIterator[ChainWithHistory]:
        """The chain on this model, ready to be called; what it opened is closed in the end. Raises `BadChain`."""
        async with AsyncExitStack() as stack:
            built = await self._entered(self._built(model), stack)
            yield self._wrapped(built, turns, options)

    @property
    def is_simple(self) -> bool:
        """Whether `build` gives the runnable at once."""
        function: Any = inspect.unwrap(self.build)
        return not (
            inspect.iscoroutinefunction(function)
            or inspect.isgeneratorfunction(function)
            or inspect.isasyncgenfunction(function)
        )

    def with_history(self, model: BaseChatModel, turns: Turns, **options: Any) -> ChainWithHistory:
        """The chain on this model, with a memory, where `build` gives the runnable at once. Raises `BadChain`."""
        return self._wrapped(self._built(model), turns, options)

    def _built(self, model: BaseChatModel) -> Any:
        if not self.late:
            return self._built_now(model)
        if not self.is_simple:
            raise BadChain(f"{self.place}: it can't be built late: its build has to be a plain function")
        return Later(lambda: self._checked(self._built_now(model)))

    def _built_now(self, model: BaseChatModel) -> Any:
        try:
            return self.build(model)
        except (Exception, SystemExit) as error:
            raise self._failed(error) from error

    async def _entered(self, built: Any, stack: AsyncExitStack) -> Any:
        """What is in it, if it is a coroutine or a context manager, which the stack closes."""
        if isinstance(built, Runnable):
            return built
        try:
            if inspect.isawaitable(built):
                return await built
            if isinstance(built, AbstractAsyncContextManager):
                return await stack.enter_async_context(built)
            if isinstance(built, AbstractContextManager):
                return stack.enter_context(built)
        except (Exception, SystemExit) as error:
            raise self._failed(error) from error
        return built

    def _failed(self, error: BaseException) -> BadChain:
        return BadChain(f"{self.place}: build fails: {in_one_line(error)}")

    def _wrapped(self, built: Any, turns: Turns, options: dict[str, Any]) -> ChainWithHistory:
        if self.recall not in (None, *RECALLS):
            raise BadChain(f"{self.place}: its recall is {self.recall!r}: say one of {', '.join(RECALLS)}")
        if self.memory not in (True, False, "summary"):
            raise BadChain(f"{self.place}: its memory is {self.memory!r}: say True, False or 'summary'")
        return ChainWithHistory(
            built if isinstance(built, Later) else self._checked(built),
            turns,
            chain_name=self.name,
            input_messages_key=self.input_messages_key,
            output_messages_key=self.output_messages_key,
            history_messages_key=self.history_messages_key,
            input_type=self.input_type,
            output_type=self.output_type,
            memory=self.memory,
            limit_s=self.limit_s,
            recall=self.recall,
            notes=self.notes,
            **options,
        )

    def _checked(self, built: Any) -> Runnable[Any, Any]:
        """It as a runnable. Raises `BadChain` where it would not do what its author means."""
        runnable = self._runnable(built)
        fault = fault_of(self, runnable)
        if fault is not None:
            raise BadChain(f"{self.place}: {fault}")
        return runnable

    def _runnable(self, built: Any) -> Runnable[Any, Any]:
        try:
            if built is None or isinstance(built, (str, type)):
                raise TypeError
            by_pieces = inspect.isgeneratorfunction(built)
            runnable: Runnable[Any, Any] = from_generator(built) if by_pieces else coerce_to_runnable(built)
        except TypeError:
            kind = "nothing" if built is None else f"a {type(built).__name__}"
            raise BadChain(f"{self.place}: build gives {kind}: it has to return a Runnable, or a function") from None
        whole: Runnable[Any, Any] = with_whole_graphs(runnable)
        return whole

    @property
    def place(self) -> str:
        """Where it is defined, for messages."""
        return self.where or f"the chain {self.name}"

    def check_name(self) -> None:
        """Raises `BadChain` for a name that no path can have."""
        if not re.fullmatch("[a-z][a-z0-9_-]{0,63}", self.name) or self.name in RESERVED:
            raise BadChain(
                f"{self.place}: {self.name!r} can't be a chain's name: use a-z, 0-9, _ and -, and none of ours"
            )

"""A chain with a memory: LangChain's `RunnableWithMessageHistory`, with turns that are kept."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import BaseMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.config import ensure_config, get_config_list, merge_configs
from langchain_core.runnables.schema import StreamEvent
from langchain_core.runnables.utils import gather_with_concurrency
from langchain_core.tracers.log_stream import RunLog, RunLogPatch
from typing_extensions import override

from histories.base import (
    InvalidId,
    NewTurn,
    OpenTurn,
    SessionHistory,
    Turn,
    TurnRunning,
    TurnStatus,
    check_id,
    copied,
    estimate_tokens,
)
from turns import quiet
from turns.batches import by_session, check_batch
from turns.callbacks import heard
from turns.debug_events import run_events
from turns.debug_runs import Hear, steps
from turns.debug_streams import run_log
from turns.declared import DeclaredChain
from turns.errors import TurnStopped
from turns.failures import hashed
from turns.fit import Fit
from turns.graphs import GraphStream, is_graph
from turns.inputs import fields_of, new_messages, with_past
from turns.iterators import invoked, pieces
from turns.outputs import Given, Recorded, named, noted, recorded, with_id
from turns.recall import Recall
from turns.replay import replayed, replaying
from turns.rules import Speech
from turns.run import Turns
from turns.session_specs import SESSION_SPECS, id_or_none
from turns.showing import Showing, speaking
from turns.shown import Redaction, well_formed
from turns.sizes import size_of
from turns.traces import traceable, with_run
from turns.turn_run import TurnRun
from turns.usage import ModelNotes
from turns.watch import ended, raise_failure
from turns.wrapped import Call, Run


class ChainWithHistory(DeclaredChain):
    """A runnable whose turns are kept, for each `user_id` and `session_id` of the config.

    It takes and gives what LangChain's class documents: messages, or a dictionary with messages under
    `input_messages_key`, the past under `history_messages_key`, and the reply under `output_messages_key`. But the
    wrapped runnable (`bound`) is called directly, with the past put into its input, and the user's words and the reply
    are durable before the caller hears of them. Only `human` and `tool` messages are taken from callers.
    """

    def __init__(
        self,
        bound: Runnable[Any, Any],
        turns: Turns,
        *,
        chain_name: str = "",
        input_messages_key: str | None = None,
        output_messages_key: str | None = None,
        history_messages_key: str | None = None,
        input_type: Any = None,
        output_type: Any = None,
        memory: bool | Literal["summary"] = True,
        limit_s: float | None = None,
        recall: Recall | None = None,
        notes: bool = False,
        unheard: tuple[type[BaseCallbackHandler], ...] = (),
    ) -> None:
        def get_session_history(user_id: str, session_id: str) -> SessionHistory:
            return turns.store.history(user_id, session_id)

        # Not the parent's __init__: it builds the pipeline (load, insert, run, save) that this class replaces, and
        # warns that LangChain 2 will drop the class.
        RunnableBindingBase.__init__(
            self,
            bound=bound,
            custom_input_type=input_type,
            custom_output_type=output_type,
            get_session_history=get_session_history,
            input_messages_key=input_messages_key,
            output_messages_key=output_messages_key,
            history_messages_key=history_messages_key,
            history_factory_config=SESSION_SPECS,
            turns=turns,
            chain_name=chain_name,
            memory=memory,
            limit_s=limit_s,
            recall=recall,
            notes=notes,
            unheard=unheard,
        )

    # The turn.

    def _start(
        self,
        input: Any,
        config: RunnableConfig | None,
        run: Run,
        redaction: Redaction | None = None,
        *,
        streaming: bool = False,
        hear: Hear | None = None,
    ) -> TurnRun:
        config = merge_configs(self.config, config) if self.config else ensure_config(config)
        place, fit = self._place(config), self.turns.fits.of(self.inner)
        new = self._new_turn(input, config, fit)
        config, to_call, notes, note = heard(
            self._with_traces(config, *place), self.inner, unheard=self.unheard, tells_usage=self.tells_usage
        )
        call, showing = Call(None, config, to_call, note), self._showing(place, new, fit)
        speech = self._speech(call, input, new, run, showing, notes, redaction, streaming=streaming)
        configurable = config.get("configurable", {})
        run_of_turn = self.turns.start(
            *place,
            new,
            speech,
            limit_s=self.limit_s,
            streaming=streaming,
            hear=hear,
            on_disconnect=configurable.get("on_disconnect") or None,
            if_last=configurable.get("if_last"),
            window_tokens=showing.fit.window if showing is not None else None,
            size=size_of(input),
        )
        if showing is not None and self.memory == "summary":
            run_of_turn.task.add_done_callback(lambda _: showing.sum_up(self.turns.fits.model_of(self.inner)))
        return run_of_turn

    def _speech(
        self,
        call: Call,
        input: Any,
        new: NewTurn,
        run: Run,
        showing: Showing | None,
        notes: ModelNotes | None,
        redaction: Redaction | None,
        *,
        streaming: bool,
    ) -> Speech:
        """What the turn does: what the wrapped runnable says, shown the past, and how that goes on the record."""

        def speak(past: list[BaseMessage]) -> AsyncGenerator[Any, None]:
            self._prepare(call, input, past, new.input)
            if redaction is not None:
                redaction.hide(call.given.past)
            return run(call)

        def generate(turn: OpenTurn) -> AsyncGenerator[Any, None]:
            if showing is None:
                return speak([])
            return speaking(showing, turn, speak, lambda: notes is not None and notes.heard)

        def replay(turn: Turn) -> AsyncGenerator[Any, None]:
            output = replayed(turn, self.chain_name, self.output_messages_key)
            outputs = list(turn.output) if streaming and is_graph(self.inner) else [output]
            return replaying(outputs, input, call.config, streaming=streaming)

        def record(output: Any, cut: bool) -> Recorded:
            output = output if cut or call.state is None else call.state
            done = noted(recorded(output, call.given, key=self.output_messages_key, cut=cut), notes)
            done = with_run(done, call.config)
            return done if showing is None else self._counted(done, showing, new, cut=cut)

        return Speech(generate, replay, record)

    def _showing(self, place: tuple[str, str | None], new: NewTurn, fit: Fit) -> Showing | None:
        user_id, session_id = place
        if session_id is None:
            return None
        recall = self.turns.rules.recall if self.recall is None else self.recall
        summaries = self.turns.summaries if self.memory == "summary" else None
        return Showing(
            self.turns.store, user_id, session_id, fit, new.input,
            recall=recall, notes=self.notes, summaries=summaries,
        )  # fmt: skip

    def _counted(self, done: Recorded, showing: Showing, new: NewTurn, *, cut: bool) -> Recorded:
        """The output with what it counts in a window, and with what was recalled; the model's own count is heeded."""
        if done.usage is not None and not cut and not is_graph(self.inner):  # a graph asks more than once
            showing.fit.count(self.chain_name, showing.prompt_tokens(), done.usage["input_tokens"])
        whole = estimate_tokens(new.input) + done.tokens
        done = replace(done, tokens=max(0, min(whole, showing.fit.turn) - new.tokens))
        if showing.recalled:
            return replace(done, details={**done.details, "recalled": showing.recalled})
        return done

    def _place(self, config: RunnableConfig) -> tuple[str, str | None]:
        """Whose turn it is, and in which session; in none, if the chain does not remember."""
        configurable = config.get("configurable", {})
        session_id, user_id = configurable.get("session_id"), configurable.get("user_id")
        if not self.memory:
            return str(user_id or ""), None
        session_id = check_id(session_id)
        if not isinstance(user_id, str) or not user_id:
            raise InvalidId("The caller has to put a user_id into the config.")
        return user_id, session_id

    def _new_turn(self, input: Any, config: RunnableConfig, fit: Fit) -> NewTurn:
        if not self.memory:
            return NewTurn(input=[], chain=self.chain_name)
        configurable = config.get("configurable", {})
        turn_id, version_of = (id_or_none(configurable, name) for name in ("turn_id", "version_of"))
        messages = [with_id(message) for message in new_messages(fields_of(input), self.input_messages_key)]
        # No more than its share: what is longer is shown shortened, once it is past.
        tokens = min(estimate_tokens(messages), fit.turn // 2)
        if turn_id is None:
            return NewTurn(input=messages, chain=self.chain_name, tokens=tokens, version_of=version_of)
        return NewTurn(
            input=messages,
            chain=self.chain_name,
            tokens=tokens,
            turn_id=turn_id,
            given=True,
            version_of=version_of,
        )

    def _prepare(self, call: Call, input: Any, past: Sequence[BaseMessage], new: Sequence[BaseMessage]) -> None:
        """What the wrapped runnable is called with: the caller's input, with the past at its place."""
        if not self.memory:
            call.value = well_formed(input)
            return
        own = past if call.steps.only_read else [copied(message) for message in past]  # chains do what they like
        shown = [well_formed(message) for message in named(own)]
        said = [well_formed(message) for message in new]
        call.given = Given(shown, said)
        keys = self.history_messages_key, self.input_messages_key
        call.value = with_past(fields_of(input), shown, said, *keys)

    def _with_traces(self, config: RunnableConfig, user_id: str, session_id: str | None) -> RunnableConfig:
        user = hashed(user_id) if self.turns.rules.hash_users else user_id
        thread = hashed(user_id, session_id) if session_id is not None else None
        return traceable(config, user, session_id, thread, graph=is_graph(self.inner))

    # What callers call.

    @override
    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        while True:  # until it is answered from the record, if it runs already: it may just be about to let go
            try:
                return await self._invoking(input, config, kwargs).output()
            except TurnRunning:
                await self._joined(config)

    def _invoking(self, input: Any, config: RunnableConfig | None, kwargs: dict[str, Any]) -> TurnRun:
        async def run(call: Call) -> AsyncGenerator[Any, None]:
            told = {**self.kwargs, **kwargs}
            async for piece in invoked(call.steps, call.value, call.note, **told):
                yield call.given.without_past(piece)

        return self._start(input, config, run)

    async def _joined(self, config: RunnableConfig | None) -> None:
        """Waits for the end of a turn that somebody else has started. Raises what kept it from being answered."""
        configurable = merge_configs(self.config, config)["configurable"]
        place = (configurable["user_id"], configurable["session_id"], configurable["turn_id"])
        turn = await ended(self.turns, *place)
        if turn.status is not TurnStatus.COMPLETE:
            raise_failure(turn)
            raise TurnStopped("The turn was stopped. What was said so far is kept.")

    @override
    async def astream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncGenerator[Any, None]:
        while True:
            try:
                async with aclosing(self._streaming(input, config, kwargs).chunks()) as chunks:
                    async for chunk in chunks:
                        yield chunk
                return
            except TurnRunning:
                await self._joined(config)

    async def _tell(
        self,
        redaction: Redaction,
        hear: Hear,
        input: Any,
        config: RunnableConfig | None,
        *,
        inside: bool = False,
        **kwargs: Any,
    ) -> None:
        """Lets `hear` have each chunk at once, and returns when the turn is durable; `inside` a run around it, or not.

        `redaction` is told what to hide.
        """
        while True:
            try:
                await self._streaming(input, config, kwargs, redaction, hear, inside=inside).ended()
                return
            except TurnRunning:
                await self._joined(config)

    def start(self, input: Any, config: RunnableConfig | None = None, *, streaming: bool) -> TurnRun:
        """Starts a turn, and gives it to who wants to listen to it, or not."""
        return self._streaming(input, config, {}) if streaming else self._invoking(input, config, {})

    def _streaming(
        self,
        input: Any,
        config: RunnableConfig | None,
        kwargs: dict[str, Any],
        redaction: Redaction | None = None,
        hear: Hear | None = None,
        *,
        inside: bool = False,
    ) -> TurnRun:
        async def run(call: Call) -> AsyncGenerator[Any, None]:
            told = {**self.kwargs, **kwargs}
            graph = GraphStream(self.inner, call.value, call.config, told) if is_graph(self.inner) else None
            if graph is not None:
                chunks = graph.chunks()
            elif inside:
                chunks = steps(self.inner, call.value, call.config, **told)
            else:
                chunks = quiet.stream(call.steps, call.value, call.note, **told)
            async for chunk in pieces(chunks):
                yield chunk if isinstance(chunk, (str, BaseMessage)) else call.given.without_past(chunk)
            call.state = graph.state if graph is not None else None

        return self._start(input, config, run, redaction, streaming=True, hear=hear)

    @override
    async def abatch(
        self,
        inputs: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        """Runs sessions side by side, and the turns of one session in the order of the inputs.

        All of them are run, whatever comes of one; then the first exception is raised, unless they are to be returned.
        """
        check_batch(len(inputs), self.turns.rules.max_batch)
        configs = get_config_list(config, len(inputs)) if inputs else []
        outcomes: list[Any] = [None] * len(inputs)

        async def run_session(places: list[int]) -> None:
            for place in places:
                user = str(merge_configs(self.config, configs[place]).get("configurable", {}).get("user_id", ""))
                try:
                    async with self.turns.batches.share(user):
                        outcomes[place] = await self.ainvoke(inputs[place], configs[place], **kwargs)
                except Exception as error:  # noqa: BLE001 - raised or returned below
                    outcomes[place] = error

        sessions = by_session([merge_configs(self.config, one) for one in configs])
        each = self.turns.shares.rules.each  # more of them would only wait, and fill the user's line
        limit = min(each, configs[0].get("max_concurrency") or each) if configs else None
        await gather_with_concurrency(limit, *(run_session(places) for places in sessions))
        failed = next((outcome for outcome in outcomes if isinstance(outcome, Exception)), None)
        if failed is not None and not return_exceptions:
            raise failed
        return outcomes

    @override
    def astream_log(  # type: ignore[override]  # the parent's overloads differ in `diff` alone
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[RunLogPatch | RunLog]:
        redaction = Redaction(show_prompts=self.turns.rules.show_prompts)
        return run_log(self.inner, partial(self._tell, redaction), input, config, redaction, **kwargs)

    @override
    def astream_events(  # type: ignore[override]  # version 3 is for chat models alone
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[StreamEvent]:
        # A run around the turn: when the outermost one has ended, LangChain hears no more, and the turn is not durable
        # before the wrapped runnable's has.
        redaction = Redaction(show_prompts=self.turns.rules.show_prompts)
        config = merge_configs(self.config, config)
        traced = self._with_traces(config, *self._place(config))
        return run_events(self.get_name(), partial(self._tell, redaction), input, traced, redaction, **kwargs)
